"""Who gets a place, whose turn comes and who is refused: tenants, floods, batches, a server that is full or ends."""

import pytest

from faceclip_serving.contract.errors import Busy, Cancelled
from faceclip_serving.contract.settings import most_in_flight
from faceclip_serving.sampling.life import Lives
from faceclip_serving.sampling.requests import State

from .limits import limited
from .lives import LIMITS, active, delivered, gone, working
from .stages import enter, finish


def test_turns_go_round_the_tenants(clock):
    lives = Lives(limited(2, 8), clock=clock)
    for tenant in "aaaab":
        working(lives, [], tenant=tenant)
        clock.now += 0.1
    served = []
    while now := active(lives):
        served += [request.tenant for request in now if request.tenant + request.place not in served]
        assert len({request.tenant for request in now}) == min(2, len({r.tenant for r in lives._alive.values()}))
        for request in now:
            finish(lives, request)
            lives.end(request.place)


def test_a_full_server_makes_room_for_a_tenant_with_less_and_turns_the_latest_of_the_greediest_away(lives, clock):
    heard = []
    for _ in range(2):
        working(lives, heard, tenant="greedy")
        clock.now += 0.1
    active(lives)
    early, late = (lives.admit(tenant="greedy").place for _ in range(2))
    with pytest.raises(Busy, match="retry after"):
        lives.admit(tenant="greedy")
    modest = lives.admit(tenant="modest").place
    with pytest.raises(Busy) as caught:
        lives.prepare(late)
    assert caught.value.reason == "displaced" and "4 are this tenant's" in str(caught.value)
    assert not gone(lives, early) and not gone(lives, modest) and len(active(lives)) == 2, "what is served goes on"
    delivered(lives)
    assert [type(error) for _, error in lives.ends] == [Busy, Busy] and not heard


def test_nobody_is_turned_away_for_a_tenant_that_would_then_have_more(lives):
    for tenant in "aabb":
        lives.admit(tenant=tenant)
    for tenant in "ab":
        with pytest.raises(Busy, match="wait or are drawn, the most allowed"):
            lives.admit(tenant=tenant)
    lives.admit(tenant="c")  # has none, the others two
    assert sorted(request.tenant for request in lives._alive.values()) in (["a", "a", "b", "c"], ["a", "b", "b", "c"])


def test_forty_who_left_do_not_close_the_server(clock):
    lives = Lives(limited(8, 32), clock=clock)
    for _ in range(40):
        lives.admit()
    with pytest.raises(Busy, match="retry after"):
        lives.admit()
    clock.now += LIMITS.lease_s + 0.1
    assert lives.admit() and lives.in_flight == 1


def test_a_drained_server_takes_nothing_and_ends_what_it_has(lives):
    working(lives, [])
    lives.drain(True)
    with pytest.raises(Busy, match="draining"):
        lives.admit()
    assert len(active(lives)) == 1
    lives.drain(False)
    assert lives.admit()


def test_a_drain_that_lingers_is_told_at_once_and_refuses_later(lives, clock):
    lives.drain(True, linger_s=3.0)
    assert lives.draining and lives.admit()
    clock.now += 3.0
    with pytest.raises(Busy, match="draining"):
        lives.admit()
    lives.drain(False)
    assert not lives.draining and lives.admit()


def test_batch_waits_behind_interactive(lives):
    for priority in ("batch", "interactive", "interactive"):
        enter(lives, lives.admit().place, lambda event: None, priority, priority=priority)
    assert sorted(request.priority for request in active(lives)) == ["interactive", "interactive"]


def test_batch_that_has_waited_for_its_head_start_goes_first(clock):
    lives = Lives(limited(1, 2, lease_s=1000.0, batch_head_start_s=30.0), clock=clock)
    for seconds, priority in ((0.0, "batch"), (29.0, "interactive"), (31.0, "interactive")):
        clock.now = seconds
        enter(lives, lives.admit().place, lambda event: None, priority, priority=priority)
    order = []
    while now := active(lives):
        order.append((now[0].priority, now[0].since))
        lives.end(now[0].place)
    assert order == [("interactive", 29.0), ("batch", 0.0), ("interactive", 31.0)]


def test_a_refusal_of_an_ended_sampler_holds_nothing_of_whom_it_refused(lives):
    lives.stop(RuntimeError("the sampler has stopped"))
    refused = []
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the sampler has stopped") as caught:
            lives.admit()
        refused.append(caught.value)
    assert refused[0] is not refused[1] and lives._over.__traceback__ is None


def test_what_goes_on_for_the_dead_is_bounded_and_said(lives):
    """Something slow before the sampler, such as an encoder on a processor."""
    most = most_in_flight(LIMITS.max_active, LIMITS.max_waiting)
    with pytest.raises(Busy, match=r"busy: (\d+) requests are in flight, \1 of them given up and not over yet; retry after"):
        for _ in range(100):
            lives.give_up(lives.admit().place, Cancelled("its caller is gone"))
    assert lives.in_flight == most - LIMITS.max_active


def test_whoever_gives_up_all_the_time_keeps_nobody_else_out(lives):
    """The last places are for tenants that have less, whether others still wait for theirs or have left them."""
    with pytest.raises(Busy):
        for _ in range(100):
            lives.give_up(lives.admit(tenant="flood").place, Cancelled("its caller is gone"))
    for _ in range(LIMITS.max_active):
        assert lives.admit(tenant="modest").state is State.RESERVED
    with pytest.raises(Busy):
        lives.admit(tenant="modest")
    assert lives.in_flight == most_in_flight(LIMITS.max_active, LIMITS.max_waiting)


def test_a_newcomer_is_let_in_although_many_are_decoded(lives):
    """Nobody has given anything up, and one tenant has all places."""
    for _ in range(2 * LIMITS.max_active):
        working(lives, [], tenant="flood")
    while request := next((each for each in lives.round() if each.state is State.ACTIVE), None):
        finish(lives, request)
        if lives.counts().finishing == 2 * LIMITS.max_active:
            break
    for _ in range(LIMITS.max_active + LIMITS.max_waiting):
        lives.admit(tenant="flood")
    assert lives.admit(tenant="modest").state is State.RESERVED
    with pytest.raises(Busy, match="requests wait or are drawn, the most allowed"):
        lives.admit(tenant="flood")


@pytest.mark.parametrize("flooders", ["a", "ab", "abcd"])
@pytest.mark.parametrize("turns", [1, 2])
def test_a_flood_delays_itself_first_however_many_flood(clock, flooders, turns):
    lives = Lives(limited(turns, 30, lease_s=1000.0), clock=clock)
    for _ in range(5):
        for tenant in flooders:
            enter(lives, lives.admit(tenant=tenant).place, lambda event: None, tenant)
    for request in active(lives):
        finish(lives, request)
        lives.end(request.place)
    clock.now += 1.0
    enter(lives, lives.admit(tenant="modest").place, lambda event: None, "modest")
    for _ in range(len(flooders) + 1):
        now = active(lives)
        if any(request.tenant == "modest" for request in now):
            return
        finish(lives, now[0])
        lives.end(now[0].place)
    raise AssertionError("it waits for more than one turn of each other tenant")


def test_nothing_is_remembered_of_tenants_that_are_gone(clock):
    lives = Lives(limited(2, 8), clock=clock)
    for tenant in "abc":
        place = lives.admit(tenant=tenant).place
        enter(lives, place, lambda event: None, tenant)
        lives.round()
        assert lives._fairness._last_turns.keys() == {tenant}
        lives.end(place)
