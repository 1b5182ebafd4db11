"""What comes before the loop and after it: one request at a time, whoever left or is late is not begun, tenants take turns."""

import queue
import threading
import time

import pytest

from faceclip_serving.contract.errors import Cancelled
from faceclip_serving.sampling.life import Lives
from faceclip_serving.sampling.requests import Ended, State
from faceclip_serving.sampling.stages import STAGES

from .limits import limited
from .lives import LIMITS, active, delivered, working


def waiting_in(lives, stage, heard, tenant="", **options):
    """A request that waits in a stage; what is done for it there is its tenant's name."""
    place = lives.admit(tenant=tenant).place
    if stage in (State.DECODING, State.DETAILING):
        working(lives, heard, place=place, **options)
        request = next(request for request in active(lives) if request.place == place)
        lives.finish(request, tenant)
        if stage is State.DETAILING:
            lives.next_in(State.DECODING)
            lives.inspect(request, tenant)
    else:
        lives.enter(place, tenant, heard.append, schedule=tenant if stage is State.SCHEDULING else None, **options)
    return place


def done(lives, stage, request, result="result"):
    if stage is State.SCHEDULING:
        lives.scheduled(request)
    else:
        ends = {State.ENCODING: lives.encoded, State.DECODING: lives.decoded, State.DETAILING: lives.inspected}
        ends[stage](request, result)


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_is_begun_for_those_who_left_while_they_waited(lives, stage):
    """Impatient callers come, leave and come again; of what waits for a stage only the living is done."""
    heard = []
    waiting_in(lives, stage, heard, "first")
    first, begun = lives.next_in(stage)
    for _ in range(50):
        place = waiting_in(lives, stage, heard, "impatient")
        lives.give_up(place, Cancelled("its caller is gone"))
        lives.end(place)  # as its ensemble returns
    waiting_in(lives, stage, heard, "good")
    lives.give_up(first.place, Cancelled("its caller is gone"))
    done(lives, stage, first, "too late")
    then = lives.next_in(stage)[1]
    delivered(lives)
    assert [begun, then] == ["first", "good"] and len(heard) == 51 and all(isinstance(event, Ended) for event in heard)
    assert first.state is State.LEAVING and first.work is None


@pytest.mark.parametrize("stage", STAGES)
def test_a_place_is_not_given_back_before_the_stage_that_is_at_it_has_done(lives, clock, stage):
    place = waiting_in(lives, stage, [])
    request, _ = lives.next_in(stage)
    lives.give_up(place, Cancelled("its caller is gone"))
    assert not lives.end(place) and lives.counts().leaving == lives.in_flight == 1
    clock.now += LIMITS.lease_s + 0.1
    assert lives.in_flight == 1, "its holder has nothing to renew any more"
    done(lives, stage, request)
    other = waiting_in(lives, stage, [])
    assert lives.next_in(stage)[0].place == other
    assert lives.in_flight == 1 and request.state is State.ENDED


@pytest.mark.parametrize("stage", STAGES)
def test_stages_go_round_the_tenants_too_and_a_batch_gives_way(clock, stage):
    lives = Lives(limited(8, 8), clock=clock)
    for tenant, priority in (("a", "interactive"), ("a", "batch"), ("a", "interactive"), ("b", "batch")):
        waiting_in(lives, stage, [], tenant, priority=priority)
        clock.now += 0.1
    order = []
    for _ in range(4):
        request, _ = lives.next_in(stage)
        order.append((request.tenant, request.priority))
        done(lives, stage, request)
    assert order == [("a", "interactive"), ("a", "interactive"), ("b", "batch"), ("a", "batch")]


