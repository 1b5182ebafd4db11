"""All that jobs have on the disk: one folder, for one process at a time."""

from __future__ import annotations

from pathlib import Path

from .results import Results
from .spool import Spool
from .store import Store
from .whole import FolderLock, own_secret


class Folder:
    """A data folder, made where there is none. `most`: as of `Store`."""

    def __init__(self, path: Path, most: int = 10_000) -> None:
        """Raises `FolderInUseError`, `StoreUnwritableError`, `OSError`, and `ValueError` of a secret that could be guessed."""
        self._lock = FolderLock(path)
        try:
            self.results = Results(path / "results", path / "addresses.key")
            self.spool = Spool(path / "waiting")
            self.webhook_secret = own_secret(path / "webhook.secret")
            self.store = Store(path / "jobs.sqlite", most)
        except BaseException:
            self._lock.close()
            raise

    def close(self) -> None:
        """Others may have the folder."""
        self.store.close()
        self._lock.close()
