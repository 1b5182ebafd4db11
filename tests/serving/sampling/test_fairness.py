"""Whose request goes next, and whose makes room."""

from faceclip_serving.sampling.fairness import Fairness, displaced_by
from faceclip_serving.sampling.requests import Request, State


def request(tenant: str, since: float = 0.0, priority: str = "interactive", state: State = State.WAITING) -> Request:
    return Request(f"{tenant}{since}", "id", tenant, None, since, since + 5, priority, state)


def order(fairness: Fairness, waiting: list[Request], active=(), count: int = 9, now: float = 0.0) -> list[tuple[str, float]]:
    return [(each.tenant, each.since) for each in fairness.next(waiting, active, count, now)]


def test_the_tenant_that_is_served_least_goes_first_and_the_one_chosen_counts_at_once():
    waiting = [request("a", 1), request("a", 2), request("b", 3), request("b", 4)]
    assert order(Fairness(30), waiting, [request("a")], count=3) == [("b", 3), ("a", 1), ("b", 4)]
    assert len(waiting) == 4, "the caller's list is left as it is"


def test_no_more_than_asked_for():
    waiting = [request("a", 1), request("b", 2)]
    assert order(Fairness(30), waiting, count=0) == []
    assert order(Fairness(30), waiting, count=1) == [("a", 1)]


def test_batch_lets_others_go_first_until_its_head_start_is_over():
    waiting = [request("a", 1, "batch"), request("a", 20)]
    assert order(Fairness(30), waiting, now=30.9) == [("a", 20), ("a", 1)]
    assert order(Fairness(30), [request("a", 1, "batch"), request("b", 20)], now=25) == [("b", 20), ("a", 1)]
    late = [request("a", 1, "batch"), request("a", 31.5)]
    assert order(Fairness(30), late, now=32) == [("a", 1), ("a", 31.5)]


def test_every_choice_counts_once_so_that_a_small_tenant_catches_up():
    fairness, served = Fairness(30), [request("a", 0, state=State.ACTIVE), request("a", 0, state=State.ACTIVE)]
    waiting = [request("a", 1), request("b", 2), request("b", 3), request("b", 4)]
    assert order(fairness, waiting, served, count=4) == [("b", 2), ("b", 3), ("a", 1), ("b", 4)]


def test_among_equals_the_tenant_whose_last_turn_was_longest_ago():
    fairness = Fairness(30)
    assert order(fairness, [request("a", 1), request("b", 2), request("c", 3)], count=2) == [("a", 1), ("b", 2)]
    assert order(fairness, [request("b", 4), request("a", 5), request("c", 6)]) == [("c", 6), ("a", 5), ("b", 4)]


def test_whoever_comes_goes_after_those_who_wait_since_before():
    """Nobody waits for ever behind callers who send one request at a time, or behind ever new ones."""
    fairness, waiting = Fairness(30), [request("stays", 0), request("stays", 1)]
    waiting.remove(next(each for each in waiting if [(each.tenant, each.since)] == order(fairness, waiting, count=1)))
    for now in range(2, 20):
        comes = request("comes again" if now % 2 else f"new {now}", now)
        ((tenant, _),) = order(fairness, [*waiting, comes], count=1, now=now)
        fairness.forget_all_but({"stays"})
        if tenant == "stays":
            return
    raise AssertionError("it waits for ever")


def test_the_latest_of_the_greediest_that_is_not_served_makes_room():
    placed = [request("a", 1), request("a", 2), request("a", 3, state=State.ACTIVE), request("b", 4)]
    latest, held = displaced_by("c", placed)
    assert (latest, held) == (placed[1], 3)
    assert displaced_by("b", placed) == (placed[1], 3), "it would have two, the other two"


def test_nobody_makes_room_for_whoever_would_then_have_as_many():
    assert displaced_by("b", [request("a", 1), request("a", 2), request("b", 3)]) == (None, 0)
    assert displaced_by("a", [request("a", 1), request("a", 2)]) == (None, 0)
    assert displaced_by("b", [request("a", 1, state=State.ACTIVE), request("a", 2, state=State.ACTIVE)]) == (None, 0)
    assert displaced_by("b", []) == (None, 0)
