"""Optimisation profiles: the smallest, usual and largest shape of every input of an engine.

Derived from a component's signature and the bounds of its named axes; nothing is written down per component. Knows the rules
that a profile must keep; nothing of TensorRT.
"""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from faceclip_serving.contract.components import SIDES, bounds
from faceclip_serving.contract.tensors import Bounds, Range, Signature
from faceclip_serving.contract.variants.variant import Variant

from .errors import EngineError

MAX_ELEMENTS = 2**31 - 1
"""Elements that TensorRT allows in one tensor."""


class ShapeRange(NamedTuple):
    """Shapes of one input, of equal rank."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


@dataclass(frozen=True)
class Sizes:
    """Which pictures an engine is for; (height, width) in pixels. Nothing given: all that the variant allows."""

    only: tuple[int, int] | None = None
    """The one size; batches stay dynamic."""
    largest: tuple[int, int] | None = None
    """Upper ends of height and width. TensorRT reserves activation memory for the largest shape."""
    static: bool = False
    """Every axis at its usual value: with `only`, a plan of one shape, which Triton shares between instances of a model."""

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Sizes:
        """As JSON has them, with lists for tuples."""
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}
        return cls(**values)


ALL_SIZES = Sizes()


def engine_bounds(
    variant: Variant, component: str, denoiser_rows: int, sizes: Sizes = ALL_SIZES, vae_tile: int = 0
) -> dict[str, Range]:
    """Smallest, usual and largest value of each named axis of the engine's inputs.

    The usual picture is the variant's default one, since that is what most requests ask for; where the VAE works in tiles, it sees no
    more of it than a tile. Raises `EngineError` for a size that no request can have.
    """
    limits = dict(bounds(variant, denoiser_rows, vae_tile)[component])
    usual = sizes.only or (variant.defaults.height, variant.defaults.width)
    for i, (in_cells, in_pixels) in enumerate(SIDES.items()):
        for axis, unit in ((in_cells, 1), (in_pixels, variant.latent_scale)):
            if axis in limits:
                high = limits[axis].max
                if sizes.largest is not None:
                    high = min(high, unit * cells_of(variant, axis, sizes.largest[i]))
                side = min(unit * cells_of(variant, axis, usual[i]), high)
                limits[axis] = Range(side, side, side) if sizes.only else Range(limits[axis].min, side, high)
    if sizes.static:
        limits = {axis: Range(found.opt, found.opt, found.opt) for axis, found in limits.items()}
    return limits


def shape_ranges(signature: Signature, limits: Bounds) -> dict[str, ShapeRange]:
    """The optimisation profile: a range of shapes for each input. Raises `EngineError` for one that TensorRT would refuse."""
    for axis, (low, usual, high) in limits.items():
        if not 1 <= low <= usual <= high:
            raise EngineError(f"{signature.name}: axis '{axis}': expected 1 <= min <= opt <= max, got {low}, {usual}, {high}")
    ranges = {}
    for tensor in signature.inputs:
        unbounded = sorted(set(tensor.dynamic_axes.values()) - limits.keys())
        if unbounded:
            raise EngineError(
                f"{signature.name}: input '{tensor.name}' has axes {unbounded} without bounds; add them to contract.components.bounds"
            )
        shapes = ShapeRange(*(tensor.shape({axis: limits[axis][i] for axis in limits}) for i in range(3)))
        if math.prod(shapes.max) > MAX_ELEMENTS:
            raise EngineError(
                f"{signature.name}: input '{tensor.name}' may have the shape {list(shapes.max)}, more than the {MAX_ELEMENTS}"
                " elements that TensorRT allows; lower --largest or the profile's rows"
            )
        ranges[tensor.name] = shapes
    return ranges


def narrower(found: Bounds, needed: Bounds) -> dict[str, str]:
    """Axis -> what is wrong, for every axis of a plan that takes less than the server may ask of it."""
    return {
        axis: f"plan {found[axis].min} to {found[axis].max}, server {need.min} to {need.max}"
        for axis, need in needed.items()
        if axis in found and not found[axis].min <= need.min <= need.max <= found[axis].max
    }


def parse_size(text: str) -> tuple[int, int]:
    """`1152x864` -> (1152, 864): height, width in pixels. Raises `ArgumentTypeError`, whose words argparse tells."""
    found = re.fullmatch(r"(\d+)[xX](\d+)", text, re.ASCII)
    if found is None:
        raise ArgumentTypeError(f"expected HEIGHTxWIDTH in pixels, e.g. 1152x864, got '{text}'")
    return int(found[1]), int(found[2])


def bounds_document(limits: Bounds) -> dict[str, list[int]]:
    """The bounds as JSON has them."""
    return {axis: list(found) for axis, found in sorted(limits.items())}


def bounds_from(document: Mapping[str, list[int]]) -> dict[str, Range]:
    return {axis: Range(*values) for axis, values in document.items()}


def cells_of(variant: Variant, axis: str, pixels: int) -> int:
    """Latent cells of a side; `axis`: its name, in cells or pixels. Raises `EngineError` unless a request may have that side."""
    low, high = getattr(variant.limits, SIDES.get(axis, axis))
    multiple = math.lcm(variant.limits.size_multiple, variant.latent_scale)
    if pixels % multiple or not low <= pixels <= high:
        raise EngineError(f"{axis}: expected a multiple of {multiple} from {low} to {high} pixels, got {pixels}")
    return pixels // variant.latent_scale