@pytest.mark.parametrize("stage", STAGES)
def test_a_tenant_that_comes_again_is_a_new_one(clock, stage):
    """Whoever is gone is forgotten, so nothing grows with the number of tenants, and an old turn counts no more."""
    lives = Lives(limited(8, 8), clock=clock)

    def served():
        request, _ = lives.next_in(stage)
        done(lives, stage, request)
        lives.end(request.place)
        return request.tenant

    for tenant in ("comes again", "other"):
        waiting_in(lives, stage, [], tenant)
        assert served() == tenant
        clock.now += 0.1
    for tenant in ("new", "comes again"):
        waiting_in(lives, stage, [], tenant)
        clock.now += 0.1
    assert [served(), served()] == ["new", "comes again"]


@pytest.mark.parametrize("stage", STAGES)
def test_how_long_a_stage_is_at_a_request_is_known(lives, clock, stage):
    assert lives.longest_s == 0.0
    waiting_in(lives, stage, [])
    clock.now += 1.0
    assert lives.longest_s == 0.0, "nobody is at it"
    request, _ = lives.next_in(stage)
    clock.now += 3.0
    assert lives.longest_s == 3.0
    done(lives, stage, request)
    waiting_in(lives, stage, [])
    lives.next_in(stage)
    assert lives.longest_s == 0.0


def test_a_schedule_that_is_looked_up_comes_before_the_encoders(lives):
    place = lives.admit().place
    lives.enter(place, "encode", [].append, schedule="look up")
    request, look_up = lives.next_in(State.SCHEDULING)
    assert look_up == "look up" and lives.counts().waiting == 1
    lives.scheduled(request)
    assert lives.next_in(State.ENCODING) == (request, "encode") and request.schedule is None


def test_a_stop_is_the_end_of_every_stage(lives):
    lives.stop()
    assert [lives.next_in(stage) for stage in STAGES] == [None] * len(STAGES)


def test_nothing_is_begun_for_those_whose_time_is_up(lives, clock):
    late, good = (lives.admit(deadline=deadline).place for deadline in (3.0, None))
    for place in (late, good):
        lives.enter(place, place.__str__, lambda event: None)
    clock.now = 3.1
    assert lives.next_in(State.ENCODING)[0].place == good


def test_nothing_is_decoded_for_those_whose_time_is_up(lives, clock):
    late, good = (working(lives, [], place=lives.admit(deadline=deadline).place) for deadline in (3.0, None))
    for request in list(active(lives)):
        lives.finish(request, "result")
    clock.now = 3.1
    assert lives.next_in(State.DECODING)[0].place == good and late != good


@pytest.mark.parametrize("stage", STAGES)
def test_whoever_waits_for_a_request_sleeps_until_there_is_one(lives, monkeypatch, stage):
    looks = []
    monkeypatch.setattr(lives, "_sweep", lambda: looks.append(threading.current_thread()))
    found = queue.SimpleQueue()
    waiting = threading.Thread(target=lambda: found.put(lives.next_in(stage)), daemon=True)
    waiting.start()
    while waiting not in looks:
        time.sleep(0.001)
    for _ in range(10):
        lives.counts()  # as others look, and change nothing
        time.sleep(0.01)
    assert looks.count(waiting) == 1 and found.empty()
    place = waiting_in(lives, stage, [])
    assert found.get(timeout=10)[0].place == place


@pytest.mark.parametrize("stage", STAGES)
def test_whoever_fails_in_a_stage_has_left_it_when_the_next_one_is_asked_for(lives, stage):
    """Its thread says `give_up` of it, and nothing else."""
    failed = waiting_in(lives, stage, [])
    lives.next_in(stage)
    lives.give_up(failed, MemoryError("too large"))
    assert not lives.end(failed) and lives.in_flight == 1
    other = waiting_in(lives, stage, [])
    assert lives.next_in(stage)[0].place == other and lives.in_flight == 1


def test_who_waits_for_the_loop_has_done_no_step(lives, clock):
    place = lives.admit(deadline=3.0).place
    lives.enter(place, "encode", [].append)
    request, _ = lives.next_in(State.ENCODING)
    lives.encoded(request, "work")
    clock.now = 3.1
    assert lives.in_flight == 1 and "before anything was drawn" in str(lives.why(place))
