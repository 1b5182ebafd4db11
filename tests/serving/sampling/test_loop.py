"""The step loop and the service, with a plain callable as denoiser."""

import json
import queue
import time
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from faceclip_serving.contract import operations
from faceclip_serving.contract.callers import Caller
from faceclip_serving.contract.errors import Busy, Cancelled, DeadlineExceeded, InvalidRequest, NotANumber, Stopping
from faceclip_serving.contract.operations import Admit, Cancel, Drain, End, Follow, Prepare, Renew, Start, Status
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.sdxl import TINY_SDXL
from faceclip_serving.contract.settings import resolve
from faceclip_serving.sampling.life import Ended, Limits, Lives
from faceclip_serving.sampling.loop import StepLoop, Stepped, Work
from faceclip_serving.sampling.pictures import sample, start_pictures
from faceclip_serving.sampling.service import Service

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
SETTINGS = resolve(CPU, "faceclip", environment={})


@pytest.fixture
def start():
    loops = []

    def make(denoiser, max_rows=8, limits=None, observer=None):
        lives = Lives(limits or Limits(8, 8))
        loops.append(StepLoop(lives, denoiser, max_rows, observer))
        return lives, loops[-1]

    yield make
    for loop in loops:
        loop.stop()


def submit(lives, key, one, arrays=None, deadline=None, change=lambda work: None, **wants):
    """Submits a job, after a `change` of its work; its place, work, and the queue of its events."""
    events = queue.Queue()
    work = Work(start_pictures(TINY_SDXL, one, arrays or conditioning(key)), **wants)
    change(work)
    place = lives.admit(deadline=deadline).place
    lives.enter(place, work, events.put, lambda: work.step)
    return place, work, events


def outcome(events):
    while isinstance(event := events.get(timeout=30), Stepped):
        pass
    return event


def alone(key, one):
    return sample(start_pictures(TINY_SDXL, one, conditioning(key)), denoise, 8)


def test_a_late_request_joins_midway_and_shares_every_tick(start):
    lives, _ = start(Denoiser(0.02))
    *_, long = submit(lives, 1, job(seed=1, num_inference_steps=12))
    time.sleep(0.07)
    *_, late = submit(lives, 2, job(seed=2))
    event = outcome(late)
    np.testing.assert_array_equal(event.latents, alone(2, job(seed=2)))
    assert (event.usage.ticks, event.usage.rows, event.usage.shared_rows) == (4, 8, 16)
    np.testing.assert_array_equal(outcome(long).latents, alone(1, job(seed=1, num_inference_steps=12)))


def poisoned(key):
    arrays = {name: array.copy() for name, array in conditioning(key).items()}
    arrays["pooled"][:, 0] = POISON
    return arrays


def test_a_failing_call_of_several_fails_only_those_that_fail_alone(start):
    """The poisoned request is of the size of the others, so it shares their calls."""
    lives, _ = start(Denoiser(0.02))
    good = [submit(lives, key, job(seed=key))[-1] for key in (1, 2)]
    *_, bad = submit(lives, 3, job(seed=3), poisoned(3))
    event = outcome(bad)
    assert isinstance(event, Ended) and isinstance(event.error, MemoryError)
    for key, events in zip((1, 2), good, strict=True):
        np.testing.assert_array_equal(outcome(events).latents, alone(key, job(seed=key)))


def test_a_picture_that_fails_in_its_middle_fails_its_own_request_only(start):
    lives, _ = start(Denoiser(0.02))
    *_, good = submit(lives, 1, job(seed=1, num_inference_steps=8))

    def fails(_predictions):
        raise IndexError("index 50 is out of bounds")

    def spoil(work):
        work.pictures[0].advance = fails

    *_, bad = submit(lives, 2, job(seed=2, num_inference_steps=8), change=spoil)
    assert isinstance(outcome(bad).error, IndexError)
    np.testing.assert_array_equal(outcome(good).latents, alone(1, job(seed=1, num_inference_steps=8)))


def test_values_that_are_not_numbers_are_an_error_of_their_own(start):
    lives, _ = start(Denoiser())
    *_, events = submit(lives, 1, job(seed=1), change=lambda work: work.pictures[0].latents.fill(np.nan))
    assert isinstance(outcome(events).error, NotANumber)


