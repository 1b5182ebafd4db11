"""Whether TensorRT's ONNX parser takes a graph, as far as its published table of operators tells; needs no GPU and no TensorRT.

Facts from the operator support matrix of onnx-tensorrt for TensorRT 10.15 (opsets 9 to 24), for the operators that exporters of
such networks write; one that is missing here is refused, to be looked up and added. The parser itself has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import onnx
from onnx import helper

from .errors import EngineError

OPSETS = range(9, 25)

SUPPORTED = frozenset({
    "Abs", "Add", "And", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat", "Constant",
    "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "CumSum", "DequantizeLinear", "Div", "Einsum", "Equal", "Erf", "Exp",
    "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "Greater", "GreaterOrEqual",
    "GridSample", "GroupNormalization", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "IsInf", "IsNaN",
    "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "LpNormalization", "MatMul", "Max", "MaxPool",
    "Mean", "Min", "Mod", "Mul", "Neg", "NonZero", "Not", "Or", "Pad", "Pow", "QuantizeLinear", "Range", "Reciprocal",
    "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu",
    "Reshape", "Resize", "RMSNormalization", "RotaryEmbedding", "Round", "ScatterElements", "ScatterND", "Shape", "Sigmoid",
    "Sign", "Sin", "Size", "Slice", "Softmax", "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "TopK",
    "Transpose", "Unsqueeze", "Where",
})  # fmt: skip

_RESIZE: Mapping[str, frozenset[object]] = {
    "mode": frozenset({"nearest", "linear"}),
    "coordinate_transformation_mode": frozenset({"half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"}),
    "nearest_mode": frozenset({"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"}),
    "keep_aspect_ratio_policy": frozenset({"stretch"}),
    "antialias": frozenset({0}),
}


def check_operators(path: Path) -> None:
    """Raises `EngineError` that names every node of an ONNX file that the parser would refuse. Weights are not read."""
    problems = list(unsupported(onnx.load(str(path), load_external_data=False)))
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise EngineError(f"{path}: TensorRT's parser does not take: {'; '.join(problems[:5])}{more}")


def unsupported(model: onnx.ModelProto) -> Iterator[str]:
    """What the parser would refuse, in words."""
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version not in OPSETS:
            yield f"opset {entry.version} (it reads {OPSETS.start} to {OPSETS.stop - 1})"
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        what = f"{node.op_type} '{node.name or node.output[0]}'"
        if node.domain not in ("", "ai.onnx") or node.op_type not in SUPPORTED:
            yield what if not node.domain else f"{node.domain}.{what}"
        elif problem := next(filter(None, (rule(node, constants) for rule in _rules(node.op_type))), None):
            yield f"{what}: {problem}"


_Rule = Callable[[onnx.NodeProto, set[str]], "str | None"]


def _rules(operator: str) -> Iterator[_Rule]:
    if operator.startswith("Reduce"):
        yield _constant_axes
    if operator in _RULES:
        yield _RULES[operator]


def _constant_axes(node: onnx.NodeProto, constants: set[str]) -> str | None:
    axes = node.input[1] if len(node.input) > 1 else ""
    return f"its axes '{axes}' are computed; they must be an initializer" if axes and axes not in constants else None


def _resize(node: onnx.NodeProto, _: set[str]) -> str | None:
    found = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    for name, allowed in _RESIZE.items():
        value = found.get(name)
        value = value.decode() if isinstance(value, bytes) else value
        relevant = name != "nearest_mode" or found.get("mode", b"nearest") == b"nearest"
        if value is not None and relevant and value not in allowed:
            return f"{name} '{value}' (it takes {', '.join(sorted(map(str, allowed)))})"
    return None


def _scatter(node: onnx.NodeProto, _: set[str]) -> str | None:
    found = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return "a reduction" if found.get("reduction", b"none") != b"none" else None


def _first_output(node: onnx.NodeProto, _: set[str]) -> str | None:
    return "its statistics as outputs" if any(node.output[1:]) else None


_RULES: Mapping[str, _Rule] = {
    "Resize": _resize,
    "ScatterND": _scatter,
    "LayerNormalization": _first_output,
}
