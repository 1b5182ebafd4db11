"""The sampler's threads: what each of them does until the end, and what becomes of everybody if one ends too early."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from .life import Lives

log = logging.getLogger(__name__)


class Threads:
    """Work that goes on until `lives` are over, each in a thread of its own, and one thread that says what there is to say."""

    def __init__(
        self, lives: Lives, work: Mapping[str, Callable[[], None]], on_loss: Callable[[], None] = lambda: None
    ) -> None:
        """`work`: name -> what returns when `lives` are over. `on_loss`: called by a thread that an error has ended."""
        self._lives = lives
        self._on_loss = on_loss
        self._threads = [
            threading.Thread(target=self._supervised, args=(target,), name=name, daemon=True)
            for name, target in {**work, "messages": lives.deliver}.items()
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """All of them; without one of them nobody gets an answer."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Ends what is in progress and the threads."""
        self._lives.stop()
        *workers, messages = self._threads
        for thread in workers:
            thread.join()
        self._lives.messages.put(None)
        messages.join()

    def _supervised(self, target: Callable[[], None]) -> None:
        """A thread that ends by an error takes everybody in flight with it, who would wait for ever."""
        try:
            target()
        except BaseException as error:
            log.critical("a thread of the sampler has ended: everything in flight fails", exc_info=error)
            self._on_loss()
            self._lives.stop(RuntimeError(f"the sampler has stopped: {type(error).__name__}: {error}"))
