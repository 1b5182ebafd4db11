"""What an operator sees and sets: settings, the log line of a request, ids, metrics, tenants."""

import json
import re
import shutil
import urllib.request

import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from server.__main__ import main
from server.process import Ports, TritonServer

from .callers import LONG, Stream, inputs, status, until
from .test_given_up import post

WORD = "xylophagous"
"""Nobody else says it."""


@pytest.fixture(scope="module")
def narrow(repository, tmp_path_factory):
    """Two places, and two to wait, by a hand-edited config.pbtxt; logs prompts by `--set`, and writes a trace."""
    folder = tmp_path_factory.mktemp("narrow")
    shutil.copytree(repository, folder / "repository")
    config = folder / "repository" / "sampler" / "config.pbtxt"
    edited = re.sub(r'(key: "max_(?:active|waiting)"\s+value {\s+string_value: )"\d+"', r'\1"2"', config.read_text())
    assert edited != config.read_text()
    config.write_text(edited)
    trace = [
        f"--trace-config={each}" for each in ("mode=triton", "rate=1", "level=TIMESTAMPS", f"triton,file={folder / 'trace'}")
    ]
    settings = ["previews_kept=3", "faceclip.log_prompts=1", "lease_s=7"]
    with TritonServer(folder / "repository", Ports.free(), log=folder / "log", options=trace, settings=settings) as server:
        server.wait_ready()
        yield server


def lines(server, **wanted):
    """The lines of the log about requests, each a JSON document from end to end."""
    found = [json.loads(line) for line in server.log.read_text().splitlines() if '"event": "request"' in line]
    return [line for line in found if all(line[key] == value for key, value in wanted.items())]


