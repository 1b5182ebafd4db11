"""Admission and the life of a request, by its public methods alone: places, leases, order, the last word."""

import queue
import threading
from dataclasses import replace

import pytest

from faceclip_serving.contract.errors import Busy, Cancelled, DeadlineExceeded, Stopping
from faceclip_serving.sampling.life import Lives
from faceclip_serving.sampling.requests import Counts, Ended, State

from .limits import limited
from .stages import decode, enter, finish

LIMITS = limited(max_active=2, max_waiting=2, lease_s=5.0)


class Server:
    """Lives whose clock is set by hand, and what was heard of them."""

    def __init__(self, limits=LIMITS):
        self.now = 0.0
        self.ends = []
        self.heard = {}
        self.lives = Lives(limits, lambda request, error: self.ends.append((request.place, error)), lambda: self.now)

    def admitted(self, **options):
        return self.lives.admit(**options).place

    def working(self, deadline=None, **options):
        place = self.admitted(deadline=deadline)
        enter(self.lives, place, self.heard.setdefault(place, []).append, **options)
        return place

    def active(self):
        return [request.place for request in self.lives.round()]

    def request(self, place):
        return next(request for request in self.lives.round() if request.place == place)

    def finish(self, place):
        finish(self.lives, self.request(place))

    def serve(self, every_s, count):
        """Requests that end one after the other; there is always one."""
        place = self.working()
        for _ in range(count):
            for _ in range(2):
                self.now += every_s / 2
                assert self.alive(place)
            following = self.working()
            self.finish(place)
            self.lives.end(place)
            place = following
        self.present = place

    def refuses(self, said):
        """Once it is full, with that hint in seconds."""
        with pytest.raises(Busy, match=f"retry after {said} s$"):
            for _ in range(5):
                self.working()

    def deliver(self):
        self.lives.messages.put(None)
        self.lives.deliver()

    def alive(self, place):
        return self.lives.renew([place]) == []


@pytest.fixture
def server():
    return Server()


# -------------------------------------------------------------------------------------------------------------------- places
def test_places_are_those_of_the_limits_and_a_decoding_request_needs_none(server):
    first = server.working()
    for _ in range(3):
        server.working()
    with pytest.raises(Busy, match="4 requests wait or are drawn, the most allowed; retry after 1 s"):
        server.admitted()
    server.finish(first)
    assert server.admitted()
    with pytest.raises(Busy):
        server.admitted()


def test_a_refusal_is_counted_as_an_end(server):
    server.lives.drain(True)
    with pytest.raises(Busy) as caught:
        server.admitted()
    server.deliver()
    assert [error for _, error in server.ends] == [caught.value] and server.lives.in_flight == 0


@pytest.mark.parametrize(("every_s", "ends", "said"), [(7.0, 3, 7), (7.0, 2, 7), (7.0, 1, 1), (0.25, 3, 1)])
def test_the_hint_is_the_time_between_recent_ends_and_a_second_at_least(server, every_s, ends, said):
    server.now = 100.0
    server.serve(every_s, ends)
    server.refuses(said)


def described(lives, place):
    """As `faceclip_faces` ends without an identity to be made."""
    lives.prepared(place)
    lives.end(place)


def encoded_alone(lives, place):
    """As it ends with one."""
    lives.enter(place, str, lambda event: None)
    request, _ = lives.next_in(State.ENCODING)
    lives.described(request, "identity")
    lives.end(place)


def given_up(lives, place):
    lives.end(place, Cancelled("its caller is gone"))


@pytest.mark.parametrize("ended", [described, encoded_alone, given_up])
def test_the_hint_counts_every_way_to_end(server, ended):
    present = server.admitted()
    for _ in range(4):
        for _ in range(2):
            server.now += 3.0
            assert server.alive(present)
        following = server.admitted()
        ended(server.lives, present)
        present = following
    with pytest.raises(Busy, match=r"retry after 6 s$"):
        for _ in range(5):
            server.admitted()


def test_the_hint_forgets_how_fast_the_server_once_was(server):
    server.serve(0.0, 50)
    server.lives.end(server.present)
    server.serve(10.0, 40)
    server.refuses(10)


def test_the_hint_knows_nothing_of_the_time_when_nobody_was_there(server):
    server.serve(2.0, 3)
    server.lives.end(server.present)
    server.now += 36_000
    server.serve(3.0, 3)
    server.refuses(3)


def test_a_request_is_interactive_unless_it_says_otherwise(server):
    assert [server.request(server.working(**told)).priority for told in ({}, {"priority": "batch"})] == ["interactive", "batch"]


