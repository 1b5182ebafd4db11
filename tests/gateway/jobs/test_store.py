"""The store against a plain model of it: every order of calls, crashes in between, and no job ends twice or is lost."""

import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from gateway.jobs.failures import KeyReusedError, StoreFullError, StoreUnwritableError, UnknownJobError, WrongStateError
from gateway.jobs.kept.store import Store
from gateway.jobs.records import NewJob
from gateway.jobs.states import FOLLOWING, Status, before

MOST = 5


def new_job(number, owner="a", key=None, digest="d", url=None):
    return NewJob(
        f"job_{number}",
        owner,
        "tenant",
        "image_generation",
        "batch",
        None,
        float(number),
        100.0,
        digest,
        url,
        key,
        pictures=number,
    )


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path / "jobs.sqlite", MOST)
    yield found
    found.close()


def number_of(job):
    return int(job.removeprefix("job_"))


class Machine(RuleBasedStateMachine):
    """Beside the store: what each job is, how often it ended, and the time."""

    jobs = Bundle("jobs")

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="store-"))
        self.store = Store(self.folder / "jobs.sqlite", MOST)
        self.known, self.keys, self.swept, self.deliveries = {}, {}, set(), set()
        self.made, self.now = 0, 1000.0

    def teardown(self):
        self.store.close()
        shutil.rmtree(self.folder)

    @rule(
        target=jobs,
        key=st.sampled_from([None, "k", "l"]),
        digest=st.sampled_from("de"),
        url=st.sampled_from([None, "https://h/"]),
    )
    def accept(self, key, digest, url):
        self.made += 1
        new = new_job(self.made, key=key, digest=digest, url=url)
        if key in self.keys:
            first, asked = self.keys[key]
            if asked != digest:
                with pytest.raises(KeyReusedError):
                    self.store.accept(new)
            else:
                job, is_new = self.store.accept(new)
                assert (job.id, is_new) == (first, False)
            return first
        if sum(not status.ended for status in self.known.values()) >= MOST:
            with pytest.raises(StoreFullError):
                self.store.accept(new)
            return new.id
        job, is_new = self.store.accept(new)
        assert is_new and job.status is Status.QUEUED
        self.known[job.id] = Status.QUEUED
        if key is not None:
            self.keys[key] = (job.id, digest)
        return job.id

    @rule(job=jobs, status=st.sampled_from(Status))
    def move(self, job, status):
        moves = {
            Status.QUEUED: lambda: self.store.give_back(job, lost=True),
            Status.GENERATING: lambda: self.store.claim(job, self.now),
            Status.COMPLETED: lambda: self.store.complete(job, {"pictures": []}, self.now, self.now + 10),
            Status.FAILED: lambda: self.store.fail(job, {"message": "no"}, self.now, self.now + 10),
            Status.CANCELLED: lambda: self.store.cancel(job, self.now, self.now + 10),
        }
        if job not in self.known:
            with pytest.raises(UnknownJobError):
                moves[status]()
        elif status not in FOLLOWING[self.known[job]]:
            with pytest.raises(WrongStateError):
                moves[status]()
        else:
            moved = moves[status]()
            assert moved.status is status
            self.known[job] = status
            if status.ended and moved.webhook_url:
                self.deliveries.add(job)

    @rule(seconds=st.sampled_from([1.0, 11.0]))
    def time_passes(self, seconds):
        self.now += seconds
        over = self.store.sweep(self.now, forget_s=1e9)
        assert set(over).isdisjoint(self.swept)
        assert all(self.known[job].ended for job in over)
        self.swept |= set(over)

    @precondition(lambda self: self.deliveries)
    @rule(data=st.data())
    def told(self, data):
        job = data.draw(st.sampled_from(sorted(self.deliveries)))
        self.store.delivered(job)
        self.deliveries.remove(job)

    @rule()
    def crash(self):
        """The files as they are now, without a word from the process that wrote them."""
        other = Path(tempfile.mkdtemp(prefix="store-"))
        for file in self.folder.iterdir():
            if not file.name.endswith("-shm"):
                shutil.copy(file, other)
        self.store.close()
        shutil.rmtree(self.folder)
        self.folder, self.store = other, Store(other / "jobs.sqlite", MOST)

    @invariant()
    def every_accepted_job_is_what_it_became(self):
        for job, status in self.known.items():
            found = self.store.get(job)
            assert found.status is status
            assert (found.ended is not None) == status.ended
            assert found.swept == (job in self.swept)
        unfinished = [job for job, status in self.known.items() if not status.ended]
        assert [job.id for job in self.store.unfinished()] == unfinished
        assert {each.job for each in self.store.due(1e12, 100)} == self.deliveries
        assert sum(self.store.counts().values()) == len(self.known)
        for since in (0, self.made // 2 + 1):
            counted = [number_of(job) for job, status in self.known.items() if status not in (Status.FAILED, Status.CANCELLED)]
            assert self.store.pictures("a", since) == sum(number for number in counted if number >= since)


TestStore = Machine.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=25)


def test_every_state_but_the_first_follows_one():
    assert [status for status in Status if not before(status)] == []
    assert {status for status in Status if status.ended} == {Status.COMPLETED, Status.FAILED, Status.CANCELLED}


def test_a_page_is_the_owners_newest_first(store):
    for number, owner in enumerate("abab", 1):
        store.accept(new_job(number, owner))
    assert [job.id for job in store.page("a", 10)] == ["job_3", "job_1"]
    assert [job.id for job in store.page("a", 10, below=3)] == ["job_1"]


def test_the_same_key_of_another_owner_is_another_job(store):
    store.accept(new_job(1, "a", key="k"))
    assert store.accept(new_job(2, "b", key="k", digest="other"))[1]


def test_a_forgotten_job_is_unknown_and_its_key_free(store):
    store.accept(new_job(1, key="k"))
    store.cancel("job_1", 1.0, 2.0)
    store.sweep(3.0, forget_s=1.0)
    with pytest.raises(UnknownJobError):
        store.get("job_1")
    assert store.accept(new_job(2, key="k", digest="other"))[1]


def test_a_full_disk_is_said_and_what_was_accepted_is_there(store, tmp_path):
    store.accept(new_job(1))
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreUnwritableError, match="free space"):
        for number in range(2, 2 + MOST - 1):
            store.accept(new_job(number, digest="x" * 5000))
    assert store.get("job_1").status is Status.QUEUED
    assert store.claim("job_1", 1.0).status is Status.GENERATING


def test_a_read_only_store_is_said(store):
    store._db.execute("PRAGMA query_only=ON")
    with pytest.raises(StoreUnwritableError):
        store.accept(new_job(1))


def test_a_store_of_version_1_is_taken_over(store, tmp_path):
    """Pictures of its jobs were counted elsewhere."""
    store.accept(new_job(1))
    store._db.executescript("DROP INDEX jobs_by_day; ALTER TABLE jobs DROP COLUMN pictures; PRAGMA user_version=1")
    taken_over = Store(tmp_path / "jobs.sqlite")
    taken_over.accept(new_job(2))
    assert [job.id for job in taken_over.unfinished()] == ["job_1", "job_2"]
    assert taken_over.pictures("a", 0) == 2
    taken_over.close()


def test_a_store_of_a_newer_gateway_is_not_touched(tmp_path):
    with sqlite3.connect(tmp_path / "jobs.sqlite") as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(StoreUnwritableError, match="newer"):
        Store(tmp_path / "jobs.sqlite")
