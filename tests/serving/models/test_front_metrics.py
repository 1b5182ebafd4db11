"""What the public models count: who came, of which kind, how long it took, what was delivered."""

import numpy as np
import pytest

from faceclip_serving.contract.errors import OUTCOMES, Busy, InvalidRequest, outcome
from faceclip_serving.contract.kinds import Kind, kind_of
from faceclip_serving.contract.names import FACES, STREAM, UNARY
from faceclip_serving.contract.request import request_tensors
from tests.serving.triton_metrics import Registry

FILE = b"\x89PNG"


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def front(registry, monkeypatch):
    metrics, front_metrics = registry.use(monkeypatch, "metrics", "front_metrics")
    return front_metrics.FrontMetrics(registry.told_by(metrics.Metrics("tiny-sdxl", "faceclip")))


@pytest.mark.parametrize(
    ("role", "kind", "values"),
    [
        (UNARY, Kind.TEXT_TO_IMAGE, {}),
        (UNARY, Kind.TEXT_TO_IMAGE, {"face_images": [FILE]}),
        (STREAM, Kind.TEXT_TO_IMAGE, {"mask": "none"}),
        (UNARY, Kind.IMAGE_TO_IMAGE, {"image": FILE}),
        (STREAM, Kind.IMAGE_TO_IMAGE, {"image": FILE, "mask": "none"}),
        (UNARY, Kind.INPAINTING, {"image": FILE, "mask_image": FILE}),
        (STREAM, Kind.INPAINTING, {"image": FILE, "mask": "face"}),
        (UNARY, Kind.INPAINTING, {"image": FILE, "mask": "head"}),
        (FACES, Kind.FACES, {"face_images": [FILE]}),
    ],
)
def test_a_kind_follows_from_what_came(role, kind, values):
    assert kind_of(role, request_tensors(**values)) is kind


@pytest.mark.parametrize(
    "mask", [np.array([], object), np.array([b"\xff"], object), np.array([[1.0]]), np.array(["nobody"], object)]
)
def test_what_is_no_mask_has_a_kind_as_well(mask):
    assert kind_of(UNARY, {"mask": mask}) is Kind.TEXT_TO_IMAGE


def test_who_came_is_counted_whatever_becomes_of_it(front, registry):
    assert "faceclip_arrivals_total" in {name for name, _ in registry.metrics}, (
        "there from the start, so that a rate sees the first"
    )
    for _ in range(3):
        front.arrived()
    front.never_admitted(Busy("full"))
    front.never_admitted(InvalidRequest("prompt: none"))
    assert registry.of("arrivals_total") == 3
    assert registry.by("requests_total", "outcome") == {"rejected": 1, "invalid": 1}


@pytest.mark.parametrize("how", OUTCOMES)
def test_seconds_are_told_by_kind_and_outcome(front, registry, how):
    error = OUTCOMES[how]("x") if OUTCOMES[how] else None
    details = {"seeds": [1, 2], "timings_s": {"total": 0.5}} if error is None else {}
    front.answered(Kind.INPAINTING, 0.5, details, error)
    assert registry.by("request_seconds", "kind", "outcome") == {("inpainting", outcome(error)): 0.5}
    assert registry.of("pictures_total") == (2 if error is None else 0)
    assert registry.by("stage_seconds", "stage") == ({"total": 0.5} if error is None else {})


def test_what_shows_faces_delivers_no_picture(front, registry):
    front.answered(Kind.FACES, 0.1, {"timings_s": {"total": 0.1}}, None)
    assert registry.of("pictures_total") == 0 and registry.of("request_seconds", kind="faces", outcome="ok") == 0.1
