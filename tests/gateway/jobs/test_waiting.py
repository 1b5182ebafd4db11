"""The waiting list's places are the order in which jobs are taken."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.jobs.waiting import PRIORITIES, Place, Waiting

JOBS = st.lists(st.tuples(st.sampled_from(PRIORITIES), st.sampled_from("abc")), max_size=12)


def places(jobs):
    return [Place(f"job_{i}", i, priority, tenant, None) for i, (priority, tenant) in enumerate(jobs)]


@given(JOBS, JOBS, st.integers(0, 12))
def test_a_place_is_the_number_of_jobs_until_it_is_taken(first, later, taken):
    waiting = Waiting()
    jobs = places([*first, *later])
    for place in jobs[: len(first)]:
        waiting.add(place)
    for _ in range(taken):
        waiting.take()
    for place in jobs[len(first) :]:
        waiting.add(place)
    told = {place.id: waiting.position(place.id) for place in jobs if place.id in waiting}
    assert sorted(told.values()) == list(range(1, len(told) + 1))
    for expected in range(1, len(told) + 1):
        assert told[waiting.take().id] == expected
    assert waiting.take() is None


@given(JOBS)
def test_no_batch_job_goes_before_an_interactive_one(jobs):
    waiting = Waiting()
    for place in places(jobs):
        waiting.add(place)
    order = [waiting.take().priority for _ in jobs]
    assert order == sorted(order, key=PRIORITIES.index)


def test_tenants_take_turns_and_each_is_served_in_its_order():
    waiting = Waiting()
    for place in places([("batch", tenant) for tenant in "aaaabb"] + [("batch", "c")]):
        waiting.add(place)
    order = [waiting.take() for _ in range(7)]
    assert [place.tenant for place in order] == list("abcabaa")
    assert [place.number for place in order if place.tenant == "a"] == [0, 1, 2, 3]


def test_a_job_that_is_given_back_goes_before_younger_ones_of_its_tenant():
    waiting = Waiting()
    for place in places([("batch", "a")] * 3):
        waiting.add(place)
    taken = waiting.take()
    waiting.add(taken)
    assert waiting.position(taken.id) == 1


def test_what_is_not_allowed_stays_and_others_are_taken():
    waiting = Waiting()
    waiting.add(Place("job_1", 1, "interactive", "a", "away"))
    waiting.add(Place("job_2", 2, "interactive", "a", "here"))
    assert waiting.take(lambda place: place.model == "here").id == "job_2"
    assert waiting.take(lambda place: place.model == "here") is None
    assert waiting.position("job_1") == 1


def test_a_job_that_was_removed_is_not_taken():
    waiting = Waiting()
    waiting.add(Place("job_1", 1, "batch", "a", None))
    assert waiting.remove("job_1")
    assert not waiting.remove("job_1")
    assert waiting.take() is None
    assert waiting.position("job_1") is None