def test_counts_say_where_requests_are(server):
    first = server.working()
    for _ in range(2):
        server.working()
    server.lives.prepare(server.admitted())
    server.finish(first)
    assert len(server.active()) == 2
    assert server.lives.counts() == Counts({State.ACTIVE: 2, State.PREPARING: 1, State.FINISHING: 1})
    counts = server.lives.counts()
    assert (counts.active, counts.waiting, counts.finishing) == (2, 1, 1) and counts.in_flight == server.lives.in_flight == 4


# -------------------------------------------------------------------------------------------------------------------- leases
def test_places_are_kept_for_as_long_as_the_docs_say():
    usual = limited(max_active=1, max_waiting=1)
    assert (usual.lease_s, usual.batch_head_start_s) == (5, 30)


def test_a_renewal_that_comes_late_still_says_that_its_holder_is_there(server):
    """Nothing has noticed meanwhile; in a full server calls take their time, and renewals are calls."""
    place = server.admitted()
    server.now = LIMITS.lease_s + 0.1
    assert server.alive(place) and server.lives.in_flight == 1


def test_leases_are_longer_in_a_crowd():
    server = Server(limited(50, 1000, lease_s=5.0))
    places = [server.admitted() for _ in range(300)]
    for place in places[200:]:
        server.lives.give_up(place, Cancelled("it is over, and not given back"))
    server.now = 15.0
    assert server.lives.in_flight == 300
    server.now = 15.1
    assert server.lives.lost(places[:1]) == places[:1] and server.lives.in_flight == 0


def test_a_lease_lasts_to_its_very_end(server):
    kept, renewed = server.admitted(), server.admitted()
    server.now = 1.0
    assert server.alive(renewed)
    server.now = LIMITS.lease_s
    assert server.lives.in_flight == 2
    server.now = LIMITS.lease_s + 0.1
    assert server.lives.in_flight == 1 and not server.alive(kept)
    server.now = LIMITS.lease_s + 1.1
    assert server.lives.in_flight == 0
    server.deliver()
    assert [place for place, _ in server.ends] == [kept, renewed]
    assert all("nobody holds" in str(error) for _, error in server.ends)


@pytest.mark.parametrize("finished", [False, True])
def test_work_and_pictures_that_are_decoded_are_kept_by_their_holder_alone(server, finished):
    place = server.working()
    if finished:
        server.finish(place)
    for seconds in (4.0, 8.0, 12.0):
        server.now = seconds
        assert server.alive(place)
    server.now += LIMITS.lease_s + 0.1
    assert server.lives.in_flight == 0
    server.deliver()
    told = ["result"] if finished else [Cancelled]
    assert [event if event == "result" else type(event.error) for event in server.heard[place]] == told


def test_preparation_begins_once_and_says_whether_the_request_is_wanted(server):
    place = server.admitted()
    server.lives.prepare(place)
    for lost in (place, "unknown"):
        with pytest.raises(Cancelled, match="has ended before its work came"):
            server.lives.prepare(lost)


def test_work_comes_once_and_only_to_a_place_that_is_there(server):
    place = server.working()
    for lost in (place, "unknown"):
        with pytest.raises(Cancelled, match="has ended before its work came"):
            server.lives.enter(lost, lambda: "other work", lambda event: None)
    assert [(request.work, request.state) for request in server.lives.round()] == [("work", State.ACTIVE)]


def test_a_deadline_is_the_last_moment_and_is_told_with_the_steps_that_were_done(server):
    place = server.working(deadline=3.0, steps=lambda: 7)
    other = server.working(deadline=3.0)
    server.now = 3.0
    assert server.active() == [place, other]
    server.now = 3.1
    assert server.lives.counts() == Counts({State.LEAVING: 2})
    server.deliver()
    (end,), (unstarted,) = server.heard[place], server.heard[other]
    assert type(end.error) is DeadlineExceeded and "after 7 steps" in str(end.error)
    assert "before anything was drawn" in str(unstarted.error)


def test_a_deadline_before_the_work_came_is_told_so_to_the_books(server):
    place = server.admitted(deadline=3.0)
    server.now = 3.1
    assert not server.alive(place)
    server.deliver()
    ((ended, error),) = server.ends
    assert ended == place and type(error) is DeadlineExceeded and "before anything was drawn" in str(error)


