"""A torch module -> an ONNX IR model in which every named axis is symbolic. Knows torch's exporter; nothing of what is traced."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from faceclip_serving.contract.components import multiples
from faceclip_serving.contract.tensors import Bounds, Range

from .errors import ExportError
from .example_inputs import example_inputs
from .parity import by_position
from .wanted import Export

OPSET = 21
"""The first with a GroupNormalization that scales channels, which TensorRT's parser reads since 10.9 and ONNX Runtime runs; it
also has LayerNormalization (17), Gelu and GridSample (20) as single operators. Later opsets add operators that TensorRT's parser
does not know, as RMSNormalization (23)."""


def trace(module: nn.Module, export: Export) -> Any:
    """The module of a component as an ONNX IR model, every named axis symbolic within its bounds."""
    signature = export.signature
    of = multiples(export.variant)
    sizes = _trace_sizes(export.limits, of)
    example = by_position(signature, example_inputs(export.variant, signature, sizes, salt="trace"))
    axes = {axis: _dimension(axis, bound, of.get(axis, 1)) for axis, bound in export.limits.items()}
    shapes = tuple({i: axes[axis] for i, axis in tensor.dynamic_axes.items()} for tensor in signature.inputs)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's remarks about operators that no network here uses
        with WithoutIdentities():
            program = torch.export.export(module, example, dynamic_shapes=shapes, strict=False)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[tensor.name for tensor in signature.inputs],
            output_names=[tensor.name for tensor in signature.outputs],
            optimize=False,  # graph.clean does it, in an order that takes seconds instead of minutes
            verbose=False,
        )
    assert exported is not None
    return exported.model


class WithoutIdentities(TorchFunctionMode):
    """While active, a call that gives back what it was given is not recorded: a cast to the type that a tensor has, dropout in use.

    Nothing of them is left in the graph in any case, but the exporter dispatches each recorded operator several times over symbolic
    sizes, an identity as slowly as a product.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        idle = func is functional.dropout and not kwargs.get("training", args[2] if len(args) > 2 else True)
        if args and (idle or (func in _CASTS and _dtype_of(func, *args[1:], **kwargs) == args[0].dtype)):
            return args[0]
        return func(*args, **kwargs)


_CASTS = {Tensor.to: None, Tensor.float: torch.float32, Tensor.half: torch.float16}
"""-> the type that it casts to; None: an argument says it."""


def _dtype_of(func: Callable[..., Any], *args: Any, dtype: torch.dtype | None = None, **others: Any) -> torch.dtype | None:
    """The type that a call casts to; None where it is asked for anything else, too."""
    if others or len(args) > 1 or (args and not isinstance(args[0], torch.dtype)):
        return None
    return _CASTS[func] or dtype or (args[0] if args else None)


def _dimension(axis: str, bound: Range, multiple: int) -> Any:
    """A symbolic size within its bounds; one that comes in multiples is a product, so that halves of it are whole."""
    if multiple == 1:
        return torch.export.Dim(axis, min=bound.min, max=bound.max)
    return multiple * torch.export.Dim(f"{axis}_part", min=bound.min // multiple, max=bound.max // multiple)


def _trace_sizes(limits: Bounds, multiples: Mapping[str, int]) -> dict[str, int]:
    """A size for every axis, each of its own and none of them 1, so that no two axes are taken for one and none for broadcasting."""
    sizes: dict[str, int] = {}
    for axis, (low, _, high) in limits.items():
        multiple = multiples.get(axis, 1)
        size = max(low, 2 * multiple)
        while size in sizes.values():
            size += multiple
        if size > high:
            raise ExportError(f"axis '{axis}': no size from {low} to {high} is left that no other axis of the trace has")
        sizes[axis] = size
    return sizes
