"""The exported graph between tracing and saving: cleaned, given the signature's names, checked, written.

Knows ONNX; nothing of networks or precision.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from onnxscript import optimizer, rewriter

from faceclip_serving.contract.placements import ONNX_FILE, ONNX_WEIGHTS_FILE
from faceclip_serving.contract.tensors import DType, Signature, Tensor

from ..checkpoint.deferred import LARGE, values
from .errors import GraphError

_SYMBOL = re.compile(r"[A-Za-z_]\w*")
_MULTIPLE = re.compile(r"((?P<factor>\d+)\*)?(?P<symbol>[A-Za-z_]\w*)")

_ELEMENTS = {
    DType.FP32: ir.DataType.FLOAT,
    DType.INT32: ir.DataType.INT32,
    DType.INT64: ir.DataType.INT64,
    DType.BOOL: ir.DataType.BOOL,
}


def clean(model: ir.Model) -> None:
    """Folds, merges and drops what tracing left over, in place. The order keeps it fast: patterns are sought last."""
    merge = (
        passes.IdentityEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
    )
    steps: tuple[Callable[[ir.Model], object], ...] = (
        passes.InlinePass(),
        _transpose_weights,  # folding would do it as well, whatever their size, and hold the result
        _fold_constants,
        *merge,
        rewriter.rewrite,
        _transpose_weights,
        _fold_constants,
        *merge,
        passes.RemoveUnusedNodesPass(),
        passes.NameFixPass(),
        _forget_origin,
    )
    for step in steps:
        step(model)


def defer_weights(model: ir.Model, deferred: Mapping[str, torch.Tensor]) -> None:
    """Puts weights that are fetched when they are written in place of what stood for them in the trace. Raises `GraphError`.

    `deferred`: name -> deferred parameter, see `deferred`.
    """
    for name, initializer in model.graph.initializers.items():
        traced = initializer.const_value
        if name in deferred and traced is not None:
            initializer.const_value = _fetched(deferred[name], traced, name)
        elif traced is not None and traced.size >= LARGE and np.isnan(traced.numpy().flat[0]):
            raise GraphError(f"{name}: its values were deferred, but no parameter of this name gives them")


def sizes(tensor: ir.TensorProtocol) -> list[int]:
    """The shape of a tensor that has values, whose axes are all numbers."""
    return [int(str(axis)) for axis in tensor.shape]


def _fetched(parameter: torch.Tensor, traced: ir.TensorProtocol, name: str) -> ir.LazyTensor:
    return ir.LazyTensor(lambda: ir.Tensor(values(parameter).numpy()), traced.dtype, ir.Shape(sizes(traced)), name=name)


def conform(model: ir.Model, signature: Signature) -> None:
    """Checks inputs and outputs against the signature, and writes its axis names into all shapes. Raises `GraphError`."""
    graph = model.graph
    for kind, declared, found in (("input", signature.inputs, graph.inputs), ("output", signature.outputs, graph.outputs)):
        names = [value.name for value in found]
        if names != [tensor.name for tensor in declared]:
            raise GraphError(
                f"{signature.name}: expected {kind}s {[tensor.name for tensor in declared]}, the graph has {names}"
            )
        for tensor, value in zip(declared, found, strict=True):
            _check_value(signature.name, kind, tensor, value)
    _name_axes(model, signature)
    for tensor, value in zip((*signature.inputs, *signature.outputs), (*graph.inputs, *graph.outputs), strict=True):
        value.shape = ir.Shape(tensor.axes)


def _name_axes(model: ir.Model, signature: Signature) -> None:
    """Writes sizes within the graph in the signature's axes, for which the exporter made up names: `s13` for `rows`.

    An axis that comes in multiples is a product there, as `2*s34`: then `s34` becomes `(latent_height//2)`.
    """
    names: dict[str, str] = {}
    for tensor, value in zip(signature.inputs, model.graph.inputs, strict=True):
        for i, axis in tensor.dynamic_axes.items():
            found = _MULTIPLE.fullmatch(str(value.shape[i])) if value.shape else None
            if found is not None:
                names[found["symbol"]] = f"({axis}//{found['factor']})" if found["factor"] else axis

    def named(dim: int | ir.SymbolicDim) -> int | ir.SymbolicDim | str:
        if isinstance(dim, int) or dim.value is None:
            return dim
        return _SYMBOL.sub(lambda found: names.get(found[0], found[0]), dim.value)

    for value in (output for node in model.graph for output in node.outputs):
        if value.shape is not None:
            value.shape = ir.Shape([named(dim) for dim in value.shape])


def _check_value(owner: str, kind: str, tensor: Tensor, value: ir.Value) -> None:
    shape = None if value.shape is None else value.shape.dims
    agrees = shape is not None and len(shape) == len(tensor.axes) and value.dtype == _ELEMENTS[tensor.dtype]
    for declared, found in zip(tensor.axes, shape or (), strict=False):
        # An axis that became a number was specialised to the example's size: other sizes would fail or be computed wrongly.
        agrees = agrees and (found == declared if isinstance(declared, int) else not isinstance(found, int))
    if not agrees:
        raise GraphError(
            f"{owner}: {kind} '{tensor.name}' is declared {tensor.describe()}, the graph has {value.dtype} {value.shape}"
        )


def save(model: ir.Model, folder: Path) -> None:
    """Writes `model.onnx` and, beside it, the weights as `model.onnx.data`, whatever their size."""
    ir.save(model, folder / ONNX_FILE, external_data=ONNX_WEIGHTS_FILE, alignment=4096)


def outline(model: ir.Model) -> onnx.ModelProto:
    """The model with the names, types and shapes of its weights and none of their values, which are never fetched.

    The model is not to be used any more.
    """
    weights = []
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            tensor = value.const_value
            weights.append(onnx.TensorProto(name=name, dims=sizes(tensor), data_type=tensor.dtype.value))
    model.graph.initializers.clear()
    proto = ir.to_proto(model)
    proto.graph.initializer.extend(weights)
    return proto


def verify_file(path: Path, signature: Signature) -> None:
    """Checks a written file: well-formed, and its inputs and outputs are the signature's. Raises `GraphError`."""
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise GraphError(f"{signature.name}: {path.name} is not valid ONNX: {error}") from error
    conform(ir.load(path), signature)


