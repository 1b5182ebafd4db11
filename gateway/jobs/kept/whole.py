"""Files that are there whole or not at all, whatever happens to the process or the machine; and a folder for one process."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import string
from collections.abc import Iterable
from pathlib import Path

from ...own import own_file, own_folder
from ..failures import FolderInUseError

SECRET_BYTES = 32
PARTIAL = ".partial"
"""Ending of what is being written."""
NAME = r"[a-z]+_[0-9a-f]{32}"
"""Of a job or a result: so what belongs to it is named."""
_OURS = re.compile(rf"{NAME}({re.escape(PARTIAL)})?")


def write_whole(path: Path, parts: Iterable[bytes], mode: int = 0o600) -> None:
    """On the disk, under its name, when this returns. Raises `OSError`; nothing is left then."""
    partial = path.with_name(f"{path.name}{PARTIAL}")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def ours(folder: Path) -> list[Path]:
    """What the gateway has put there, whole or half. All else is somebody else's, such as a disk's `lost+found`, and stays."""
    return [path for path in folder.iterdir() if _OURS.fullmatch(path.name)]


def sync_folder(folder: Path) -> None:
    """The names in it are on the disk when this returns."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def own_secret(path: Path) -> bytes:
    """32 random bytes that stay the same from start to start, as hexadecimal digits in a file for its owner alone.

    Raises `ValueError` where the file has fewer, since what it signs could then be forged.
    """
    if not path.exists():
        write_whole(path, [secrets.token_hex(SECRET_BYTES).encode()])
    told = path.read_text().strip()
    if len(told) < 2 * SECRET_BYTES or set(told) - set(string.hexdigits):
        cure = "delete it, and another is drawn"
        raise ValueError(
            f"{path.name}: expected {2 * SECRET_BYTES} hexadecimal digits or more, got {len(told)} characters; {cure}"
        )
    return bytes.fromhex(told)


class FolderLock:
    """One process at a time works in a folder. The system lets go when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        own_folder(folder)
        own_file(folder / "lock")
        self._file = open(folder / "lock", "a+")  # noqa: SIM115 - held until `close`
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            found = f"'{folder}': another gateway works in it (process {holder})"
            cure = "stop that one, or give this one its own --data"
            raise FolderInUseError(f"data: expected a folder for this gateway alone, got {found}; {cure}") from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def close(self) -> None:
        """Others may have the folder."""
        self._file.close()
