"""What commands write, and what they leave alone. The rule, in docs/change.md: nothing is replaced or deleted that was not made here.

A file that the user names is replaced, by a whole one. A folder that a command fills bears its record; one that holds anything
else is refused, before minutes are spent. Knows files and folders; nothing of what is in them.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from faceclip_serving.contract.errors import UserError

_LEFT = re.compile(r"\.(.*\.)?\d+(\.\w+)?\.partial(\.log|\.old)?")
"""Names of what is being written."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class OutputError(UserError):
    """An output cannot be written, or something lies there that this project did not make; the message names the cure."""


def require_own(folder: Path, record: str) -> None:
    """Raises `OutputError` where something else lies: nothing is replaced that we did not make.

    `record`: the file that we leave in a folder of ours. A folder that is missing or empty may be filled.
    """
    folder = real(folder)
    require_directory(folder)
    if not (folder / record).is_file() and _content(folder):
        found = ", ".join(sorted(path.name for path in _content(folder))[:3])
        raise OutputError(
            f"output: expected {folder} to be missing, empty, or made by this command ({record} in it), found {found};"
            " choose another folder, or empty it yourself"
        )


def require_directory(folder: Path) -> None:
    """Raises `OutputError` where nothing can be made in `folder`, which need not exist yet."""
    folder = real(folder)
    if (folder.exists() or folder.is_symlink()) and not folder.is_dir():
        raise OutputError(f"output: expected a folder, {folder} is a file; choose another name")
    _require_writable(folder, folder)


def require_file(file: Path) -> None:
    """Raises `OutputError` where `file` cannot be written. A file that is there may be replaced: the user named it."""
    file = real(file)
    if file.is_dir():
        raise OutputError(f"output: expected a file, {file} is a folder; choose another name")
    if file.exists() and not os.access(file, os.W_OK):
        raise OutputError(f"output: expected a file that may be written to, {file} may not; choose another name")
    _require_writable(file.parent, file)


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A name beside `file` to write to, which becomes `file` at the end; after an error the old file is whole and nothing is left.

    It has the ending of `file`, which libraries go by. What killed processes left of the same file goes.
    """
    require_file(file)
    file = real(file)
    partial = file.with_name(f".{file.stem}.{os.getpid()}.partial{file.suffix}")
    try:
        with told_when_full(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            _sweep(file)
            yield partial
            partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _sweep(file: Path) -> None:
    """Deletes what dead processes began to write in the place of `file`."""
    for path in file.parent.glob(f".{glob.escape(file.stem)}.*.partial{glob.escape(file.suffix)}"):
        found = re.fullmatch(r"(\d+)\.partial", path.name.removeprefix(f".{file.stem}.").removesuffix(file.suffix))
        if found and not _runs(int(found[1])):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's; or no number of a process
        return True
    return True


@contextmanager
def appearing(destination: Path, record: str) -> Iterator[Path]:
    """An empty folder to fill, which becomes the content of `destination` at the end; after an error nothing of it is left.

    What was there before goes only when the new one is complete, and only if it was made here (`OutputError`).
    """
    with _scratch(destination, record) as (partial, whole):
        yield partial
        _move_in(partial, whole, record, outdated=[path.name for path in _content(whole)])


@contextmanager
def filling(destination: Path, record: str) -> Iterator[Path]:
    """An empty folder to fill, whose files move to `destination` at the end, the record last; what else lies there stays.

    After an error `destination` is as it was. Raises `OutputError` where something else than ours lies there.
    """
    with _scratch(destination, record) as (partial, whole):
        yield partial
        _move_in(partial, whole, record, outdated=[])


@contextmanager
def scratch(destination: Path, record: str) -> Iterator[Path]:
    """An empty folder from which files can be moved to `destination`; at the end it is gone. Raises `OutputError` as `filling`."""
    with _scratch(destination, record) as (partial, _):
        yield partial


@contextmanager
def _scratch(destination: Path, record: str) -> Iterator[tuple[Path, Path]]:
    """An empty folder, and where its content belongs, links followed."""
    require_own(destination, record)
    destination = real(destination)
    partial = _place_of_scratch(destination)
    try:
        with told_when_full(destination):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial, destination
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _place_of_scratch(destination: Path) -> Path:
    """Beside `destination`, or inside it where nothing can be moved from there: another's folder, another file system, a mount.

    Only a move tells: of two mounts of one file system the system says that they are one.
    """
    name = f"{os.getpid()}.partial"
    beside = destination.with_name(f".{destination.name}.{name}") if destination.name else destination / f".{name}"
    if not destination.exists():
        return beside
    probe = f".{os.getpid()}.probe.partial"
    try:
        beside.mkdir()
        (beside / probe).mkdir()
        (beside / probe).replace(destination / probe)
    except OSError:
        return destination / f".{name}"
    finally:
        for folder in (destination / probe, beside):
            shutil.rmtree(folder, ignore_errors=True)
    return beside


def _move_in(partial: Path, destination: Path, record: str, outdated: Iterable[str]) -> None:
    """Moves what lies in `partial` to `destination`, the record last, in place of `outdated`. After an error all is as it was."""
    if not destination.exists():
        partial.replace(destination)
        return
    fresh = sorted((path.name for path in _content(partial)), key=lambda name: name == record)
    old = partial / f".{os.getpid()}.old.partial"
    old.mkdir()
    try:
        for name in sorted({*outdated, *fresh}, key=lambda name: name != record):
            if (destination / name).exists() or (destination / name).is_symlink():
                (destination / name).replace(old / name)
        for name in fresh:
            (partial / name).replace(destination / name)
    except BaseException:  # an error, or Ctrl-C: what was there comes back
        for name in fresh:
            if not (partial / name).exists() and (destination / name).exists():
                (destination / name).replace(partial / name)
        for path in sorted(old.iterdir(), key=lambda path: path.name == record):
            path.replace(destination / path.name)
        raise


def _content(folder: Path) -> list[Path]:
    """What lies in a folder, but what a killed process of ours left."""
    return [path for path in folder.iterdir() if not _LEFT.fullmatch(path.name)] if folder.is_dir() else []


def real(path: Path) -> Path:
    """Where a path leads, if it is a link: what is there is replaced, never the link. `.` and `..` get a name.

    Others stay as they are: from the folder that a command is called in, one may see what its full path leads through in vain.
    """
    return Path(os.path.realpath(path)) if path.is_symlink() or path.name in ("", "..") else path


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
