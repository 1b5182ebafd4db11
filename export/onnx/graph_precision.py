"""Which precision an ONNX file computes in, read back from it: a graph which is FP32 by accident, or which normalises in FP16, is
noticed. Knows ONNX graphs; nothing of how they were made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx

from .errors import PrecisionError

ONNX_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"})
ONNX_ISLANDS = frozenset({
    "LayerNormalization", "GroupNormalization", "InstanceNormalization", "BatchNormalization", "RMSNormalization",
    "LpNormalization", "Softmax", "LogSoftmax", "ReduceMean", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "Sqrt", "Exp",
    "Sin", "Cos", "Pow", "GridSample",
})  # fmt: skip
"""Normalisations, softmax, sinusoids and sampling, and the pieces that exporters decompose them into."""


def precision_report(path: Path) -> dict[str, dict[str, int]]:
    """Operator -> element type -> number of nodes, for the products and islands of an ONNX file. Weights are not read."""
    graph = onnx.load(str(path), load_external_data=False).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    counts: dict[str, Counter[str]] = {}
    for node in graph.node:
        if node.op_type not in ONNX_PRODUCTS | ONNX_ISLANDS:
            continue
        element = types.get(node.output[0], onnx.TensorProto.UNDEFINED)
        if element == onnx.TensorProto.UNDEFINED:
            raise PrecisionError(f"{path.name}: the type of '{node.output[0]}', output of a {node.op_type}, is not recorded")
        counts.setdefault(node.op_type, Counter())[onnx.TensorProto.DataType.Name(element)] += 1
    return {operator: dict(found) for operator, found in sorted(counts.items())}


def check_precision(report: Mapping[str, Mapping[str, int]], precision: str) -> None:
    """Raises `PrecisionError` unless all products of the graph of `report` are in `precision`, and all islands in FP32.

    A single FP32 product in an FP16 graph is one too many: TensorRT for RTX refuses the graph for RTX 20 (SM75).
    """
    by_type: Counter[str] = Counter()
    for operator in ONNX_PRODUCTS:
        by_type.update(report.get(operator, {}))
    wrong = {
        operator: dict(found)
        for operator, found in report.items()
        if operator in ONNX_ISLANDS and set(found) - {"FLOAT", "INT64"}
    }
    if wrong:
        raise PrecisionError(f"expected FP32 for normalisations, softmax, sinusoids and sampling, got {wrong}")
    expected = {"FLOAT"} if precision == "fp32" else {"FLOAT16"}
    if set(by_type) != expected:
        raise PrecisionError(
            f"{precision}: expected all products in {expected.pop()}, got {dict(by_type)}; was the module converted before it was"
            " traced, and are all weights of products FP16?"
        )
