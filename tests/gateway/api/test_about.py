"""What the gateway tells of itself, of the faces in a photograph and of the marks of a picture."""

import base64

import pytest

from faceclip_serving.contract.parameters import PARAMETERS
from tests.gateway.running import ROOT

ASTRONAUT = (ROOT / "examples" / "astronaut.jpg").read_bytes()
SMALL = {"prompt": "a castle", "num_inference_steps": 1, "height": 64, "width": 64}


def test_capabilities_tell_every_parameter_with_its_range_and_meaning(gate):
    told = gate.http.get("/v1/capabilities").json()
    (model,) = told["models"]
    assert (model["id"], model["variant"], model["placement"]) == ("faceclip", "tiny-sdxl", "cpu") and told[
        "default_model"
    ] == "faceclip"
    assert set(model["parameters"]) >= {each.name for each in PARAMETERS} - {"image_encoding"}
    assert all(each["doc"] for each in model["parameters"].values())
    steps = model["parameters"]["num_inference_steps"]
    assert steps["min"] <= steps["default"] <= steps["max"]
    features = told["features"]
    assert all(features[name] is True for name in ("stream", "jobs", "faces", "verify", "translate", "open_access"))
    assert features["consent_required"] is False


def test_status_tells_the_servers_work(gate):
    gate.http.post("/v1/images/generations", json=SMALL)
    (server,) = gate.http.get("/v1/status").json()["servers"]
    assert server["ready"] and server["models"][0]["placement"] == "cpu"
    work = server["work"]
    assert work["waiting"] == 0 and work["requests_done"] >= 1 and work["latency_s"]["total"] > 0
    assert server["work_unknown_because"] is None


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_it_is_well(gate, path):
    assert gate.http.get(path).status_code == 200


def test_metrics_count_by_route(gate):
    gate.http.get("/v1/models/faceclip")
    gate.http.get("/v1/models/" + "x" * 50)
    text = gate.http.get("/metrics").text
    assert 'gateway_requests_total{method="GET",route="/v1/models/{model}",status="404"}' in text
    assert "x" * 50 not in text
    assert "gateway_server_ready{" in text and "process_resident_memory_bytes" in text


def test_faces_of_a_photograph(gate):
    told = gate.http.post("/v1/faces", files={"image": ("a.jpg", ASTRONAUT)}).json()
    face = told["data"][0]
    assert face["index"] == 0 and face["usable"] and len(face["landmarks"]) == 5
    assert all(0 <= each <= 1 for each in face["fractions"])
    assert all(isinstance(text, str) and text for text in face["doubts"].values())
    assert isinstance(told["warnings"], list)


def test_marks_of_a_picture(gate):
    drawn = base64.b64decode(gate.http.post("/v1/images/generations", json=SMALL).json()["data"][0]["b64_json"])
    report = gate.http.post("/v1/verify", files={"picture": ("a.png", drawn)}).json()
    assert {"credentials", "mark"} <= set(report)


@pytest.mark.parametrize("path, name", [("/v1/faces", "image"), ("/v1/verify", "picture")])
@pytest.mark.parametrize("files", [{}, {"other": ("a.png", b"x")}, "empty", "twice", "text"], ids=str)
def test_what_is_not_one_file_is_refused(gate, path, name, files):
    parts = {
        "empty": [(name, ("a.png", b""))],
        "twice": [(name, ("a.png", b"x")), (name, ("b.png", b"x"))],
        "text": [(name, (None, ""))],
    }.get(str(files)) or [*dict(files).items(), ("model", (None, "faceclip"))]
    answer = gate.http.post(path, files=parts)
    assert answer.status_code == 400 and answer.json()["error"]["param"] in (name, "other"), answer.text


@pytest.mark.parametrize("path, name", [("/v1/faces", "image"), ("/v1/verify", "picture")])
def test_what_is_no_picture_is_the_servers_to_refuse(gate, path, name):
    answer = gate.http.post(path, files={name: ("a.png", b"no picture")})
    assert answer.status_code == 400 and answer.json()["error"]["message"]
    unknown = gate.http.post(path, files={name: ("a.png", ASTRONAUT), "model": (None, "nobody")})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
