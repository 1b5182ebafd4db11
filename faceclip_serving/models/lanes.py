"""The work that models do for requests by a few threads: whose turn it is, and who is still waited for.

Requests that bring no file have a thread of their own and never wait behind files: most take milliseconds, a prompt of the longest
seconds. Both lanes go round the tenants, one request of each in turn; of one tenant, those of priority `batch` come later than they
came. A request that has ended meanwhile is answered at once, and what it holds is let go, or once what is being done for it is over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from ..contract.parameters import FILES

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5


@dataclass(eq=False)
class Task:
    """One request. `work` answers it; `give_up` answers it where its place is lost before its turn came."""

    place: str
    tenant: str
    heavy: bool
    """Whether it has files, or pictures that become files, or asks others. See `is_heavy`."""
    work: Callable[[Task], None]
    give_up: Callable[[], None]
    """Answers it where it has ended, or where `work` could not. Each of the two answers if `may_answer` says so."""
    due: float = 0.0
    """See `due`. Of one tenant the smallest goes first."""
    lost: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for it any more, also while it is worked for."""
    _answer: Iterator[bool] = field(default_factory=lambda: iter((True,)))

    def may_answer(self) -> bool:
        """True for the first who asks."""
        return next(self._answer, False)


def due(received: float, priority: str, batch_head_start_s: float) -> float:
    """When a request is due, monotonic seconds: as it came, or later where it may wait."""
    return received + (batch_head_start_s if priority == "batch" else 0.0)


def is_heavy(inputs: Iterable[str], asks_others: bool) -> bool:
    """Whether to prepare a request may take long, whatever its prompts are. `inputs`: names of the tensors that came. `asks_others`:
    whether programs of the operator's are asked about it."""
    return asks_others or not {each.name for each in FILES}.isdisjoint(inputs)


class Line:
    """Tasks that wait: one of each tenant in turn, of one tenant the smallest `due` first. Called by one thread at a time."""

    def __init__(self) -> None:
        self._of: dict[str, deque[Task]] = {}
        """Tenant -> its tasks; the tenant whose turn it is comes first."""

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def __iter__(self) -> Iterator[Task]:
        return (task for tasks in self._of.values() for task in tasks)

    def add(self, task: Task) -> None:
        self._of.setdefault(task.tenant, deque()).append(task)

    def take(self) -> Task:
        """The next task of the first tenant who has one that is due, else of the first; the tenant goes to the end of the line."""
        now = time.monotonic()
        first = {tenant: min(tasks, key=lambda task: task.due) for tenant, tasks in self._of.items()}
        tenant = next((tenant for tenant, task in first.items() if task.due <= now), next(iter(first)))
        task, tasks = first[tenant], self._of.pop(tenant)
        tasks.remove(task)
        if tasks:
            self._of[tenant] = tasks
        return task

    def drop(self, task: Task) -> None:
        """Takes a task out if it is here, whoever's turn it is."""
        tasks = self._of.get(task.tenant)
        if tasks is not None and task in tasks:
            tasks.remove(task)
            if not tasks:
                del self._of[task.tenant]


class Lanes:
    """All methods may be called from any thread."""

    def __init__(
        self,
        threads: int,
        lost: Callable[[list[str]], Iterable[str]] | None = None,
        begin: Callable[[], None] = lambda: None,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        """`threads`: for heavy requests. `lost`: which of some places have ended; None: nothing that is here ends. `begin`: called first in
        each of those threads."""
        self._begin = begin
        self._look_every_s = look_every_s
        self._changed = threading.Condition()
        self._waiting = {False: Line(), True: Line()}
        """Whether they are heavy -> those who wait."""
        self._working: set[Task] = set()
        self._over = False
        looks = [] if lost is None else [partial(self._look, lost)]
        for target in [partial(self._run, False), *[partial(self._run, True)] * threads, *looks]:
            threading.Thread(target=target, daemon=True, name="lane").start()

    def submit(self, task: Task) -> None:
        with self._changed:
            self._waiting[task.heavy].add(task)
            self._changed.notify_all()

    @property
    def crowded(self) -> bool:
        """Whether more than one heavy request is here."""
        with self._changed:
            return len(self._waiting[True]) + sum(task.heavy for task in self._working) > 1

    def stop(self) -> None:
        """Begins nothing any more."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _run(self, heavy: bool) -> None:
        if heavy:
            self._begin()
        while (task := self._next(heavy)) is not None:
            try:
                task.work(task)
            except (
                BaseException
            ):  # code of an operator's own may call sys.exit: without this thread nobody is answered any more
                log.exception("a request could not be answered")
                self._give_up(task)
            with self._changed:
                self._working.discard(task)
            del task  # while it waits for the next one, it holds no photograph of the last

    def _next(self, heavy: bool) -> Task | None:
        with self._changed:
            self._changed.wait_for(lambda: self._over or bool(self._waiting[heavy]))
            if self._over:
                return None
            task = self._waiting[heavy].take()
            self._working.add(task)
            return task

    def _look(self, lost: Callable[[list[str]], Iterable[str]]) -> None:
        """Asks who has ended, and lets go of them."""
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._over, self._look_every_s):
                    return
                known = [*self._working, *self._waiting[False], *self._waiting[True]]
            if not known:
                continue
            try:
                ended = set(lost([task.place for task in known]))
            except Exception:  # noqa: BLE001 - the sampler is stopping or gone; its callers hear so
                continue
            while known:
                if (task := known.pop()).place in ended:
                    self._let_go(task)
                del task

    def _let_go(self, task: Task) -> None:
        task.lost.set()
        with self._changed:
            self._waiting[task.heavy].drop(task)
        self._give_up(task)

    def _give_up(self, task: Task) -> None:
        try:
            if task.may_answer():
                task.give_up()
        except BaseException:
            log.exception("a request could not be answered")
