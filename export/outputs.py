"""What commands write, and what they leave alone. The rule, in docs/change.md: nothing is replaced or deleted that was not made here.

A file that the user names is replaced, by a whole one. A folder that a command fills bears its record; one that holds anything
else is refused, before minutes are spent. Knows files and folders; nothing of what is in them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faceclip_serving.contract.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class OutputError(UserError):
    """An output cannot be written, or something lies there that this project did not make; the message names the cure."""


def require_own(folder: Path, record: str) -> None:
    """Raises `OutputError` where something else lies: nothing is replaced that we did not make.

    `record`: the file that we leave in a folder of ours. A folder that is missing or empty may be filled.
    """
    if folder.is_dir() and not (folder / record).is_file() and any(folder.iterdir()):
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:3])
        raise OutputError(
            f"output: expected {folder} to be missing, empty, or made by this command ({record} in it), found {found};"
            " choose another folder, or empty it yourself"
        )
    require_directory(folder)


def require_directory(folder: Path) -> None:
    """Raises `OutputError` where nothing can be made in `folder`, which need not exist yet."""
    if (folder.exists() or folder.is_symlink()) and not folder.is_dir():
        raise OutputError(f"output: expected a folder, {folder} is a file; choose another name")
    _require_writable(folder, folder)


def require_file(file: Path) -> None:
    """Raises `OutputError` where `file` cannot be written. A file that is there may be replaced: the user named it."""
    if file.is_dir():
        raise OutputError(f"output: expected a file, {file} is a folder; choose another name")
    if file.exists() and not os.access(file, os.W_OK):
        raise OutputError(f"output: expected a file that may be written to, {file} may not; choose another name")
    _require_writable(file.parent, file)


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A name beside `file` to write to, which becomes `file` at the end; after an error the old file is whole and nothing is left.

    It has the ending of `file`, which libraries go by.
    """
    require_file(file)
    file = file.resolve()  # a link stays a link
    partial = file.with_name(f".{file.stem}.{os.getpid()}.partial{file.suffix}")
    try:
        with told_when_full(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def appearing(destination: Path, record: str) -> Iterator[Path]:
    """An empty folder to fill, which becomes `destination` at the end; after an error nothing of it is left.

    What was there before goes only when the new one is complete, and only if it was made here (`OutputError`).
    """
    require_own(destination, record)
    partial = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
    old = destination.with_name(f".{destination.name}.{os.getpid()}.old")
    try:
        with told_when_full(destination):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            if destination.exists():
                destination.replace(old)
            partial.replace(destination)
    finally:
        if old.exists() and not destination.exists():  # interrupted between the two
            old.replace(destination)
        for folder in (partial, old):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def filling(destination: Path, record: str) -> Iterator[Path]:
    """An empty folder to fill, whose files move to `destination` at the end, the record last; what else lies there stays.

    After an error `destination` is as it was. Raises `OutputError` where something else than ours lies there.
    """
    require_own(destination, record)
    partial = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
    try:
        with told_when_full(destination):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            destination.mkdir(exist_ok=True)
            for path in sorted(partial.iterdir(), key=lambda path: path.name == record):
                path.replace(destination / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def told_when_full(output: Path) -> Iterator[None]:
    """A disk that is full becomes an `OutputError` that names the output; the system's own error names no file."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        with contextlib.suppress(OSError):
            output = output.resolve()
        raise OutputError(
            f"output: {output}: {error.strerror}; free some space, or choose another place. What was there before is unchanged"
        ) from error


def _require_writable(folder: Path, output: Path) -> None:
    """Raises `OutputError` where nothing can be made in `folder`, which need not exist yet."""
    while not (folder.exists() or folder.is_symlink()) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise OutputError(f"output: {output}: expected {folder} to be a folder; choose another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"output: {output}: expected a folder that may be written to, {folder.resolve()} may not; choose another place, or run"
            " the command in a folder of your own: what is made lies in the folder that it is called in"
        )