def test_an_end_stops_the_work_at_once_and_leaves_others_alone(start):
    """The call that runs is the last one: its rows are not used, and no further one has any of the ended request."""
    denoiser = Denoiser(0.02)
    lives, _ = start(denoiser)
    place, work, doomed = submit(lives, 1, job(seed=1, num_inference_steps=100), wants_steps=True)
    *_, other = submit(lives, 2, job(seed=2, num_inference_steps=20))
    while doomed.get(timeout=30).step < 5:
        pass
    assert lives.end(place, Cancelled("gone"))
    calls = len(denoiser.rows)
    event = outcome(doomed)
    assert isinstance(event, Ended) and isinstance(event.error, Cancelled)
    np.testing.assert_array_equal(outcome(other).latents, alone(2, job(seed=2, num_inference_steps=20)))
    assert set(denoiser.rows[calls + 1 :]) == {2}, "the other one, alone"
    assert work.step <= 7


def test_a_deadline_is_obeyed_between_steps_also_while_waiting(start):
    lives, _ = start(Denoiser(0.02), limits=Limits(1, 8))
    soon = time.monotonic() + 0.1
    *_, active = submit(lives, 1, job(seed=1, num_inference_steps=100), deadline=soon)
    *_, waiting = submit(lives, 2, job(seed=2), deadline=soon)
    for events in (active, waiting):
        assert isinstance(outcome(events).error, DeadlineExceeded)


def test_interactive_requests_leave_the_waiting_line_first(start):
    lives, _ = start(Denoiser(0.01), limits=Limits(1, 8))
    order = queue.Queue()
    for key, priority in ((1, "interactive"), (2, "batch"), (3, "interactive")):
        work = Work(start_pictures(TINY_SDXL, job(seed=key), conditioning(key)))
        lives.enter(lives.admit().place, work, lambda event, key=key: order.put(key), priority=priority)
    assert [order.get(timeout=30) for _ in range(3)] == [1, 3, 2]


def test_stopping_tells_everyone(start):
    lives, loop = start(Denoiser(0.02), limits=Limits(1, 8))
    waiting = [submit(lives, key, job(seed=key, num_inference_steps=100))[-1] for key in (1, 2)]
    loop.stop()
    assert all(isinstance(outcome(events).error, Stopping) for events in waiting)


class Load:
    """An observer that notes what it is told."""

    def __init__(self):
        self.loads = []
        self.lost = 0
        self.told = []

    def ticks(self, ticks):
        self.told.append(ticks)

    def load(self, counts):
        self.loads.append((counts.active, counts.waiting))

    def lost_thread(self):
        self.lost += 1


def test_the_load_that_is_told_returns_to_nothing_after_a_failure(start):
    load = Load()
    lives, _ = start(Denoiser(), observer=load)
    *_, events = submit(lives, 1, job(seed=1, height=128))
    assert isinstance(outcome(events).error, MemoryError)
    deadline = time.monotonic() + 30
    while load.loads[-1:] != [(0, 0)] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert load.loads[-1] == (0, 0) and (1, 0) in load.loads


def test_every_round_is_told_once_when_the_work_is_done_at_the_latest(start):
    """The seconds of calls and of everything else, copying their inputs included, are those that the loop worked."""
    load = Load()
    lives, _ = start(Denoiser(0.02), observer=load)
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


