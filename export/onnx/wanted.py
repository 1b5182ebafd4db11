"""What is wanted of an export, as one value that all steps are given and that another process can be sent. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from faceclip_serving.contract.components import bounds, components
from faceclip_serving.contract.placements import ONNX_FILE, Placement, placements
from faceclip_serving.contract.tensors import Bounds, Range, Signature
from faceclip_serving.contract.variants.variant import Variant

if TYPE_CHECKING:
    from ..checkpoint.lora import Lora

PRECISIONS = ("fp32", "fp16", "int8w")
"""What `export onnx` makes. `int8w`: FP16 as in `fp16`, but large weights are stored as integers, see `integer_weights`."""
WEIGHT_BITS = {"int8w": 8, "int4w": 4}
"""Precisions of FP16 products whose weights are stored as integers -> bits of most of them."""
FACTOR_PRECISIONS = ("int8", "fp8")
"""Both factors of most products in 8 bits, what is left FP16, see `eight_bit_factors`."""
CALIBRATED = ("int4w", *FACTOR_PRECISIONS)
"""What `export quantize` makes, from what a denoiser meets in use. Whoever weighs a graph gets it without that, see `write_unproven`."""

DEPTHS = ("full", "shallow")
"""On what parity is proven: the component itself, or its form of fewer blocks."""


@dataclass(frozen=True)
class Export:
    """One component of a variant in one precision."""

    variant: Variant
    component: str
    precision: str = "fp32"
    """One of `PRECISIONS`; to be weighed, also one of `CALIBRATED`."""
    checkpoint: Path | None = None
    """Folder of the weights; None: those that the variant brings, else seeded ones."""
    loras: tuple[Lora, ...] = ()
    """Fused into the weights; each where it has something for the component."""
    depth: str = "full"
    """One of `DEPTHS`."""
    seeded: bool = False
    """Deterministic stand-ins are allowed for the weights of a variant that has published or committed ones."""

    @property
    def signature(self) -> Signature:
        return components(self.variant)[self.component]

    @property
    def limits(self) -> Bounds:
        return traced_bounds(self.variant)[self.component]


def emulated(variant: Variant, placement: Placement, exported: Path) -> Placement:
    """The placement, emulated by files that are under `exported` or that an export can make.

    A precision that only `export quantize` makes, with tools of its own, is used where it is there; else FP16 stands for it.
    """
    absent = {
        name: "fp16"
        for name, execution in placement.components.items()
        if execution.precision not in PRECISIONS and not (exported / execution.precision / name / ONNX_FILE).exists()
    }
    return placement.emulate(absent)


def traced_bounds(variant: Variant) -> dict[str, Bounds]:
    """The widest bounds of any placement: the graph serves them all. An axis that requests give one size only is traced, and proven,
    over more: a symbolic size cannot be a single one, and a graph of fixed size would be another kind of graph."""
    widest = bounds(variant, max(placement.denoiser_rows for placement in placements(variant).values()))

    def traceable(size: Range) -> Range:
        return size if size.min < size.max else Range(size.min, size.opt, 2 * size.max)

    return {component: {axis: traceable(size) for axis, size in axes.items()} for component, axes in widest.items()}
