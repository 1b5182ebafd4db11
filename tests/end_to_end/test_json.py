"""JSON over HTTP, as curl and scripts send it: what is sent and answered is text, and no name is lost in silence."""

import base64
import io
import json
import urllib.error
import urllib.request

import pytest
from PIL import Image

from benchmarks.measure.example import PHOTO
from faceclip_serving.contract.parameters import PARAMETERS

TEXT = base64.b64encode(PHOTO.read_bytes()).decode()
QUICK = {"prompt": "a red coat", "num_inference_steps": 1}


@pytest.fixture
def ask(server):
    def send(model="faceclip", call="generate", **body):
        """The answer's document; of a refusal, its text."""
        url = f"http://127.0.0.1:{server.ports.http}/v2/models/{model}/{call}"
        request = urllib.request.Request(url, json.dumps(QUICK | body).encode())
        try:
            with urllib.request.urlopen(request, timeout=120) as reply:
                text = reply.read().decode()
        except urllib.error.HTTPError as error:
            text = error.read().decode()
        answer = json.loads(text.strip().split("\n\n")[-1].removeprefix("data: "))
        return answer.get("error", answer)

    return send


def test_what_a_json_caller_gets_is_json_with_pictures_as_base64(ask):
    answer = ask()
    assert Image.open(io.BytesIO(base64.b64decode(answer["images"]))).format == "PNG"
    assert int(float(answer["seeds"])) == answer["seeds"]  # JavaScript can send it again


@pytest.mark.parametrize(
    "photograph",
    [
        TEXT,
        [TEXT, TEXT],
        f"data:image/jpeg;base64,{TEXT}",
        base64.encodebytes(PHOTO.read_bytes()).decode(),
        base64.urlsafe_b64encode(PHOTO.read_bytes()).decode(),
    ],
    ids=["plain", "several", "data URL", "lines", "URL-safe"],
)
def test_photographs_in_any_usual_base64_are_used(ask, photograph):
    faces = json.loads(ask(face_images=photograph)["details"])["faces"]
    assert len(faces) == (2 if isinstance(photograph, list) else 1)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"face_image": TEXT}, "face_image: this model has no such parameter; did you mean 'face_images'?"),
        ({"guidence_scale": 9}, "did you mean 'guidance_scale'?"),
        ({"xyzzy": "a"}, f"known are {', '.join(each.name for each in PARAMETERS)}"),
        ({"face_images": []}, "face_images: expected at least one photograph, got an empty list"),
        ({"preview": True}, "only streams have previews"),
        ({"timeout": "60"}, "timeout: expected microseconds"),
        ({"scheduler_options": '{"solver_order": 2.0}'}, "write 2"),
    ],
)
def test_what_would_be_lost_is_refused(ask, body, said):
    assert said in ask(**body)
    in_a_stream = ask("faceclip_stream", "generate_stream", **body)
    assert "images" in in_a_stream if "preview" in body else said in in_a_stream


def test_tritons_own_names_pass_and_its_timeout_is_obeyed(ask):
    assert "images" in ask(timeout=60_000_000, id="mine", sequence_id=3, priority="batch")
    assert "timeout ran out" in ask(num_inference_steps=200, height=512, width=512, timeout=300_000)


def test_warnings_reach_the_caller(ask):
    warnings = json.loads(ask(prompt="a coat <lora:film:0.8>", id_guidance_scale=2.0)["details"])["warnings"]
    assert [warning.partition(":")[0] for warning in warnings] == ["prompt", "id_guidance_scale"]
