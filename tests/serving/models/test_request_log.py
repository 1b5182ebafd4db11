"""The log line of a request: what it tells, and that it never repeats what a caller wrote."""

import io
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest

from faceclip_serving.contract.errors import Busy, Cancelled, InvalidRequest, Refused
from faceclip_serving.models.request_log import line, request_log

SECRET = "MARKER"
ARRAYS = {
    "prompt": np.array([f"a portrait of {SECRET}".encode()], object),
    "negative_prompt": np.array([SECRET.encode()], object),
    "tenant": np.array([b"shop"], object),
}
DETAILS = {
    "timings_s": {"prepare": 0.1, "total": 0.5},
    "sampling": {"rows": 12},
    "seeds": [1, 2],
    "warnings": [f"prompt: not used: '{SECRET}'", "face_images[1]: blurred", f"{SECRET} without a name", f"{SECRET}: x"],
    "parameters": {"prompt": SECRET},
}


def told(log_prompts=0, failed=None, details=None, arrays=None):
    setup = SimpleNamespace(
        signature=SimpleNamespace(name="faceclip"), deployment="faceclip", settings={"log_prompts": log_prompts}
    )
    text = line(setup, "id", 0.25, ARRAYS if arrays is None else arrays, details or {}, failed)
    assert "\n" not in text
    return json.loads(text)


def test_a_finished_request():
    found = told(details=DETAILS)
    assert (found["event"], found["id"], found["tenant"], found["outcome"]) == ("request", "id", "shop", "ok")
    assert found["seconds"] == DETAILS["timings_s"] and (found["images"], found["rows"]) == (2, 12)
    assert found["warnings"] == ["prompt", "face_images[1]", "", ""]
    assert SECRET not in json.dumps(found) and "about" not in found


@pytest.mark.parametrize(
    ("failed", "outcome", "about"),
    [
        (InvalidRequest(f"scheduler: expected one of a, got '{SECRET}'"), "invalid", "scheduler"),
        (InvalidRequest(f"{SECRET}: this model has no such parameter"), "invalid", ""),
        (InvalidRequest("marker: this model has no such parameter"), "invalid", ""),
        (Refused(f"consent.not_covered: face_images[1]: the consent '{SECRET}'"), "refused", "consent.not_covered"),
        (Busy(f"busy: {SECRET}"), "rejected", "busy"),
        (Cancelled("the caller is gone"), "cancelled", ""),
        (MemoryError(SECRET), "error", ""),
    ],
)
def test_a_failed_request_is_told_by_its_kind_and_its_parameter(failed, outcome, about):
    found = told(failed=failed)
    assert (found["outcome"], found["about"], found["seconds"]) == (outcome, about, {"total": 0.25})
    assert SECRET not in json.dumps(found)


def test_an_operator_may_ask_for_prompts():
    assert told(log_prompts=1)["prompt"] == f"a portrait of {SECRET}"


@pytest.mark.parametrize("value", [np.array([], object), np.array([3]), np.array([b"\xff"], object)])
def test_what_is_no_text_breaks_no_line(value):
    told(log_prompts=1, arrays={"prompt": value, "tenant": value})


def test_a_line_is_a_document_and_nothing_else(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    logging.getLogger("faceclip.requests").handlers.clear()
    for _ in range(2):
        request_log().warning("%s", json.dumps({"a": 1}))
    logging.getLogger("faceclip.requests").handlers.clear()
    assert [json.loads(text) for text in out.getvalue().splitlines()] == [{"a": 1}, {"a": 1}]
