"""What metrics say of a sampler after all that may go wrong: nothing stays up."""

import threading
import time

import numpy as np
import pytest

from faceclip_serving.contract.errors import Busy, Cancelled
from faceclip_serving.contract.names import DENOISER, FACE_ENCODER, TEXT_ENCODER, VAE_DECODER
from faceclip_serving.contract.placements import CPU, placement_of
from faceclip_serving.contract.settings import resolve
from faceclip_serving.contract.variants.sdxl import SDXL, TINY_SDXL
from faceclip_serving.sampling.loop import Ticks, Work
from faceclip_serving.sampling.pictures import start_pictures
from faceclip_serving.sampling.requests import State
from tests.serving.triton_metrics import Registry

from .limits import limited
from .test_pictures import conditioning, denoise, job

LIMITS = limited(1, 1)
SETTINGS = resolve(CPU, "faceclip", environment={})
STATES = [state.value for state in list(State)[:-1]]


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def made(registry, monkeypatch):
    """`SamplerMetrics` of a placement."""
    metrics, sampler_metrics = registry.use(monkeypatch, "metrics", "sampler_metrics")

    def make(placement=CPU):
        told = registry.told_by(metrics.Metrics("tiny-sdxl", "faceclip"))
        return sampler_metrics.SamplerMetrics(told, SETTINGS, "digest", placement)

    return make


class Held:
    """A network that stands still while a test looks, and does then what it is told."""

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.does = denoise

    def __call__(self, inputs):
        self.begun.set()
        assert self.go_on.wait(30)
        return self.does(inputs)


def fail(*_):
    raise MemoryError("out of memory")


def not_numbers(inputs):
    return denoise(inputs) * np.nan


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)


def up(registry):
    """All gauges that tell how many requests are where, and are not 0."""
    found = {name: registry.of(name) for name in ("active_requests", "waiting_requests")}
    return {**registry.by("requests", "state"), **{name: value for name, value in found.items() if value}}


def leave(lives, place):
    lives.leave(place)


def lose_the_holder(lives, place):
    lives.end(place, Cancelled("its model is gone"))


def cut(lives, place):
    lives.drain(on=True, cut=True)


def stop(lives, place):
    lives.stop()


WAYS = {
    "the denoiser fails": (lambda held: setattr(held, "does", fail), None),
    "what it gives is no number": (lambda held: setattr(held, "does", not_numbers), None),
    "its caller hangs up": (None, leave),
    "its model dies": (None, lose_the_holder),
    "a drain cuts it": (None, cut),
    "the sampler stops": (None, stop),
    "all goes well": (None, None),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_gauge_stays_up_however_a_request_ends(start, made, registry, way):
    prepare, happens = WAYS[way]
    held, metrics = Held(), made()
    lives, *_ = start(held, limits=LIMITS, observer=metrics)
    lives._on_end = lambda request, error: metrics.ended(error)
    place = lives.admit().place
    lives.enter(place, lambda: Work(start_pictures(TINY_SDXL, job(seed=1), conditioning(1))), lambda event: None)
    assert held.begun.wait(30)
    until(lambda: up(registry) == {"active": 1, "active_requests": 1})
    if prepare is not None:
        prepare(held)
    if happens is not None:
        happens(lives, place)
    held.go_on.set()
    until(lambda: lives.why(place) is not None or State.FINISHING in lives.counts().states or happens is not None)
    lives.end(place)
    until(lambda: up(registry) == {})
    until(lambda: sum(registry.by("requests_total", "outcome").values()) == 1)


@pytest.mark.parametrize("stage", ["schedules", "encoder", "decoder"])
def test_no_gauge_stays_up_after_another_stage_has_failed(start, made, registry, stage):
    metrics, ended = made(), threading.Event()
    lives, *_ = start(denoise, limits=LIMITS, observer=metrics, decoder=fail)
    lives._on_end = lambda request, error: ended.set()
    work = fail if stage == "encoder" else lambda: Work(start_pictures(TINY_SDXL, job(seed=1), conditioning(1)))
    place = lives.admit().place
    lives.enter(place, work, lambda event: None, schedule=fail if stage == "schedules" else None)
    assert ended.wait(30)
    lives.end(place)
    until(lambda: up(registry) == {})


def test_no_gauge_stays_up_after_a_refusal_and_each_is_counted(start, made, registry):
    metrics = made()
    lives, *_ = start(denoise, limits=LIMITS, observer=metrics)
    lives._on_end = lambda request, error: metrics.ended(error)
    held = [lives.admit().place for _ in range(2)]
    with pytest.raises(Busy):
        lives.admit()
    lives.drain(on=True)
    with pytest.raises(Busy):
        lives.admit()
    until(lambda: registry.by("refusals_total", "reason") == {"full": 1, "draining": 1})
    for place in held:
        lives.end(place)
    until(lambda: up(registry) == {})


def test_whether_it_drains_is_told_whatever_else_happens(start, made, registry):
    lives, *_ = start(denoise, observer=made())
    for on in (True, False, True):
        lives.drain(on)
        until(lambda on=on: registry.of("draining") == on)


def test_every_state_has_a_gauge_from_the_beginning(made, registry):
    made()
    told = [dict(labels)["state"] for (name, labels) in registry.metrics if name == "faceclip_requests"]
    assert sorted(told) == sorted(STATES)


ALL = {FACE_ENCODER, VAE_DECODER, DENOISER}


@pytest.mark.parametrize(("placement", "counted"), [("cpu", ALL), ("8gb", ALL - {FACE_ENCODER}), ("gpu-ort", ALL)])
@pytest.mark.parametrize("emulated", [False, True])
def test_seconds_are_those_of_the_denoisers_device(made, registry, placement, emulated, counted):
    placed = placement_of(SDXL, placement)
    metrics = made(placed.emulate() if emulated else placed)
    networks = metrics.counted({name: lambda arrays: time.sleep(0.001) or {} for name in ALL})
    for run in networks.values():
        run({})
    metrics.ticks(Ticks(ticks=1, rows=2, requests=1, denoiser_s=0.25, own_s=0.1))
    assert registry.by("gpu_seconds_total", "component").keys() == counted
    assert registry.of("gpu_seconds_total", component=DENOISER) == 0.25


def test_a_call_that_fails_costs_what_it_took(made, registry):
    networks = made().counted({VAE_DECODER: fail})
    with pytest.raises(MemoryError):
        networks[VAE_DECODER]({})
    assert registry.of("gpu_seconds_total", component=VAE_DECODER) > 0


def test_what_was_remembered_and_what_was_not_is_told_by_cache(made, registry):
    metrics = made()
    metrics.looked_up(FACE_ENCODER, 0, 1)
    metrics.looked_up(FACE_ENCODER, 1, 0)
    metrics.looked_up(TEXT_ENCODER, 2, 1)
    assert registry.by("cache_hits_total", "cache") == {"face": 1, "text": 2}
    assert registry.by("cache_misses_total", "cache") == {"face": 1, "text": 1}
