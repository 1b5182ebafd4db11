"""What is to be drawn, on the disk until its job has ended: prompt, parameters and photographs, one file a job, for its owner alone.

A line of JSON, then the files that it names one after another, so that photographs are neither encoded nor copied into a database
whose pages keep them. Blocks.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...drawing import Drawing
from .whole import ours, write_whole

_BYTES = "$bytes"
_NOT_ASKED = ("request_id", "timeout_s", "steps", "warnings")
_SAYS_NOTHING: tuple[object, ...] = (None, False, [], {})
log = logging.getLogger(__name__)


class Spool:
    """A folder of such files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def keep(self, job_id: str, drawing: Drawing) -> None:
        """On the disk when this returns."""
        files: list[bytes] = []
        head = json.dumps({"drawing": _without_files(asdict(drawing), files), "sizes": [len(file) for file in files]})
        write_whole(self._folder / job_id, [head.encode(), b"\n", *files], mode=0o600)

    def read(self, job_id: str) -> Drawing:
        """Raises `OSError` where it is gone."""
        with (self._folder / job_id).open("rb") as file:
            head = json.loads(file.readline())
            files = [file.read(size) for size in head["sizes"]]
        return Drawing(**_with_files(head["drawing"], files))

    def remove(self, job_id: str) -> None:
        """What is gone already is no error."""
        (self._folder / job_id).unlink(missing_ok=True)

    def remove_all_but(self, job_ids: Iterable[str]) -> None:
        """What a crash has left: of requests that were never accepted, or of jobs that have ended."""
        kept = set(job_ids)
        for path in ours(self._folder):
            if path.name not in kept:
                try:
                    path.unlink()
                except OSError as error:  # no reason to draw nothing
                    log.error("what was asked of a job is still there, and could not be deleted: %s", error)


def digest(drawing: Drawing, *more: str) -> str:
    """Of what the caller asked: the same for the same request, whatever the operator sets, and whatever fields later versions add.

    Left out are what is not the caller's, what has no effect, and fields that say nothing.
    """
    asked = {name: each for name, each in asdict(drawing).items() if name not in _NOT_ASKED and each not in _SAYS_NOTHING}
    text = json.dumps([asked, *more], sort_keys=True, default=lambda file: {_BYTES: hashlib.sha256(file).hexdigest()})
    return hashlib.sha256(text.encode()).hexdigest()


def _without_files(value: Any, files: list[bytes]) -> Any:
    """The value with the place of each bytes object in `files` in its stead."""
    if isinstance(value, bytes):
        files.append(value)
        return {_BYTES: len(files) - 1}
    if isinstance(value, dict):
        return {name: _without_files(each, files) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_files(each, files) for each in value]
    return value


def _with_files(value: Any, files: list[bytes]) -> Any:
    if isinstance(value, dict):
        return (
            files[value[_BYTES]]
            if value.keys() == {_BYTES}
            else {name: _with_files(each, files) for name, each in value.items()}
        )
    return [_with_files(each, files) for each in value] if isinstance(value, list) else value
