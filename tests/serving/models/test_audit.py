"""What the log is told of a request: its previews too, however it ends; and what status tells of the log."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from faceclip_serving.audit.fingerprints import ALIKE, distance, perceptual_hash
from faceclip_serving.audit.keys import References, make_missing
from faceclip_serving.audit.log import AuditLog
from faceclip_serving.audit.verify import records
from faceclip_serving.contract.errors import Busy, Cancelled, Stopping
from faceclip_serving.contract.names import SAMPLER
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.settings import resolve
from faceclip_serving.contract.tensors import json_tensor
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.face.photos import decode_photo
from faceclip_serving.marking.marker import Marker
from faceclip_serving.models.audit import FOR_AUDIT, Recorder
from faceclip_serving.models.marks import rules_of
from faceclip_serving.models.streaming import stream
from tests.serving.audit.conftest import KEY

CONTEXT = SimpleNamespace(id="r-1")
PREVIEW = {"id": "0" * 32, "mark_id": None, "manifest": None, "sha256": "0" * 64, "perceptual_hash": "0" * 16}


@pytest.fixture
def settings(tmp_path):
    told = {"marks_folder": str(tmp_path / "keys"), "audit_folder": str(tmp_path / "audit"), "marks": "metadata"}
    found = {**resolve(CPU, "faceclip", environment={}), **told}
    make_missing(found)
    return found


@pytest.fixture
def recorder(settings):
    signature = SimpleNamespace(name="faceclip_stream")
    return Recorder(
        SimpleNamespace(settings=settings, deployment="faceclip", signature=signature, variant=TINY_SDXL, digest="0" * 64)
    )


def test_previews_that_were_sent_are_recorded_however_the_request_ends(recorder, tmp_path):
    recorder.made(CONTEXT, {}, {FOR_AUDIT: {"outputs": []}}, [PREVIEW])
    for error in (Cancelled("left"), Stopping("stops"), RuntimeError("boom")):
        recorder.failed(CONTEXT, {}, error, [PREVIEW, PREVIEW])
    told = list(records(tmp_path / "audit"))
    assert [(each["outcome"], len(each["previews"])) for each in told] == [
        ("ok", 1), ("cancelled", 2), ("stopping", 2), ("error", 2),
    ]  # fmt: skip
    for error in (Busy("full"), Stopping("stops")):
        recorder.failed(CONTEXT, {}, error)
    recorder.made(CONTEXT, {}, {})
    assert "previews" not in list(records(tmp_path / "audit"))[-1] and len(list(records(tmp_path / "audit"))) == 5


def test_texts_are_recorded_by_their_keyed_names_if_they_were_sent(recorder, settings, tmp_path):
    texts = {"prompt": "a woman in a red suit", "negative_prompt": "fog", "original_prompt": "穿红色西装的女人"}
    recorder.made(CONTEXT, request_tensors(**texts), {})
    recorder.made(CONTEXT, request_tensors(prompt=texts["prompt"]), {})
    whole, short = records(tmp_path / "audit")
    name = References.from_settings(settings).of_text
    assert {each: whole[each] for each in texts} == {each: name(text)[0] for each, text in texts.items()}
    assert whole["prompt"] == short["prompt"] and not {"negative_prompt", "original_prompt"} & short.keys()


def test_a_flow_tells_of_each_preview_what_bears_it(settings):
    marker = Marker.from_settings(settings, "faceclip-triton", "1")
    reports = [{"step": 1}, {"step": 2}, {}]
    latents = np.random.default_rng(0).random((1, 4, 24, 16), np.float32)

    def call(model, arrays):
        if model != SAMPLER:
            return {"job": json_tensor({"request": {"visible_label": "none", "image_encoding": "binary"}})}
        report = reports.pop(0) if set(arrays) == {"control"} else {}
        return {"report": json_tensor(report), **({"latents": latents} if report else {})}

    flow = stream(TINY_SDXL, np.full((5, 3), 0.1, np.float32), marker, 16, call, request_tensors(prompt="x"), "p")
    for _ in range(2):
        response = next(flow)
        file, (told,) = response["preview_image"][0], json.loads(response[FOR_AUDIT][0])
        assert told["sha256"] == hashlib.sha256(file).hexdigest() and told["id"].encode() in file
        assert distance(told["perceptual_hash"], perceptual_hash(decode_photo(file).pixels)) <= ALIKE


def test_status_tells_of_days_that_were_to_be_deleted(settings, tmp_path):
    rules = rules_of(settings, TINY_SDXL)
    assert rules()["audit"] == "on"
    old = datetime.now(UTC).date() - timedelta(days=settings["audit_days"] + 2)
    AuditLog(tmp_path / "audit", KEY, today=lambda: old).close()
    assert rules()["audit"] == f"on; kept longer than audit_days: {old}"
    assert rules_of({**settings, "audit_folder": ""}, TINY_SDXL)()["audit"] == "off"
