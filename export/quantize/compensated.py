"""INT4 weights whose errors make up for each other: rounded one input channel after the other, and what each is off by is put on those
that are still to come, so that products answer alike to what they meet in use (the method of GPTQ, arXiv:2210.17323).

It needs the second moments of what goes into each product. A graph computes them by itself: beside each such tensor X [..., K] stands
X'X [K, K], so no more tensors are in memory at a time than without. The graph that is written is that of `integer_weights`, with other
values. Knows ONNX graphs; nothing of networks.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper

from faceclip_serving.contract.tensors import Array

from ..onnx import graph
from ..onnx.integer_weights import BLOCK, Pair, block_scales, block_weights, int4, pair_of, quantize
from .errors import QuantizationError
from .ranges import session_beside

DAMPING = 0.01
"""Share of the mean second moment that is added to each, so that channels that are never used, or always used together, do no harm."""
_CALL = 2
"""Rows of a call, as guided sampling has them."""


def quantize_weights(
    source: Path, partial: Path, rows: Mapping[str, Array], keep: Sequence[str], keep_eight: Sequence[str]
) -> dict[str, Any]:
    """Writes the FP16 file `source` with INT4 weights to the folder `partial`; returns what its metadata says of it.

    `rows`: input -> values that calibrate [rows, ...]. `keep`, `keep_eight`: starts of the names of weights that stay FP16, and that
    become INT8. Raises `QuantizationError`.
    """
    own = partial / "source"  # onnx refuses weights with two hard links, as an assembled repository makes them
    shutil.copytree(source.parent, own)
    model = ir.load(own / source.name)
    given = {str(weight.name): _given(weight) for weight, _, _ in block_weights(model.graph, (*keep, *keep_eight))}
    if not given:
        raise QuantizationError(
            f"{source}: expected FP16 weights of matrix products; start from the FP16 file (--precision fp16)"
        )
    moments = second_moments(source, set(given.values()), rows)
    counts = quantize(model, 4, keep, keep_eight, lambda name, weight, axis: rounded(weight, axis, moments[given[name]]))
    graph.save(model, partial)
    shutil.rmtree(own)
    return {"stored": counts, "kept_in_int8": list(keep_eight)}


def rounded(weight: NDArray[Any], axis: int, moment: NDArray[np.float64]) -> Pair:
    """As `rounded_in_blocks`, for inputs of the second moments `moment` [K, K]; the weight has K values along its other axis than `axis`.

    Channels with the largest inputs come first: most can still make up for them.
    """
    wide = np.moveaxis(weight.astype(np.float32), axis, 1)
    for what, found in (("weights", wide), ("inputs", moment)):
        if not np.isfinite(found).all():
            raise QuantizationError(
                f"expected {what} of a product that are numbers, got some that are not; export the FP16 file again"
            )
    power = np.diag(moment)
    damped = moment + (DAMPING * power.mean() or 1.0) * np.eye(len(power))
    scale = block_scales(wide, np.diag(damped))
    order = np.argsort(-power, kind="stable")
    by_row = np.repeat(scale.astype(np.float64), BLOCK, axis=0)[order]
    # Row i of it says how those after i make up for i, once all before are settled.
    follow = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    left, found = wide[order].astype(np.float64), np.empty(wide.shape)
    for start in range(
        0, len(left), BLOCK
    ):  # what is beyond the block hears of it at its end: one product in the place of many
        stop = start + BLOCK
        off = np.empty_like(left[start:stop])
        for i in range(start, stop):
            found[i] = int4(left[i] / by_row[i])
            off[i - start] = (left[i] - found[i] * by_row[i]) / follow[i, i]
            left[i + 1 : stop] -= np.outer(follow[i, i + 1 : stop], off[i - start])
        left[stop:] -= follow[start:stop, stop:].T @ off
    settled = np.empty_like(found)
    settled[order] = found
    return pair_of(settled, scale, axis)


def second_moments(path: Path, tensors: Iterable[str], rows: Mapping[str, Array]) -> dict[str, NDArray[np.float64]]:
    """Tensor [..., K] of an ONNX file -> the mean of its outer products [K, K] over the rows of all inputs."""
    model = onnx.load(str(path), load_external_data=False)
    names = sorted(tensors)
    for number, name in enumerate(names):
        flat, wide, moment = (f"{kind} {number}" for kind in ("flat", "wide", "moment"))
        model.graph.node.extend([
            helper.make_node("Flatten", [name], [flat], axis=-1),
            helper.make_node("Cast", [flat], [wide], to=TensorProto.FLOAT),
            helper.make_node("Gemm", [wide, wide], [moment], transA=1),
        ])  # fmt: skip
        model.graph.output.append(helper.make_tensor_value_info(moment, TensorProto.FLOAT, None))
    session = session_beside(model, path)
    outputs = [f"moment {number}" for number in range(len(names))]
    total = len(next(iter(rows.values())))
    sums: dict[str, NDArray[np.float64]] = {}
    for start in range(0, total, _CALL):
        values = session.run(outputs, {name: array[start : start + _CALL] for name, array in rows.items()})
        for name, value in zip(names, values, strict=True):
            sums[name] = sums.get(name, 0.0) + value.astype(np.float64)
    return {name: value / total for name, value in sums.items()}


def _given(weight: ir.Value) -> str:
    """What goes into the products of a weight. Several may read it; the first counts."""
    first = next(iter(weight.uses())).node.inputs[0]
    assert first is not None
    return str(first.name)