def test_settings_are_obeyed_and_listed(narrow):
    told = status(narrow)["settings"]
    assert (told["max_active"], told["max_waiting"], told["previews_kept"], told["lease_s"]) == (2, 2, 3, 7.0)
    callers = [Stream(narrow.url, **LONG) for _ in range(4)]
    until(lambda: status(narrow)["active"] == 2 and status(narrow)["waiting"] == 2)
    with grpc.InferenceServerClient(narrow.url) as client, pytest.raises(InferenceServerException, match="busy: 4 requests"):
        client.infer("faceclip", inputs(num_inference_steps=1))
    for caller in callers:
        caller.leave()
    until(lambda: status(narrow)["in_flight"] == 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_activ=1", "set: expected NAME=VALUE with a name of max_active"),
        ("max_active", "set: expected NAME=VALUE"),
        ("max_active=0", "max_active: expected a value from 1 to 256, got 0"),
        ("max_active=two", "max_active: expected a whole number from 1 to 256, got two"),
        ("lease_s=nan", "lease_s: expected"),
        ("flux.max_active=1", "this repository has no deployment 'flux', only faceclip"),
    ],
)
def test_wrong_settings_are_refused_in_one_line_before_anything_starts(repository, capsys, monkeypatch, text, said):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("something was started"))
    ports = [f"--{name}-port={port}" for name, port in vars(Ports.free()).items()]
    assert main(["run", str(repository), *ports, "--set", text]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line


def test_a_request_is_one_line_of_json_without_what_its_caller_wrote(server, pipe):
    with grpc.InferenceServerClient(server.url) as client:
        client.infer(
            "faceclip",
            inputs(
                prompt=f"({WORD}:1.3) {WORD} {'word ' * 90}{WORD} <lora:{WORD}:0.8>".encode(),
                num_inference_steps=2,
                tenant=b"mill",
            ),
            request_id="log-1",
        )
        for number, wrong in enumerate(
            (
                {"scheduler": WORD.encode()},
                {"scheduler_options": json.dumps({WORD: 1}).encode()},
                {"face_images": WORD.encode()},
                {"image_encoding": WORD.encode()},
                {"tenant": b"a\xff"},
            )
        ):
            with pytest.raises(InferenceServerException):
                client.infer("faceclip", inputs(**{"prompt": WORD.encode(), **wrong}), request_id=f"log-wrong-{number}")
        with pytest.raises(InferenceServerException, match=WORD):
            client.infer("faceclip", inputs(prompt=WORD.encode()), parameters={WORD: 1}, request_id="log-name")
    (line,) = until(lambda: lines(server, id="log-1"))
    assert (line["outcome"], line["tenant"], line["rows"], line["images"]) == ("ok", "mill", 4, 1)
    assert line["seconds"].keys() == {
        "prepare", "encode", "queue", "denoise", "decode", "check", "mark", "finish", "total",
    }  # fmt: skip
    assert line["warnings"] and set(line["warnings"]) == {"prompt"} and "prompt" not in line
    abouts = [until(lambda number=number: lines(server, id=f"log-wrong-{number}"))[0] for number in range(5)]
    assert [line["outcome"] for line in abouts] == ["invalid"] * 5
    assert [line["about"] for line in abouts][:2] == ["scheduler", "scheduler_options"]
    assert until(lambda: lines(server, id="log-name"))[0]["about"] == ""
    assert WORD not in server.log.read_text()


def test_prompts_are_logged_where_an_operator_says_so(narrow):
    with grpc.InferenceServerClient(narrow.url) as client:
        client.infer("faceclip", inputs(prompt=WORD.encode(), num_inference_steps=1), request_id="told")
    (line,) = until(lambda: lines(narrow, id="told"))
    assert line["prompt"] == WORD


def test_a_requests_id_is_in_its_details_and_one_is_drawn_for_who_has_none(server):
    with grpc.InferenceServerClient(server.url) as client:
        answer = client.infer("faceclip", inputs(num_inference_steps=1), request_id="id-1")
        assert json.loads(answer.as_numpy("details")[0])["id"] == "id-1" == answer.get_response().id
        drawn = json.loads(client.infer("faceclip", inputs(num_inference_steps=1)).as_numpy("details")[0])["id"]
    assert len(until(lambda: lines(server, id=drawn))) == 1
    assert json.loads(post(server, "faceclip", prompt="a", num_inference_steps=1, id="id-2")["details"])["id"] == "id-2"


def test_metrics_tell_states_refusals_bounds_and_what_runs(server, pipe):
    pipe("a portrait", num_inference_steps=1)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    for state in ("reserved", "preparing", "waiting", "active", "decoding"):
        assert re.search(rf'^faceclip_requests{{.*state="{state}".*}} \d', text, re.MULTILINE), state
    for reason in ("full", "draining", "displaced"):
        assert re.search(rf'^faceclip_refusals_total{{.*reason="{reason}".*}} \d', text, re.MULTILINE), reason
    for stage in ("prepare", "encode", "queue", "denoise", "decode", "finish", "total"):
        assert re.search(rf'^faceclip_stage_seconds_bucket{{.*stage="{stage}".*le=".*}} \d', text, re.MULTILINE), stage
    for name, value in (("max_active", 8), ("max_waiting", 32), ("denoiser_rows", 8)):
        assert re.search(rf"^faceclip_{name}{{.*}} {value}$", text, re.MULTILINE), name
    for cache in ("face", "text"):
        for found in ("hits", "misses"):
            assert re.search(rf'^faceclip_cache_{found}_total{{.*cache="{cache}".*}} \d', text, re.MULTILINE), (cache, found)
    for component in ("denoiser", "text_encoder", "vae_decoder"):
        assert re.search(rf'^faceclip_gpu_seconds_total{{.*component="{component}".*}} \d', text, re.MULTILINE), component
    assert re.search(r'^faceclip_request_seconds_count{.*kind="text_to_image",outcome="ok".*} \d', text, re.MULTILINE)
    for name in ("arrivals_total", "pictures_total"):
        assert re.search(rf"^faceclip_{name}{{.*}} [1-9]", text, re.MULTILINE), name
    assert re.search(r"^faceclip_draining{.*} 0$", text, re.MULTILINE)
    assert re.search(r'^faceclip_build_info{.*digest="[0-9a-f]{12}".*version="\d.*} 1$', text, re.MULTILINE)


def test_a_flood_of_one_tenant_delays_itself_first(narrow):
    flood = []
    for number in range(4):  # in order: two are served, two wait
        flood.append(Stream(narrow.url, tenant=b"flood", **LONG))
        until(lambda number=number: status(narrow)["in_flight"] == number + 1)
    until(lambda: status(narrow)["active"] == 2)
    with grpc.InferenceServerClient(narrow.url) as client:
        answers = []
        client.async_infer(
            "faceclip",
            inputs(num_inference_steps=1, tenant=b"other", seed=1),
            callback=lambda result, error: answers.append(error or result),
        )
        until(lambda: any(isinstance(answer, InferenceServerException) for answer in flood[3].answers))
        assert "are this tenant's" in str(flood[3].answers[-1])
        flood[0].leave()
        until(lambda: answers)
        assert answers[0].as_numpy("images") is not None
        assert len(flood[2].answers) < LONG["num_inference_steps"] / 2, "the other one's turn came first"
    until(lambda: flood[2].answers)
    for caller in flood[1:]:
        caller.leave()
    until(lambda: status(narrow)["in_flight"] == 0)
    assert "displaced" in urllib.request.urlopen(f"http://127.0.0.1:{narrow.ports.metrics}/metrics", timeout=10).read().decode()


def test_tritons_trace_tells_the_id_and_does_no_harm(narrow):
    """The last test of this server: Triton writes the trace when it ends."""
    with grpc.InferenceServerClient(narrow.url) as client:
        for number in range(5):
            client.infer("faceclip", inputs(num_inference_steps=1), request_id=f"traced-{number}")
        answers = []
        client.start_stream(callback=lambda result, error: answers.append(error or result))
        client.async_stream_infer("faceclip_stream", inputs(num_inference_steps=1), request_id="traced-stream")
        until(lambda: len(answers) == 2)
        client.stop_stream()
    assert not narrow.ended
    narrow.stop()
    spans = json.loads((narrow.log.parent / "trace").read_text())
    found = {span["request_id"]: span["model_name"] for span in spans if span.get("request_id", "").startswith("traced-")}
    assert found == {**{f"traced-{number}": "faceclip" for number in range(5)}, "traced-stream": "faceclip_stream"}
