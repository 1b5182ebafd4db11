"""People of whom an operator makes no pictures: names, and faces by a recogniser that is independent of FaceCLIP."""

from __future__ import annotations

from pathlib import Path

from ..contract.tensors import Array
from .policy import PolicyError

MAX_NAMES = 100_000


def names_of(path: Path) -> list[str]:
    """The names of a file, a line each. Raises `PolicyError`."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise PolicyError(f"policy: [listed] names: expected text in UTF-8, '{path}' cannot be read ({error})") from None
    names = [line.replace("*", "").strip() for line in lines if line.strip() and not line.startswith("#")]
    if len(names) > MAX_NAMES:
        raise PolicyError(f"policy: [listed] names: at most {MAX_NAMES} are looked for, '{path}' has {len(names)}")
    return names


class ListedFaces:
    def __init__(self, folder: Path, distance: float) -> None:
        raise PolicyError("policy: [listed] faces: not yet")

    def __call__(self, crop: Array) -> tuple[bool, float]:
        raise NotImplementedError
