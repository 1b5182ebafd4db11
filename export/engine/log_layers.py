"""What a plan's products read, from the log of TensorRT for RTX: no card is needed, as it would be for the engine inspector.

The compiler prints the layers that it made, each with the types of the tensors that come in and of the constants that it holds. There a
weight of fewer bits is either read by its product as it is, or first unfolded to the product's type by a layer of its own. Knows the
log's text; nothing of networks.
"""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TextIO

from .types import UNKNOWN, narrowest, type_of

HEADING = "Layers:"
_LINE = re.compile(
    r"\s+Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: (?P<inputs>.*?), Constants: (?P<constants>.*?),"
    r" Outputs: (?P<outputs>.*?), TacticName: "
)
_TENSOR = re.compile(r"Dimensions: \[(?P<dims>[^\]]*)\].*?Datatype: (?P<type>\w+)")
_PRODUCT_KINDS = frozenset({"gemm", "correlation", "convolution"})
_FUSED = re.compile(r"^__myl_[A-Za-z]*Fc|_mha_|attention")
"""Names of generated kernels with a matrix product (`Fc`) in them, as `__myl_FcAdd`, or with attention."""
_WIDE_BYTES = {"FP16": 2, "BF16": 2, "FP32": 4}


@dataclass(frozen=True)
class Products:
    """Which types the products of a plan multiply, and what had to be unfolded for them."""

    factors: dict[str, int] = field(default_factory=dict)
    """`FP16 x INT8`: of what goes in and of the weight, as they are in memory -> number of products. Attention has no weight."""
    unfolded: int = 0
    """Weights of fewer bits that a layer of its own turns into FP16 or FP32, in each call, before a product reads them."""
    unfolded_bytes: int = 0
    """Of the largest of these, unfolded."""


@dataclass(frozen=True)
class _Tensor:
    type: str
    dims: tuple[int, ...]
    """-1: known at run time."""

    @property
    def is_matrix(self) -> bool:
        """More than a scale or a bias."""
        return sum(size != 1 for size in self.dims) > 1


def products(log: str) -> Products:
    """Of the layers that are listed in a build log; empty where it lists none."""
    factors: Counter[str] = Counter()
    unfolded = []
    for line in _listed(log.splitlines()):
        found = _LINE.match(line)
        if found is None:
            continue  # signals between streams have no tensors
        inputs, constants, outputs = (_tensors(found[key]) for key in ("inputs", "constants", "outputs"))
        weights = [tensor for tensor in constants if tensor.is_matrix]
        if found["kind"] in _PRODUCT_KINDS or is_fused_product(found["name"]):
            given = narrowest(tensor.type for tensor in inputs)
            factors[f"{given} x {narrowest(tensor.type for tensor in weights) if weights else given}"] += 1
        elif not inputs and narrowest(tensor.type for tensor in weights) not in (UNKNOWN, *_WIDE_BYTES):
            unfolded += [math.prod(tensor.dims) * _WIDE_BYTES[tensor.type] for tensor in outputs if tensor.type in _WIDE_BYTES]
    return Products(dict(sorted(factors.items())), len(unfolded), max(unfolded, default=0))


def is_fused_product(name: str) -> bool:
    """Whether a generated kernel multiplies matrices, by its name."""
    return bool(_FUSED.search(name))


def _listed(lines: Iterable[str]) -> Iterator[str]:
    """The indented lines below the heading."""
    inside = False
    for line in lines:
        if not line.startswith(" "):
            inside = line.endswith(HEADING)
        elif inside:
            yield line


def _tensors(text: str) -> list[_Tensor]:
    return [
        _Tensor(type_of(found["type"]), tuple(int(size) for size in found["dims"].split(",") if size))
        for found in _TENSOR.finditer(text)
    ]


class Log(io.TextIOBase):
    """A file that of the compiler's chatter, lines that begin with `chatter`, keeps only the list of layers."""

    def __init__(self, file: TextIO, chatter: str = "[X]") -> None:
        super().__init__()
        self._file = file
        self._chatter = chatter
        self._left = ""
        self._kept = True

    def write(self, text: str) -> int:
        *lines, self._left = (self._left + text).split("\n")
        for line in lines:
            if not line.startswith(" "):  # what is indented belongs to the line above
                self._kept = not line.startswith(self._chatter) or line.endswith(HEADING)
            if self._kept:
                self._file.write(f"{line}\n")
        return len(text)

    def flush(self) -> None:
        self._file.flush()
