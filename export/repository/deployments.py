"""Several deployments in one repository folder: which model folders are whose, and how one is replaced without the others.

Knows folders and names; nothing of what a model is.
"""

from __future__ import annotations

import json
import re
import shutil
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import CACHE_SUFFIX, PLAN_FILE

from ..outputs import real, replacing, require_own

RECORD = "deployments.json"
"""File at the top of an assembled repository, which Triton ignores: deployment -> its identity, model folders, and files with bytes."""

_CHANGEABLE = "config.pbtxt"
"""What a person may change in a model; it must be there, in any size."""

_RUNTIME_CACHE = f"{PLAN_FILE}.*{CACHE_SUFFIX}*"
"""Files that a running server writes beside its plans, and lets grow: no part of what makes a deployment whole."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


class DeploymentError(UserError):
    """A deployment cannot be put into a repository; the message says why."""


def is_current(repository: Path, deployment: str, identity: str) -> bool:
    """Whether the deployment is there, whole, and was made from the very same things."""
    entry = _read(repository).get(deployment)
    if entry is None or entry["identity"] != identity or not entry.get("files"):
        return False
    paths = [(repository / name, size) for name, size in entry["files"].items() if not is_runtime_cache(Path(name))]
    return all(path.is_file() and (path.name == _CHANGEABLE or path.stat().st_size == size) for path, size in paths)


def is_runtime_cache(path: Path) -> bool:
    """Whether a server keeps there what a card finished of a plan."""
    return fnmatchcase(path.name, _RUNTIME_CACHE)


def install(scratch: Path, repository: Path, deployment: str, identity: str) -> None:
    """Moves the model folders in `scratch` to `repository`, in place of those that the deployment had.

    Raises `DeploymentError`, and `OutputError` where the folder is not ours; then nothing was changed.
    """
    check_name(deployment)
    require_own(repository, RECORD)
    repository = real(repository)
    record = _read(repository)
    made = [path for path in sorted(scratch.rglob("*")) if path.is_file() and not is_runtime_cache(path)]
    files = {path.relative_to(scratch).as_posix(): path.stat().st_size for path in made}
    fresh = sorted(path.name for path in scratch.iterdir())
    ours = {model for entry in record.values() for model in entry["models"]}
    foreign = [name for name in fresh if (repository / name).exists() and name not in ours]
    if foreign:
        raise DeploymentError(
            f"name: '{deployment}' needs models {foreign}, and {repository} has others of that name that were not made here;"
            " choose another name"
        )
    for other, entry in record.items():
        taken = set(fresh) & set(entry["models"])
        if other != deployment and taken:
            raise DeploymentError(
                f"name: '{deployment}' needs models {sorted(taken)}, which deployment '{other}' of {repository} has; choose another"
            )
    repository.mkdir(parents=True, exist_ok=True)
    outdated = record.get(deployment, {"models": []})["models"]
    others = {name: entry for name, entry in record.items() if name != deployment}
    old = scratch.with_name(f"{scratch.name}.old")
    old.mkdir()
    try:
        _write(repository, others)  # until all is in its place, this deployment counts as missing
        for name in (name for name in {*outdated, *fresh} if (repository / name).exists()):
            (repository / name).replace(old / name)
        for name in fresh:
            (scratch / name).replace(repository / name)
        _write(repository, {**others, deployment: {"identity": identity, "models": fresh, "files": files}})
    except BaseException:  # an error, or Ctrl-C: what was there comes back
        for name in (name for name in fresh if not (scratch / name).exists()):
            (repository / name).replace(scratch / name)
        for path in list(old.iterdir()):
            path.replace(repository / path.name)
        old.rmdir()
        _write(repository, record)
        raise
    shutil.rmtree(old)
    shutil.rmtree(scratch)


def check_name(deployment: str) -> None:
    """Raises `DeploymentError` unless the name can begin the names of models."""
    if not _NAME.fullmatch(deployment):
        raise DeploymentError(
            f"name: expected lower-case letters, digits and underscores, a letter first, got '{deployment}'; e.g. flux"
        )


def _read(repository: Path) -> dict[str, Any]:
    """Raises `DeploymentError` for a file of that name that was not made here."""
    path = repository / RECORD
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError:  # not JSON, or not even text
        found = None
    if not isinstance(found, dict) or not all(map(_is_entry, found.values())):
        raise DeploymentError(
            f"output: {path}: expected the record of `python -m export repository`, deployment -> identity and models, found something"
            " else; choose another folder, or empty it yourself"
        )
    return found


def _is_entry(entry: object) -> bool:
    """Whether it is a deployment's, with names of models, no paths: folders of these names are replaced."""
    if not isinstance(entry, dict) or not isinstance(entry.get("identity"), str) or not isinstance(entry.get("models"), list):
        return False
    names, files = entry["models"], entry.get("files", {})
    return all(isinstance(name, str) and _NAME.fullmatch(name) for name in names) and isinstance(files, dict)


def _write(repository: Path, record: dict[str, Any]) -> None:
    with replacing(repository / RECORD) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n")
