"""The step loop, the service and admission, with a plain callable as denoiser."""

import json
import queue
import time
from dataclasses import replace

import numpy as np
import pytest

from faceclip_serving.contract.errors import Busy, Cancelled, DeadlineExceeded, InvalidRequest, Stopping
from faceclip_serving.contract.sdxl import TINY_SDXL
from faceclip_serving.sampling.admission import Admission, urgency
from faceclip_serving.sampling.loop import Failed, StepLoop, Stepped, Task
from faceclip_serving.sampling.pictures import sample, start_pictures
from faceclip_serving.sampling.service import Service

from .test_pictures import conditioning, denoise, job


class Denoiser:
    """Takes `seconds` per call and notes the rows of each."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.rows = []

    def __call__(self, inputs):
        self.rows.append(len(inputs["timestep"]))
        time.sleep(self.seconds)
        if inputs["latents"].shape[2] > 8:
            raise MemoryError("too large")
        return denoise(inputs)


@pytest.fixture
def start():
    loops = []

    def make(denoiser, max_rows=8, max_active=8):
        loops.append(StepLoop(denoiser, max_rows, max_active))
        return loops[-1]

    yield make
    for loop in loops:
        loop.stop()


def submit(loop, key, one, **options):
    """Submits a job; the queue of its events."""
    events = queue.Queue()
    task = Task(start_pictures(TINY_SDXL, one, conditioning(key)), events.put, **options)
    loop.submit(task)
    return task, events


def outcome(events):
    while isinstance(event := events.get(timeout=30), Stepped):
        pass
    return event


def alone(key, one):
    return sample(start_pictures(TINY_SDXL, one, conditioning(key)), denoise, 8)


def test_a_late_request_joins_midway_and_shares_every_tick(start):
    loop = start(Denoiser(0.02))
    _, long = submit(loop, 1, job(seed=1, num_inference_steps=12))
    time.sleep(0.07)
    _, late = submit(loop, 2, job(seed=2))
    event = outcome(late)
    np.testing.assert_array_equal(event.latents, alone(2, job(seed=2)))
    assert (event.usage.ticks, event.usage.rows, event.usage.shared_rows) == (4, 8, 16)
    np.testing.assert_array_equal(outcome(long).latents, alone(1, job(seed=1, num_inference_steps=12)))


def test_a_failing_call_fails_its_own_requests_only(start):
    loop = start(Denoiser())
    good, bad = submit(loop, 1, job(seed=1))[1], submit(loop, 2, job(seed=2, height=128))[1]
    event = outcome(bad)
    assert isinstance(event, Failed) and isinstance(event.error, MemoryError)
    np.testing.assert_array_equal(outcome(good).latents, alone(1, job(seed=1)))


def test_cancel_stops_the_work_within_two_steps_and_leaves_others_alone(start):
    denoiser = Denoiser(0.02)
    loop = start(denoiser)
    task, doomed = submit(loop, 1, job(seed=1, num_inference_steps=100), wants_steps=True)
    _, other = submit(loop, 2, job(seed=2, num_inference_steps=20))
    while doomed.get(timeout=30).step < 5:
        pass
    task.cancelled = True
    event = outcome(doomed)
    assert isinstance(event, Failed) and isinstance(event.error, Cancelled)
    assert task.step <= 7
    np.testing.assert_array_equal(outcome(other).latents, alone(2, job(seed=2, num_inference_steps=20)))
    assert denoiser.rows[-1] == 2  # the other one, alone


def test_a_deadline_is_obeyed_between_steps_also_while_waiting(start):
    loop = start(Denoiser(0.02), max_active=1)
    soon = time.monotonic() + 0.1
    _, active = submit(loop, 1, job(seed=1, num_inference_steps=100), deadline=soon)
    _, waiting = submit(loop, 2, job(seed=2), deadline=soon)
    for events in (active, waiting):
        event = outcome(events)
        assert isinstance(event, Failed) and isinstance(event.error, DeadlineExceeded)


def test_interactive_requests_leave_the_waiting_line_first_but_batch_does_not_starve(start):
    loop = start(Denoiser(0.01), max_active=1)
    order = queue.Queue()
    for key, priority in ((1, "interactive"), (2, "batch"), (3, "interactive")):
        pictures = start_pictures(TINY_SDXL, job(seed=key), conditioning(key))
        loop.submit(Task(pictures, lambda event, key=key: order.put(key), priority=priority))
    assert [order.get(timeout=30) for _ in range(3)] == [1, 3, 2]
    assert urgency("batch", waiting_since=0.0) < urgency("interactive", waiting_since=31.0)


def test_stopping_tells_everyone():
    loop = StepLoop(Denoiser(0.02), 8, 1)
    waiting = [submit(loop, key, job(seed=key, num_inference_steps=100))[1] for key in (1, 2)]
    loop.stop()
    assert all(isinstance(outcome(events).error, Stopping) for events in waiting)


class Reply:
    """Collects the one answer of a request."""

    def __init__(self):
        self.answers = queue.Queue()
        self.send = self.refuse = self.answers.put

    def get(self):
        answer = self.answers.get(timeout=30)
        assert self.answers.empty()
        return answer


class TestService:
    def ask(self, service, arrays=None, **control):
        reply = Reply()
        tensors = dict(arrays or {})
        if control:
            tensors["control"] = np.array([json.dumps(control).encode()], object)
        service.handle(tensors, reply)
        return reply

    def report(self, reply):
        answer = reply.get()
        assert isinstance(answer, dict), answer
        return json.loads(answer["report"][0])

    def arrays(self, key, **values):
        return {"job": job(seed=key, **values).encode(), **conditioning(key)}

    def test_a_run_that_is_followed_reports_every_step_and_ends_with_the_same_latents(self, start):
        service = Service(TINY_SDXL, "digest", start(Denoiser(0.01)), Admission(8, 8))
        run = self.report(self.ask(service, self.arrays(1), op="start", previews=True))["run"]
        steps = []
        while True:
            answer = self.ask(service, op="watch", run=run).get()
            progress = json.loads(answer["report"][0])
            if "step" not in progress:
                break
            steps.append(progress["step"])
            assert answer["latents"].shape == (1, 4, 8, 8)
        assert steps == [1, 2, 3, 4]
        np.testing.assert_array_equal(answer["latents"], alone(1, job(seed=1)))
        assert progress["sampling"]["ticks"] == 4
        assert isinstance(self.ask(service, op="watch", run=run).get(), InvalidRequest)

    def test_a_slow_follower_hears_every_step_in_order(self, start):
        service = Service(TINY_SDXL, "digest", start(Denoiser(0.0)), Admission(8, 8))
        run = self.report(self.ask(service, self.arrays(1), op="start"))["run"]
        deadline = time.monotonic() + 30
        while self.report(self.ask(service, op="status"))["in_flight"] and time.monotonic() < deadline:
            time.sleep(0.01)  # the run has ended before anybody asked
        heard = [self.report(self.ask(service, op="watch", run=run)).get("step") for _ in range(5)]
        assert heard == [1, 2, 3, 4, None]

    def test_cancel_by_the_follower(self, start):
        service = Service(TINY_SDXL, "digest", start(Denoiser(0.01)), Admission(8, 8))
        run = self.report(self.ask(service, self.arrays(1, num_inference_steps=100), op="start"))["run"]
        assert self.report(self.ask(service, op="watch", run=run))["step"] >= 1
        assert self.report(self.ask(service, op="cancel", run=run)) == {"cancelled": True}
        while isinstance(answer := self.ask(service, op="watch", run=run).get(), dict):
            pass
        assert isinstance(answer, Cancelled)

    def test_mixed_versions_and_unknown_operations_are_refused(self, start):
        service = Service(TINY_SDXL, "another digest", start(Denoiser()), Admission(8, 8))
        assert "assemble" in str(self.ask(service, self.arrays(1)).get())
        assert isinstance(self.ask(service, op="nonsense").get(), InvalidRequest)

    def test_a_full_server_refuses_at_once_and_takes_work_again_later(self, start):
        service = Service(TINY_SDXL, "digest", start(Denoiser(0.01)), Admission(1, 1))
        first, second = self.ask(service, self.arrays(1)), self.ask(service, self.arrays(2))
        refused = self.ask(service, op="admit").get()
        assert isinstance(refused, Busy) and "retry after" in str(refused)
        for reply, key in ((first, 1), (second, 2)):
            np.testing.assert_array_equal(reply.get()["latents"], alone(key, job(seed=key)))
        assert self.report(self.ask(service, op="status"))["in_flight"] == 0
        assert "reservation" in self.report(self.ask(service, op="admit"))

    def test_a_request_is_in_flight_until_its_pictures_are_ready(self, start):
        service = Service(TINY_SDXL, "digest", start(Denoiser(0.0)), Admission(1, 0))
        place = self.report(self.ask(service, op="admit"))["reservation"]
        arrays = {"job": replace(job(seed=1), reservation=place).encode(), **conditioning(1)}
        answer = self.ask(service, arrays).get()
        place = json.loads(answer["report"][0])["reservation"]
        assert self.report(self.ask(service, op="status"))["in_flight"] == 1  # the decoder has it now
        assert isinstance(self.ask(service, self.arrays(2)).get(), dict), "its place is free"
        self.ask(service, op="release", reservation=place)
        assert self.report(self.ask(service, op="status"))["in_flight"] == 0

    def test_status_says_that_a_step_is_long_and_that_a_thread_is_gone(self, start):
        loop = start(Denoiser(0.4))
        service = Service(TINY_SDXL, "digest", loop, Admission(3, 2))
        idle = self.report(self.ask(service, op="status"))
        assert idle == {
            "in_flight": 0, "draining": False, "threads_alive": True, "stalled_s": 0.0, "max_active": 3, "max_waiting": 2,
        }  # fmt: skip
        reply = self.ask(service, self.arrays(1))
        seen = []
        while (status := self.report(self.ask(service, op="status")))["in_flight"]:
            seen.append(status["stalled_s"])
            time.sleep(0.02)
        assert max(seen) > 0.2 and min(seen[len(seen) // 4 :]) < 0.2, "it grows within a call and starts again with the next"
        assert isinstance(reply.get(), dict)
        loop.stop()
        assert self.report(self.ask(service, op="status"))["threads_alive"] is False

    def test_draining_finishes_what_is_in_flight(self, start):
        service = Service(TINY_SDXL, "digest", start(Denoiser(0.01)), Admission(8, 8))
        running = self.ask(service, self.arrays(1))
        assert self.report(self.ask(service, op="drain"))["in_flight"] == 1
        assert isinstance(self.ask(service, op="admit").get(), Busy)
        assert isinstance(running.get(), dict)
        assert self.report(self.ask(service, op="drain", on=False))["in_flight"] == 0
        assert isinstance(self.ask(service, self.arrays(2)).get(), dict)


def test_reservations_are_counted_used_released_and_expire():
    now = [0.0]
    admission = Admission(1, 1, clock=lambda: now[0])
    first, second = admission.reserve(), admission.reserve()
    with pytest.raises(Busy):
        admission.reserve()
    admission.release(second)
    number = admission.enter(first)
    admission.reserve()
    with pytest.raises(Busy):
        admission.enter(None)
    now[0] = 1000.0  # the unused reservation expires, the running request does not
    admission.reserve()
    with pytest.raises(Busy):
        admission.reserve()
    admission.leave(number, seconds=4.0)
    assert admission.in_flight == 1