def test_a_thread_that_ends_takes_everybody_along_and_nobody_new_is_taken(start, monkeypatch):
    load = Load()
    lives, loop = start(Denoiser(0.02), observer=load)
    *_, events = submit(lives, 1, job(seed=1, num_inference_steps=100))
    monkeypatch.setattr(loop, "_chosen", lambda requests: 1 / 0)
    event = outcome(events)
    assert "the sampler has stopped: ZeroDivisionError" in str(event.error)
    with pytest.raises(RuntimeError, match="the sampler has stopped"):
        lives.admit()
    loop._threads[0].join(30)
    assert not loop.threads_alive and load.lost == 1


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
    @pytest.fixture
    def service(self, start):
        def make(denoiser, limits=None, digest="digest"):
            lives, loop = start(denoiser, limits=limits)
            made = Service(TINY_SDXL, digest, loop, lives, SETTINGS)
            lives._on_end = lambda request, error: made.ended(request.place)
            made.loop, made.lives = loop, lives
            return made

        return make

    def ask(self, service, operation=None, arrays=None, who=Caller.OWN):
        reply = Reply()
        control = {} if operation is None else {"control": operations.encode(operation)}
        service.handle({**(arrays or {}), **control}, reply, who)
        return reply

    def admit(self, service, **options):
        return self.report(self.ask(service, Admit(**options)))["place"]

    def run(self, service, key, **values):
        """The reply of a run that was admitted before."""
        return self.ask(service, arrays=self.arrays(key, self.admit(service), **values))

    def start(self, service, key, previews=False, **values):
        place = self.admit(service)
        return self.report(self.ask(service, Start(previews), self.arrays(key, place, **values)))["place"]

    def report(self, reply):
        answer = reply.get()
        assert isinstance(answer, dict), answer
        return json.loads(answer["report"][0])

    def arrays(self, key, place="", **values):
        return {"job": replace(job(seed=key, **values), place=place).encode(), **conditioning(key)}

    def in_flight(self, service):
        return self.report(self.ask(service, Status()))["in_flight"]

    def test_a_run_that_is_followed_reports_every_step_and_ends_with_the_same_latents(self, service):
        made = service(Denoiser(0.01))
        place = self.start(made, 1, previews=True)
        steps = []
        while True:
            answer = self.ask(made, Follow(place)).get()
            progress = json.loads(answer["report"][0])
            if "step" not in progress:
                break
            steps.append(progress["step"])
            assert answer["latents"].shape == (1, 4, 8, 8)
        assert steps == [1, 2, 3, 4]
        np.testing.assert_array_equal(answer["latents"], alone(1, job(seed=1)))
        assert progress["sampling"]["ticks"] == 4
        assert isinstance(self.ask(made, Follow(place)).get(), InvalidRequest)
        assert self.in_flight(made) == 1, "its pictures are decoded"
        assert self.report(self.ask(made, End(place, "ok"))) == {"ended": True}
        assert self.in_flight(made) == 0
        deadline = time.monotonic() + 30
        while made._followers and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not made._followers, "nothing is kept of a request that has ended"

    def test_a_slow_follower_hears_every_step_in_order_and_few_previews_are_kept(self, service):
        made = service(Denoiser(0.0))
        steps = 12
        place = self.start(made, 1, previews=True, num_inference_steps=steps)
        deadline = time.monotonic() + 30
        while not self.report(self.ask(made, Status()))["decoding"] and time.monotonic() < deadline:
            time.sleep(0.01)  # the run has ended before anybody asked
        answers = [self.ask(made, Follow(place)).get() for _ in range(steps + 1)]
        assert [json.loads(answer["report"][0]).get("step") for answer in answers] == [*range(1, steps + 1), None]
        assert [answer["latents"].shape for answer in answers if "latents" in answer] == [(1, 4, 8, 8)] * SETTINGS[
            "previews_kept"
        ]

    def test_a_caller_who_leaves_ends_the_run_and_whoever_asks_is_told(self, service):
        made = service(Denoiser(0.01))
        place = self.start(made, 1, num_inference_steps=100)
        assert self.report(self.ask(made, Follow(place)))["step"] >= 1
        assert self.report(self.ask(made, End(place, "cancelled"))) == {"ended": True}
        while isinstance(answer := self.ask(made, Follow(place)).get(), dict):
            pass
        assert isinstance(answer, Cancelled) and self.in_flight(made) == 0

    def test_a_second_follower_takes_the_firsts_place_and_both_are_answered(self, service):
        made = service(Denoiser(0.2))
        place = self.start(made, 1)
        first, second = self.ask(made, Follow(place)), self.ask(made, Follow(place))
        assert isinstance(first.get(), Cancelled) and self.report(second)["step"] == 1

    def test_mixed_versions_and_unknown_operations_are_refused(self, service):
        made = service(Denoiser(), digest="another digest")
        assert "assemble" in str(self.ask(made, arrays=self.arrays(1)).get())
        assert "assemble" in str(self.ask(made, Start(), arrays=self.arrays(1)).get())
        for control in (b'{"op": "nonsense"}', b"[", b'{"op": "follow"}', b'{"op": "end", "place": 3}', b'{"op": ["admit"]}'):
            reply = Reply()
            made.handle({"control": np.array([control], object)}, reply, Caller.OWN)
            assert isinstance(answer := reply.get(), InvalidRequest) and str(answer).startswith("control: "), control
        assert self.in_flight(made) == 0

    def test_a_full_server_refuses_at_once_and_takes_work_again_later(self, service):
        made = service(Denoiser(0.01), Limits(1, 1))
        first, second = self.run(made, 1), self.run(made, 2)
        refused = self.ask(made, Admit()).get()
        assert isinstance(refused, Busy) and "retry after" in str(refused)
        for reply, key in ((first, 1), (second, 2)):
            np.testing.assert_array_equal(reply.get()["latents"], alone(key, job(seed=key)))
        assert self.admit(made)

    def test_a_request_is_in_flight_until_its_pictures_are_ready_and_needs_no_place_meanwhile(self, service):
        made = service(Denoiser(0.0), Limits(1, 0))
        place = self.admit(made)
        assert self.report(self.ask(made, Prepare(place))) == {}
        assert self.report(self.ask(made, Renew([place, "?"]))) == {"gone": ["?"], "round_s": 0.0}
        answer = self.ask(made, arrays=self.arrays(1, place)).get()
        assert json.loads(answer["report"][0])["place"] == place
        assert self.in_flight(made) == 1
        assert isinstance(self.run(made, 2).get(), dict), "its place is free"
        assert self.report(self.ask(made, Renew([place])))["round_s"] > 0
        self.ask(made, End(place, "ok"))
        assert self.report(self.ask(made, Status()))["decoding"] == 1

    def test_a_place_that_is_lost_is_the_end_of_the_request(self, service):
        made = service(Denoiser())
        place = self.admit(made)
        self.ask(made, End(place))
        assert isinstance(self.ask(made, Prepare(place)).get(), Cancelled)
        assert isinstance(self.ask(made, arrays=self.arrays(1, place)).get(), Cancelled)
        assert isinstance(self.ask(made, arrays=self.arrays(1, "never admitted")).get(), Cancelled)

    def test_a_request_is_ended_by_its_id(self, service):
        made = service(Denoiser(0.01))
        place = self.admit(made, id="mine", tenant="t")
        reply = self.ask(made, arrays=self.arrays(1, place, num_inference_steps=200))
        assert self.report(self.ask(made, Cancel("mine"))) == {"ended": True}
        assert isinstance(reply.get(), Cancelled)
        assert self.report(self.ask(made, Cancel("mine"))) == {"ended": False}

    @pytest.mark.parametrize("operation", [None, *get_args(operations.Operation)])
    def test_only_own_models_and_for_some_operations_an_operator_are_heard(self, service, operation):
        made = service(Denoiser())
        place = self.admit(made)
        needed = {"place": place, "places": [place], "id": "x"}
        asked = operation and operation(**{name: needed[name] for name in operation.__annotations__ if name in needed})
        arrays = self.arrays(1, place) if operation in (None, Start) else {}
        for who in (Caller.PUBLIC, Caller.OPERATOR):
            answer = self.ask(made, asked, arrays, who).get()
            if who is Caller.OPERATOR and operation in (Drain, Status):
                assert isinstance(answer, dict)
            else:
                assert isinstance(answer, InvalidRequest) and "only models of this server" in str(answer)
        assert made.lives.draining is (operation is Drain) and self.in_flight(made) == 1

    def test_a_job_that_cannot_be_drawn_gives_its_place_back(self, service):
        made = service(Denoiser())
        place = self.admit(made)
        arrays = self.arrays(1, place)
        del arrays["embeddings"]
        assert isinstance(self.ask(made, arrays=arrays).get(), KeyError)
        assert self.in_flight(made) == 0

    def test_status_says_that_a_step_is_long_and_that_a_thread_is_gone(self, service):
        made = service(Denoiser(0.4), Limits(3, 2))
        assert self.report(self.ask(made, Status())) == {
            "in_flight": 0, "active": 0, "waiting": 0, "decoding": 0, "draining": False, "threads_alive": True, "stalled_s": 0.0,
            "settings": SETTINGS,
        }  # fmt: skip
        reply = self.run(made, 1)
        seen = []
        while (status := self.report(self.ask(made, Status())))["active"] or status["waiting"]:
            seen.append(status["stalled_s"])
            time.sleep(0.02)
        assert max(seen) > 0.2 and min(seen[len(seen) // 4 :]) < 0.2, "it grows within a call and starts again with the next"
        assert isinstance(reply.get(), dict)
        made.loop.stop()
        assert self.report(self.ask(made, Status()))["threads_alive"] is False

    def test_draining_finishes_what_is_in_flight(self, service):
        made = service(Denoiser(0.01))
        running = self.run(made, 1)
        assert self.report(self.ask(made, Drain()))["in_flight"] == 1
        assert isinstance(self.ask(made, Admit()).get(), Busy)
        assert isinstance(running.get(), dict)
        assert self.report(self.ask(made, Drain(on=False)))["draining"] is False
        assert isinstance(self.run(made, 2).get(), dict)
