"""What the compiler said that a plan needs: builds whose figures are kept with the code, per variant.

`python -m benchmarks compiled --record` makes the builds and keeps them. TensorRT for RTX is the compiler, since it runs without a GPU;
for plans of TensorRT proper its figures stand in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..outputs import replacing

KEPT = Path(__file__).resolve().parents[1] / "assets" / "compiled"


@dataclass(frozen=True)
class Build:
    """One plan and its needs on the card, in bytes. Whether it can stream its weights changes none of them."""

    component: str
    precision: str
    largest: Mapping[str, int]
    """Axis -> the largest value that the plan takes; the activations are for all of them at once."""
    sm: tuple[int, ...]
    """Compute capabilities that it was compiled for, e.g. 89 for 8.9."""
    compiler: str
    activation_bytes: int
    weight_bytes: int
    scratch_bytes: int
    """Of the activations, what a single kernel asks for at most."""
    plan_bytes: int
    peak_host_bytes: int
    """Largest resident memory of the process that compiled it."""
    seconds: float
    blocks: int | None = None
    """Of a network that is too large for the machine that compiled it: how many of its equal blocks were left, of each kind. The
    activations are the whole network's, which reuses them from block to block; the weights are not."""

    @property
    def key(self) -> tuple[Any, ...]:
        return self.component, self.precision, tuple(sorted(self.largest.items())), self.blocks

    @property
    def elements(self) -> int:
        """What the activations are about proportional to."""
        return math.prod(self.largest.values())


@dataclass(frozen=True)
class Figures:
    """What a plan needs, from a build of it or from the nearest one."""

    activation_bytes: int
    weight_bytes: int | None
    """None: no build of the whole network in this precision."""
    compiler: str
    notes: tuple[str, ...] = ()
    """Where the build was not of this very plan, what it was of."""


def figures(variant: str, component: str, precision: str, largest: Mapping[str, int]) -> Figures | None:
    """What a plan for the axes `largest` needs; None where nothing of that component was ever compiled.

    The nearest build is told: of the precision, of the whole network, of the size; of several of one size, that with most blocks.
    """
    builds = [build for build in read(variant) if build.component == component and build.largest.keys() <= largest.keys()]
    if not builds:
        return None

    def wanted(build: Build) -> dict[str, int]:
        """Of the axes that the plan had: what was fixed then hardly matters for its activations."""
        return {axis: largest[axis] for axis in build.largest}

    build = min(
        builds,
        key=lambda each: (
            each.precision != precision,
            each.blocks is not None,
            each.largest != largest,
            abs(math.log(each.elements / math.prod(wanted(each).values()))),
            -(each.blocks or 0),
        ),
    )
    notes = []
    if build.precision != precision:
        notes.append(f"activations as a plan in {build.precision} has them")
    if build.blocks is not None:
        notes.append(f"activations as a network of {build.blocks} block{'s' * (build.blocks > 1)} of each kind has them")
    activations = build.activation_bytes
    if fixed := sorted(largest.keys() - build.largest.keys()):
        notes.append(f"activations as a plan with {' and '.join(fixed)} fixed at the smallest has them")
    if build.largest != wanted(build):
        activations = round(activations * math.prod(wanted(build).values()) / build.elements)
        axes = ", ".join(f"{axis} {value}" for axis, value in build.largest.items())
        notes.append(f"activations scaled in proportion from a plan for {axes}")
    whole = build.blocks is None and build.precision == precision
    return Figures(activations, build.weight_bytes if whole else None, build.compiler, tuple(notes))


def read(variant: str) -> list[Build]:
    """The builds that are kept of a variant."""
    path = _path(variant)
    if not path.exists():
        return []
    return [Build(**{**each, "sm": tuple(each["sm"])}) for each in json.loads(path.read_text())]


def keep(variant: str, builds: Iterable[Build]) -> Path:
    """Keeps builds with the code, in the place of earlier ones of the same plans."""
    kept = {each.key: each for each in (*read(variant), *builds)}
    path = _path(variant)
    path.parent.mkdir(parents=True, exist_ok=True)
    documents = [asdict(kept[key]) for key in sorted(kept, key=repr)]
    with replacing(path) as partial:
        partial.write_text(json.dumps(documents, indent=1) + "\n")
    return path


def _path(variant: str) -> Path:
    return KEPT / f"{variant}.json"
