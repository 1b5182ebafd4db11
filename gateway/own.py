"""What the gateway writes is for its owner alone, whichever of its commands makes it, and whatever the umask says."""

from __future__ import annotations

import os
from pathlib import Path


def own_folder(folder: Path) -> None:
    """There when this returns; made for its owner alone. One that the operator made keeps the mode that he gave it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def own_file(path: Path) -> None:
    """There, empty if it is new, and for its owner alone. SQLite gives the files beside a database the mode of that."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
