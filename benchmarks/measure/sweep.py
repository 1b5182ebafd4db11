"""What to measure: points of size, steps, pictures per request and placement; every combination of the values given."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import PLACEMENT_NAMES, placement_of
from faceclip_serving.contract.variants.variant import Variant

_AXES = ("placement", "size", "steps", "images")
"""The slowest to change first: a server serves one placement."""
_OLD_AXES = {"profile": "placement"}
"""Old spellings, which go on working."""


class SweepError(UserError):
    """A sweep that cannot be measured; the message says which part, and what is allowed."""


@dataclass(frozen=True)
class Point:
    """One kind of request. `height`, `width`: pixels; `images`: pictures per request."""

    height: int
    width: int
    steps: int
    images: int
    placement: str

    @property
    def label(self) -> str:
        return f"{self.height}x{self.width}, {self.steps} steps, {self.images} im., {self.placement}"

    @property
    def settings(self) -> dict[str, Any]:
        """As parameters of the request."""
        sizes = {"height": self.height, "width": self.width}
        return {**sizes, "num_inference_steps": self.steps, "num_images_per_prompt": self.images}


def usual_point(variant: Variant, placement: str = "cpu") -> Point:
    """The variant's default request."""
    usual = variant.defaults
    return Point(usual.height, usual.width, usual.num_inference_steps, 1, placement)


def largest_point(variant: Variant, usual: Point) -> Point:
    """The largest pictures of the placement, as many as a request may ask for; what needs the most memory."""
    limits = placement_of(variant, usual.placement).narrowed(variant).limits
    height, width = limits.largest
    return replace(usual, height=height, width=width, images=limits.num_images_per_prompt)


def points(variant: Variant, usual: Point, words: Sequence[str]) -> list[Point]:
    """`size=128x128,192x128 steps=4,8` -> points; what is not named stays as in `usual`. Raises `SweepError`."""
    found: dict[str, list[str]] = {}
    for word in words:
        axis, equals, values = word.partition("=")
        axis = _OLD_AXES.get(axis, axis)
        if not equals or axis not in _AXES or not all(values.split(",")):
            raise SweepError(f"sweep: expected {'|'.join(_AXES)}=VALUE,VALUE…, got '{word}'")
        if axis in found:
            raise SweepError(f"sweep: '{axis}' is given twice; name all its values after one '='")
        found[axis] = values.split(",")
    chosen: Mapping[str, list[str]] = {
        "size": found.get("size", [f"{usual.height}x{usual.width}"]),
        "steps": found.get("steps", [str(usual.steps)]),
        "images": found.get("images", [str(usual.images)]),
        "placement": found.get("placement", [usual.placement]),
    }
    return [_point(variant, *values) for values in itertools.product(*(chosen[axis] for axis in _AXES))]


def _point(variant: Variant, placement: str, size: str, steps: str, images: str) -> Point:
    height, _, width = size.partition("x")
    limits = variant.limits
    if placement not in PLACEMENT_NAMES:
        raise SweepError(f"sweep: placement: expected one of {', '.join(PLACEMENT_NAMES)}, got '{placement}'")
    return Point(
        _number("size", height, *limits.height, limits.size_multiple),
        _number("size", width, *limits.width, limits.size_multiple),
        _number("steps", steps, *limits.num_inference_steps),
        _number("images", images, 1, limits.num_images_per_prompt),
        placement,
    )


def _number(axis: str, text: str, low: int, high: int, multiple: int = 1) -> int:
    value = int(text) if text.isdecimal() else -1
    if not low <= value <= high or value % multiple:
        kind = "HEIGHTxWIDTH, each a number" if axis == "size" else "a number"
        of = f" and a multiple of {multiple}" if multiple > 1 else ""
        raise SweepError(f"sweep: {axis}: expected {kind} from {low} to {high}{of}, got '{text}'")
    return value
