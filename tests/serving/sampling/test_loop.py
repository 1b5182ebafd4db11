"""The step loop, with a plain callable as denoiser."""

import gc
import queue
import threading
import time
import weakref
from functools import partial

import numpy as np
import pytest

from faceclip_serving.contract.errors import Cancelled, DeadlineExceeded, InvalidRequest, NotANumber, Stopping
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.sampling.loop import Stepped, Usage, Work
from faceclip_serving.sampling.pictures import sample, start_pictures
from faceclip_serving.sampling.requests import Ended

from .limits import limited
from .test_pictures import conditioning, denoise, job


class Denoiser:
    """Takes `seconds` per call and notes the rows of each. Fails for pictures taller than 8 cells, and for 'poisoned' latents."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.rows = []

    def __call__(self, inputs):
        self.rows.append(len(inputs["timestep"]))
        time.sleep(self.seconds)
        if inputs["latents"].shape[2] > 8 or (inputs["pooled"][:, 0] > POISON / 2).any():
            raise MemoryError("too large")
        return denoise(inputs)


POISON = 1e6


def submit(lives, key, one, arrays=None, deadline=None, change=lambda work: None, **wants):
    """Submits a job, after a `change` of its work; its place, work, and the queue of its events."""
    events = queue.Queue()
    work = Work(start_pictures(TINY_SDXL, one, arrays or conditioning(key)), **wants)
    change(work)
    place = lives.admit(deadline=deadline).place
    lives.enter(place, lambda: work, events.put)
    return place, work, events


def outcome(events):
    while isinstance(event := events.get(timeout=30), Stepped):
        pass
    return event


def alone(key, one):
    return sample(start_pictures(TINY_SDXL, one, conditioning(key)), denoise, 8)


def test_a_late_request_joins_midway_and_shares_every_tick(start):
    lives, *_ = start(Denoiser(0.02))
    *_, long = submit(lives, 1, job(seed=1, num_inference_steps=12))
    time.sleep(0.07)
    *_, late = submit(lives, 2, job(seed=2))
    event = outcome(late)
    np.testing.assert_array_equal(event.image, alone(2, job(seed=2)))
    assert (event.usage.ticks, event.usage.rows, event.usage.shared_rows) == (4, 8, 16)
    np.testing.assert_array_equal(outcome(long).image, alone(1, job(seed=1, num_inference_steps=12)))


def poisoned(key):
    arrays = {name: array.copy() for name, array in conditioning(key).items()}
    arrays["pooled"][:, 0] = POISON
    return arrays


def test_a_failing_call_of_several_fails_only_those_that_fail_alone(start):
    """The poisoned request is of the size of the others, so it shares their calls."""
    lives, *_ = start(Denoiser(0.02))
    good = [submit(lives, key, job(seed=key))[-1] for key in (1, 2)]
    *_, bad = submit(lives, 3, job(seed=3), poisoned(3))
    event = outcome(bad)
    assert isinstance(event, Ended) and isinstance(event.error, MemoryError)
    for key, events in zip((1, 2), good, strict=True):
        np.testing.assert_array_equal(outcome(events).image, alone(key, job(seed=key)))


def test_a_failing_call_keeps_nothing_of_what_failed(start, uncollected):
    lives, *_ = start(Denoiser())
    place, work, events = submit(lives, 1, job(seed=1, height=128))
    kept = [weakref.ref(picture) for picture in work.pictures]
    assert isinstance(outcome(events).error, MemoryError)
    lives.end(place)
    del work, events
    deadline = time.monotonic() + 5
    while any(each() is not None for each in kept) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [each() for each in kept] == [None]


def test_a_picture_that_fails_in_its_middle_fails_its_own_request_only(start, caplog):
    lives, *_ = start(Denoiser(0.02))
    *_, good = submit(lives, 1, job(seed=1, num_inference_steps=8))

    def fails(_predictions):
        raise IndexError("index 50 is out of bounds")

    def spoil(work):
        work.pictures[0].advance = fails

    *_, bad = submit(lives, 2, job(seed=2, num_inference_steps=8), change=spoil)
    assert isinstance(outcome(bad).error, IndexError)
    (logged,) = caplog.records
    assert logged.message == "a request failed in the sampler" and logged.exc_info[0] is IndexError
    np.testing.assert_array_equal(outcome(good).image, alone(1, job(seed=1, num_inference_steps=8)))


@pytest.mark.parametrize("where", [np.s_[:], np.s_[0, 0, 0, 0]])
def test_values_that_are_not_numbers_are_an_error_of_their_own(start, where):
    def spoil(work):
        work.pictures[0].latents[where] = np.nan

    lives, *_ = start(Denoiser())
    *_, events = submit(lives, 1, job(seed=1), change=spoil)
    assert isinstance(outcome(events).error, NotANumber)


def test_steps_bring_the_latents_only_where_previews_are_wanted(start):
    lives, *_ = start(Denoiser(), limits=limited(1, 8))
    for wants_previews in (True, False):
        _, work, events = submit(lives, 1, job(seed=1), wants_steps=True, wants_previews=wants_previews)
        steps = [events.get(timeout=30) for _ in range(4)]
        assert [each.step for each in steps] == [1, 2, 3, 4] and all(each.total == 4 for each in steps)
        assert [each.latents is not None for each in steps] == [wants_previews] * 4
        last = outcome(events)
        if wants_previews:
            assert not np.array_equal(steps[0].latents, steps[1].latents), "each is of its own step"
            np.testing.assert_array_equal(steps[-1].latents, last.image)
        assert work.steps_done() == 4


def test_what_a_request_has_used_is_told_in_round_numbers():
    usage = Usage(ticks=3, rows=6, shared_rows=8, denoiser_s=0.12345678, skipped_steps=1)
    assert usage.report() == {
        "ticks": 3, "rows": 6, "mean_rows_per_tick": 2.67, "denoiser_s": 0.123457, "skipped_steps": 1,
    }  # fmt: skip
    assert set(Usage().report().values()) == {0}
    assert Usage(ticks=1, shared_rows=5).report()["mean_rows_per_tick"] == 5


def test_a_request_has_done_the_steps_that_all_its_pictures_have_done():
    ahead, behind = start_pictures(TINY_SDXL, job(seed=1, num_images_per_prompt=2), conditioning(1))
    for picture in (ahead, behind, ahead, ahead):
        picture.advance(np.zeros((2, *picture.shape[1:]), np.float32))
    work = Work([ahead, behind], wants_previews=True)
    told = work.stepped()
    assert (told.step, told.total, told.timestep) == (1, 4, behind.schedule.timesteps[0]) and work.steps_done() == 1
    np.testing.assert_array_equal(told.latents, ahead.latents)


def test_a_loop_that_has_nothing_to_do_holds_nothing_of_what_it_did(start):
    lives, loop, _ = start(Denoiser())
    place, work, events = submit(lives, 1, job(seed=1))
    kept = [weakref.ref(picture) for picture in work.pictures]
    outcome(events)
    lives.end(place)
    del work, events
    deadline = time.monotonic() + 30
    while any(each() is not None for each in kept) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert [each() for each in kept] == [None] and loop.stalled_s == 0.0


def test_how_long_the_loop_is_at_a_round_is_known_and_how_long_the_last_one_took(start):
    going, inside = threading.Event(), threading.Event()

    def slow(inputs):
        inside.set()
        going.wait(30)
        return denoise(inputs)

    lives, loop, _ = start(slow)
    assert loop.stalled_s == 0.0 and loop.round_s == 0.0
    *_, events = submit(lives, 1, job(seed=1))
    assert inside.wait(30)
    time.sleep(0.05)
    assert 0.05 <= loop.stalled_s < 30
    going.set()
    outcome(events)
    deadline = time.monotonic() + 30
    while loop.stalled_s and time.monotonic() < deadline:
        time.sleep(0.001)
    assert loop.stalled_s == 0.0 and 0.0 < loop.round_s < 30


def test_an_end_stops_the_work_at_once_and_leaves_others_alone(start):
    """The call that runs is the last one: its rows are not used, and no further one has any of the ended request."""
    denoiser = Denoiser(0.02)
    lives, *_ = start(denoiser)
    place, work, doomed = submit(lives, 1, job(seed=1, num_inference_steps=100), wants_steps=True)
    *_, other = submit(lives, 2, job(seed=2, num_inference_steps=20))
    while doomed.get(timeout=30).step < 5:
        pass
    assert lives.end(place, Cancelled("gone"))
    calls = len(denoiser.rows)
    event = outcome(doomed)
    assert isinstance(event, Ended) and isinstance(event.error, Cancelled)
    np.testing.assert_array_equal(outcome(other).image, alone(2, job(seed=2, num_inference_steps=20)))
    assert set(denoiser.rows[calls + 1 :]) == {2}, "the other one, alone"
    assert work.steps_done() <= 7


def test_a_deadline_is_obeyed_between_steps_also_while_waiting(start):
    lives, *_ = start(Denoiser(0.02), limits=limited(1, 8))
    soon = time.monotonic() + 0.1
    *_, active = submit(lives, 1, job(seed=1, num_inference_steps=100), deadline=soon)
    *_, waiting = submit(lives, 2, job(seed=2), deadline=soon)
    for events in (active, waiting):
        assert isinstance(outcome(events).error, DeadlineExceeded)


def test_interactive_requests_leave_the_waiting_line_first(start):
    lives, *_ = start(Denoiser(0.01), limits=limited(1, 8))
    order = queue.Queue()
    for key, priority in ((1, "interactive"), (2, "batch"), (3, "interactive")):
        pictures = start_pictures(TINY_SDXL, job(seed=key), conditioning(key))
        lives.enter(lives.admit().place, partial(Work, pictures), lambda event, key=key: order.put(key), priority=priority)
    assert [order.get(timeout=30) for _ in range(3)] == [1, 3, 2]


def test_stopping_tells_everyone(start):
    lives, _, threads = start(Denoiser(0.02), limits=limited(1, 8))
    waiting = [submit(lives, key, job(seed=key, num_inference_steps=100))[-1] for key in (1, 2)]
    threads.stop()
    assert all(isinstance(outcome(events).error, Stopping) for events in waiting)


class Load:
    """An observer that notes what it is told."""

    def __init__(self):
        self.loads = []
        self.told = []

    def ticks(self, ticks):
        self.told.append(ticks)

    def load(self, counts):
        self.loads.append((counts.active, counts.waiting))


def test_the_load_that_is_told_returns_to_nothing_after_a_failure(start):
    load = Load()
    lives, *_ = start(Denoiser(), observer=load)
    *_, events = submit(lives, 1, job(seed=1, height=128))
    assert isinstance(outcome(events).error, MemoryError)
    deadline = time.monotonic() + 30
    while load.loads[-1:] != [(0, 0)] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert load.loads[-1] == (0, 0) and (1, 0) in load.loads


def test_every_round_is_told_once_when_the_work_is_done_at_the_latest(start):
    """The seconds of calls and of everything else, copying their inputs included, are those that the loop worked."""
    load = Load()
    lives, *_ = start(Denoiser(0.02), observer=load)
    began = time.monotonic()
    both = [submit(lives, key, job(seed=key, num_inference_steps=30))[-1] for key in (1, 2)]
    usages = [outcome(events).usage for events in both]
    seconds = time.monotonic() - began
    while load.loads[-1:] != [(0, 0)] and time.monotonic() < began + 30:
        time.sleep(0.01)
    assert sum(each.requests for each in load.told) == 60 and sum(each.rows for each in load.told) == 120
    ticks = sum(each.ticks for each in load.told)
    assert 30 <= ticks <= 60 and 1 < len(load.told) < ticks
    denoiser_s = sum(each.denoiser_s for each in load.told)
    assert ticks * 0.02 <= denoiser_s <= denoiser_s + sum(each.own_s for each in load.told) <= seconds + 1
    assert max(usage.denoiser_s for usage in usages) <= denoiser_s + 1e-6


@pytest.mark.parametrize("stage", ["encoder", "step-loop", "decoder"])
def test_a_thread_that_ends_takes_everybody_along_and_nobody_new_is_taken(start, monkeypatch, stage):
    lost = []
    lives, loop, threads = start(Denoiser(0.02), on_loss=lambda: lost.append(stage))
    at_fault = {"encoder": (lives, "encoded"), "step-loop": (loop._choices, "next"), "decoder": (lives, "decoded")}
    monkeypatch.setattr(*at_fault[stage], lambda *told: 1 / 0)
    *_, events = submit(lives, 1, job(seed=1))
    event = outcome(events)
    assert "the sampler has stopped: ZeroDivisionError" in str(event.error)
    with pytest.raises(RuntimeError, match="the sampler has stopped"):
        lives.admit()
    for thread in threads._threads:
        if thread.name != "messages":
            thread.join(30)
    assert not threads.alive and lost == [stage]


@pytest.mark.parametrize("stage", ["encoder", "decoder"])
def test_what_fails_in_an_encoder_or_the_decoder_is_one_requests_own_and_logged(start, stage, caplog):
    def decode(arrays):
        if stage == "decoder" and len(arrays["latents"]) == 2:
            raise MemoryError("too many")
        return {"image": arrays["latents"]}

    lives, *_ = start(Denoiser(0.01), decoder=decode)
    *_, good = submit(lives, 1, job(seed=1))
    if stage == "encoder":
        bad = queue.Queue()
        lives.enter(lives.admit().place, lambda: 1 / 0, bad.put)
    else:
        *_, bad = submit(lives, 2, job(seed=2, num_images_per_prompt=2))
    assert isinstance(outcome(bad).error, ZeroDivisionError if stage == "encoder" else MemoryError)
    np.testing.assert_array_equal(outcome(good).image, alone(1, job(seed=1)))
    np.testing.assert_array_equal(outcome(submit(lives, 3, job(seed=3))[-1]).image, alone(3, job(seed=3)))
    (logged,) = caplog.records
    assert logged.levelname == "ERROR" and logged.message == f"a request failed in the {stage}{'s' * (stage == 'encoder')}"
    assert logged.exc_info is not None and logged.exc_info[0] in (ZeroDivisionError, MemoryError)


def test_a_schedule_is_looked_up_before_its_request_is_encoded_and_a_bad_one_is_its_callers_error(start, caplog):
    lives, *_ = start(Denoiser(0.0))
    looked_up, events, bad = [], queue.Queue(), queue.Queue()

    def encode():
        assert looked_up == [True]
        return Work(start_pictures(TINY_SDXL, job(seed=1), conditioning(1)))

    def refuse():
        raise InvalidRequest("scheduler_options: cannot be run")

    lives.enter(lives.admit().place, encode, bad.put, schedule=refuse)
    assert isinstance(outcome(bad).error, InvalidRequest)
    lives.enter(lives.admit().place, encode, events.put, schedule=lambda: looked_up.append(True))
    np.testing.assert_array_equal(outcome(events).image, alone(1, job(seed=1)))
    assert not caplog.records, "a caller's own fault is none of the server's"
