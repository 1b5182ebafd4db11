"""Tensors and signatures: the vocabulary in which every boundary of the system is declared, once.

A `Tensor` knows its name, dtype and axes. ONNX axes, config.pbtxt dims, TensorRT profiles, example inputs and the checks of
requests are all derived from it. An axis is an `int` (fixed) or a name (dynamic); the same name means the same size within one
signature. How large a named axis may become is not known here: that is a `Bounds` table, given by variant and profile.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import UserError

Array = NDArray[Any]


_NUMPY = {"FP32": "float32", "INT32": "int32", "INT64": "int64", "BOOL": "bool", "UINT8": "uint8", "BYTES": "object"}


class DType(Enum):
    """Element types allowed at a boundary. Triton's names; 16-bit floats stay inside the components."""

    FP32 = "FP32"
    INT32 = "INT32"
    INT64 = "INT64"
    BOOL = "BOOL"
    UINT8 = "UINT8"
    BYTES = "BYTES"

    @property
    def numpy(self) -> np.dtype[Any]:
        return np.dtype(_NUMPY[self.value])

    @property
    def config(self) -> str:
        """The name used in config.pbtxt, e.g. `TYPE_FP32`."""
        return "TYPE_STRING" if self is DType.BYTES else f"TYPE_{self.value}"


class Range(NamedTuple):
    """Smallest, usual and largest size of a named axis."""

    min: int
    opt: int
    max: int


Bounds = Mapping[str, Range]


def bytes_tensor(items: Sequence[bytes]) -> Array:
    """A BYTES tensor, object [n]."""
    array = np.empty(len(items), object)
    array[:] = items
    return array


def json_tensor(content: Any) -> Array:
    """A BYTES tensor, object [1], of a JSON document."""
    return bytes_tensor([json.dumps(content).encode()])


class TensorError(UserError):
    """A tensor does not match its declaration."""


@dataclass(frozen=True)
class Tensor:
    """One declared tensor. `axes`: fixed sizes and names of dynamic axes; `doc`: meaning, unit and value range."""

    name: str
    dtype: DType
    axes: tuple[int | str, ...]
    doc: str
    optional: bool = False

    @property
    def dims(self) -> list[int]:
        """Dims as Triton and ONNX Runtime write them: -1 for a dynamic axis."""
        return [axis if isinstance(axis, int) else -1 for axis in self.axes]

    @property
    def dynamic_axes(self) -> dict[int, str]:
        """Position -> name of every dynamic axis."""
        return {i: axis for i, axis in enumerate(self.axes) if isinstance(axis, str)}

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The concrete shape for given sizes of the named axes."""
        return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in self.axes)

    def describe(self) -> str:
        """`FP32 [rows, 4, latent_height, latent_width]`, for messages and documentation."""
        return f"{self.dtype.value} [{', '.join(map(str, self.axes))}]"

    def check(self, array: Array, owner: str, sizes: dict[str, int] | None = None, bounds: Bounds | None = None) -> None:
        """Raises `TensorError` unless `array` fits. `sizes` collects the named axes, so that tensors of one call agree."""
        what = f"{owner}: tensor '{self.name}'"
        if array.dtype != self.dtype.numpy:
            raise TensorError(f"{what}: expected {self.describe()}, got dtype {array.dtype}")
        if array.ndim != len(self.axes):
            raise TensorError(f"{what}: expected {self.describe()}, got shape {list(array.shape)}")
        sizes = {} if sizes is None else sizes
        for axis, size in zip(self.axes, array.shape, strict=True):
            if isinstance(axis, int):
                if size != axis:
                    raise TensorError(f"{what}: expected {self.describe()}, got shape {list(array.shape)}")
                continue
            if sizes.setdefault(axis, size) != size:
                raise TensorError(f"{what}: axis '{axis}' is {size} here but {sizes[axis]} in another tensor of the call")
            if bounds is not None and axis in bounds and not bounds[axis].min <= size <= bounds[axis].max:
                low, _, high = bounds[axis]
                raise TensorError(f"{what}: axis '{axis}' must be between {low} and {high}, got {size}")


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of one component or model."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    doc: str

    def input(self, name: str) -> Tensor:
        return next(tensor for tensor in self.inputs if tensor.name == name)

    def check_inputs(self, arrays: Mapping[str, Array], bounds: Bounds | None = None) -> None:
        """Raises `TensorError` unless `arrays` are exactly the declared inputs, agreeing in their named axes."""
        _check(self.inputs, arrays, f"{self.name} input", bounds)

    def check_outputs(self, arrays: Mapping[str, Array]) -> None:
        """Raises `TensorError` unless `arrays` are exactly the declared outputs."""
        _check(self.outputs, arrays, f"{self.name} output", None)


def _check(tensors: tuple[Tensor, ...], arrays: Mapping[str, Array], owner: str, bounds: Bounds | None) -> None:
    known = [tensor.name for tensor in tensors]
    missing = [tensor.name for tensor in tensors if tensor.name not in arrays and not tensor.optional]
    unknown = sorted(set(arrays) - set(known))
    if missing or unknown:
        raise TensorError(f"{owner}: expected tensors {known}; missing {missing}, unknown {unknown}")
    sizes: dict[str, int] = {}
    for tensor in tensors:
        if tensor.name in arrays:
            tensor.check(arrays[tensor.name], owner, sizes, bounds)
