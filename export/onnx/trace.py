"""A torch module -> an ONNX IR model in which every named axis is symbolic. Knows torch's exporter; nothing of what is traced."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import config
from torch.onnx._internal.exporter._registration import ONNXRegistry

from faceclip_serving.contract.components import multiples
from faceclip_serving.contract.tensors import Bounds, Range

from .errors import ExportError
from .example_inputs import example_inputs
from .parity import by_position
from .recorded import Recorded, ready
from .wanted import Export

OPSET = 21
"""The first with a GroupNormalization that scales channels, which TensorRT's parser reads since 10.9 and ONNX Runtime runs; it
also has LayerNormalization (17), Gelu and GridSample (20) as single operators. Later opsets add operators that TensorRT's parser
does not know, as RMSNormalization (23)."""
_operators = cache(ONNXRegistry.from_torchlib)
"""What the exporter has a function for, by opset."""


def trace(module: nn.Module, export: Export) -> Any:
    """The module of a component as an ONNX IR model, every named axis symbolic within its bounds."""
    signature = export.signature
    of = multiples(export.variant)
    sizes = _trace_sizes(export.limits, of)
    example = by_position(signature, example_inputs(export.variant, signature, sizes, salt="trace"))
    axes = {axis: _dimension(axis, bound, of.get(axis, 1)) for axis, bound in export.limits.items()}
    shapes = tuple({i: axes[axis] for i, axis in tensor.dynamic_axes.items()} for tensor in signature.inputs)
    inputs, outputs = ([tensor.name for tensor in tensors] for tensors in (signature.inputs, signature.outputs))
    return traced(module, example, shapes, inputs, outputs)


def traced(module: nn.Module, example: tuple[Tensor, ...], shapes: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Any module as an ONNX IR model. `shapes`: of its inputs, as `torch.export.export` takes them; None: those of `example`."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's remarks about operators that no network here uses
        with Recorded(), _without_stack_traces():
            program = torch.export.export(module, example, dynamic_shapes=shapes, strict=False)
        with _operators_read_once():
            exported = torch.onnx.export(
                ready(program),
                dynamo=True,
                opset_version=OPSET,
                input_names=inputs,
                output_names=outputs,
                optimize=False,  # graph.clean does it, in an order that takes seconds instead of minutes
                verbose=False,
            )
    assert exported is not None
    return exported.model


@contextmanager
def _without_stack_traces() -> Iterator[None]:
    """Where in Python each operator was called is not noted: nothing of it is left in the graph, and it is written out each time."""
    before = config.do_not_emit_stack_traces
    config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        config.do_not_emit_stack_traces = before


@contextmanager
def _operators_read_once() -> Iterator[None]:
    """The exporter reads the source of every function that it has, for each graph; here for the first one of a process."""
    before = vars(ONNXRegistry)["from_torchlib"]
    ONNXRegistry.from_torchlib = staticmethod(_operators)  # type: ignore[method-assign]
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = before  # type: ignore[method-assign]


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