# --------------------------------------------------------------------------------------------------------------------- order
def test_who_came_first_goes_first_and_a_batch_gives_way_for_its_time(server):
    server.lives.limits = replace(LIMITS, lease_s=1000.0)
    batch = server.working(priority="batch")
    server.now = 29.0
    second = server.working()
    server.now = 29.5
    third = server.working()
    assert server.active() == [second, third]
    server.lives.end(second)
    server.now = 30.5
    fourth = server.working()
    assert server.active() == [third, batch], "it has waited for half a minute longer than the fourth"
    server.lives.end(batch)
    assert server.active() == [third, fourth]


def test_a_round_waits_for_work():
    lives, idle, rounds = Lives(LIMITS), threading.Event(), queue.SimpleQueue()
    threading.Thread(target=lambda: rounds.put(lives.round(idle.set)), daemon=True).start()
    assert idle.wait(10) and rounds.empty()
    request = lives.admit()
    enter(lives, request.place, lambda event: None)
    assert rounds.get(timeout=10) == [request]


def test_a_loop_that_sleeps_begins_to_look_after_leases_when_somebody_is_admitted():
    lives, idle = Lives(LIMITS), queue.SimpleQueue()
    threading.Thread(target=lambda: lives.round(lambda: idle.put("asleep")), daemon=True).start()
    assert idle.get(timeout=10) == "asleep"
    lives.admit()
    assert idle.get(timeout=10) == "asleep", "again, after a look"
    lives.stop()


@pytest.mark.parametrize("work", [False, True])
def test_a_loop_that_waits_hears_of_the_end(work):
    lives, idle, rounds = Lives(LIMITS), threading.Event(), []
    if work:
        lives.admit()
    loop = threading.Thread(target=lambda: rounds.append(lives.round(idle.set)), daemon=True)
    loop.start()
    assert idle.wait(10) and not lives.over
    lives.stop()
    loop.join(10)
    assert rounds == [None] and lives.over


# ------------------------------------------------------------------------------------------------------------- the last word
def test_only_an_active_request_hears_of_steps_and_results(server):
    place = server.working()
    request = server.request(place)
    server.lives.tell(request, "step")
    server.lives.finish(request, "result")
    server.lives.tell(request, "late")
    server.lives.finish(request, "again")
    decode(server.lives)
    server.lives.decoded(request, "again")
    server.deliver()
    assert server.heard[place] == ["step", "result"] and request.work is None
    assert server.lives.end(place)
    server.deliver()
    assert server.heard[place] == ["step", "result"] and server.ends == [(place, None)]


def test_a_caller_who_ends_its_own_work_hears_so_and_nothing_after(server):
    place = server.working()
    request = server.request(place)
    server.lives.end(place)
    server.lives.tell(request, "late")
    server.deliver()
    (end,) = server.heard[place]
    assert isinstance(end, Ended) and type(end.error) is Cancelled and "its own caller" in str(end.error)
    assert server.ends == [(place, end.error)] and request.state is State.ENDED and request.work is None


def test_the_first_reason_to_stop_is_everybodys(server):
    place, error = server.working(), MemoryError("no room")
    server.lives.stop(error)
    server.lives.stop(ValueError("later"))
    server.deliver()
    assert [end.error for end in server.heard[place]] == [error]
    with pytest.raises(MemoryError):
        server.admitted()
    assert server.lives.round() is None and not server.lives.draining


def test_a_stop_without_a_reason_and_a_drain_say_what_they_are(server):
    server.lives.drain(True)
    assert server.lives.draining and not server.lives.over
    with pytest.raises(Busy, match="draining"):
        server.admitted()
    server.lives.drain(False)
    assert not server.lives.draining and server.admitted()
    server.lives.stop()
    with pytest.raises(Stopping, match="stopping"):
        server.admitted()


@pytest.mark.parametrize("fails", ["step", "result", "end"])
def test_a_word_that_cannot_be_said_is_replaced_by_the_reason_and_others_are_said(server, caplog, fails):
    heard, error = [], MemoryError("no room")

    def listener(event):
        heard.append(event)
        if event == fails or (fails == "end" and isinstance(event, Ended)):
            raise error

    place, other = server.admitted(), server.working()
    enter(server.lives, place, listener)
    request, neighbour = server.request(place), server.request(other)
    if fails == "end":
        server.lives.end(place, error)
    elif fails == "step":
        server.lives.tell(request, "step")
    else:
        finish(server.lives, request)
    server.lives.tell(neighbour, "step")
    server.deliver()
    server.deliver()  # what the failure has added
    assert heard == ([Ended(error)] if fails == "end" else [fails, Ended(error)])
    assert server.heard[other] == ["step"] and server.ends == [(place, error)]
    assert ("could not be delivered" in caplog.text) == (fails == "end")