def _fold_constants(model: ir.Model) -> None:
    optimizer.fold_constants(model, onnx_shape_inference=True)


def _transpose_weights(model: ir.Model) -> None:
    """Stores matrices the way their products read them, so that no runtime has to copy them when it loads the graph."""
    graph = model.graph
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        order = node.attributes.get("perm")
        if source is None or source.const_value is None or source.name not in graph.initializers or order is None:
            continue
        name = f"{source.name}.transposed"
        stored = graph.initializers.get(name)
        if stored is None:
            tensor = _transposed(source.const_value, list(order.as_ints()), name)
            stored = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
            graph.register_initializer(stored)
        node.outputs[0].replace_all_uses_with(stored)
        graph.remove(node, safe=True)


def _transposed(tensor: ir.TensorProtocol, order: list[int], name: str) -> ir.LazyTensor:
    """The tensor with its axes in another order; the bytes are put into it when they are written."""
    shape = ir.Shape([sizes(tensor)[axis] for axis in order])
    return ir.LazyTensor(lambda: ir.Tensor(np.transpose(tensor.numpy(), order)), tensor.dtype, shape, name=name)


def _forget_origin(model: ir.Model) -> None:
    """Removes what the exporter notes about its own run: stack traces, with paths of this machine, and module names."""
    passes.ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    model.doc_string = None
    for value in (*model.graph.inputs, *model.graph.initializers.values(), *(o for node in model.graph for o in node.outputs)):
        value.metadata_props.clear()
        value.doc_string = None
