"""Both factors of a denoiser's products in INT8 or FP8: NVIDIA ModelOpt puts explicit Q/DQ pairs into our ONNX file.

It runs in a Python of its own, since it needs another numpy than the server's wheel. All products but those excluded are to be quantised,
and that they were is counted. Weights are stored in 8 bits; what is not quantised keeps the precision it had. Knows ModelOpt's command;
nothing of how it quantises, nor of what calibrates.
"""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from faceclip_serving.contract.placements import ONNX_FILE
from faceclip_serving.contract.tensors import Array

from ..onnx.graph_precision import ONNX_PRODUCTS
from .errors import QuantizationError
from .modelopt_graph import NAME_END, annotate, restore

MODULE = "modelopt.onnx.quantization"
REQUIREMENTS = "requirements-quantize.txt"
CALIBRATION_METHOD = "max"
"""An activation's scale is from its largest value. The other method, by histogram, fails on FP16 (numpy: too many bins), and of
FP32 made a worst picture that was no nearer."""
SMALLEST_SHARE = 0.9
"""Of the products that may be quantised, how many must be. ModelOpt leaves out those too small to gain: 16 channels or fewer."""


def quantize_factors(
    python: str, source: Path, partial: Path, mode: str, rows: Mapping[str, Array], layers: Sequence[str]
) -> dict[str, Any]:
    """Writes the file `source` in `mode` to the folder `partial`; returns what its metadata says of it. Raises `QuantizationError`.

    `rows`: input -> values that calibrate [rows, ...]. `layers`: those that stay, by the start of their weights' names.
    """
    excluded = excluded_nodes(onnx.load(str(source), load_external_data=False), layers)
    _run_modelopt(python, source, partial, mode, rows, excluded)
    return {
        "excluded": {"layers": list(layers), "products": len(excluded)},
        "operators": quantized_products(partial / ONNX_FILE, len(excluded)),
    }


def excluded_nodes(model: onnx.ModelProto, excluded: Iterable[str]) -> list[str]:
    """Names of the products that stay as they are: those of excluded layers, by the start of their weights' names, and
    attention's, which have no weight."""
    weights = {tensor.name for tensor in model.graph.initializer}
    starts = tuple(excluded)
    found = []
    for node in model.graph.node:
        if node.op_type not in ONNX_PRODUCTS:
            continue
        own = [name for name in node.input if name in weights]
        layers = [name for name in own if any(fnmatch.fnmatchcase(name, f"{start}*") for start in starts)]
        if layers or not own:
            found.append(node.name)
    return found


def quantized_products(path: Path, excluded: int) -> dict[str, int]:
    """How many products of a file have two dequantised factors, one, or none. Raises `QuantizationError` where too few have two.

    `excluded`: how many were to stay as they are. A product with one dequantised factor runs in floating point: its weight was
    rounded, and nothing is faster for it.
    """
    graph = onnx.load(str(path), load_external_data=False).graph
    made_by = {output: node for node in graph.node for output in node.output}

    def dequantized(name: str) -> bool:
        node = made_by.get(name)
        while node is not None and node.op_type in ("Cast", "Transpose", "Reshape"):
            node = made_by.get(node.input[0])
        return node is not None and node.op_type == "DequantizeLinear"

    factors = [sum(map(dequantized, node.input[:2])) for node in graph.node if node.op_type in ONNX_PRODUCTS]
    both, one, none = (factors.count(number) for number in (2, 1, 0))
    wanted = len(factors) - excluded
    if one or both < max(1, SMALLEST_SHARE * wanted):
        raise QuantizationError(
            f"{path.name}: expected two quantised factors in at least {SMALLEST_SHARE:.0%} of the {wanted} products that are not"
            f" excluded, found {both}; in {one} only one factor is, so they would run in floating point: not accepted. ModelOpt says"
            ' "failed to infer the type of tensor" where an operator is missing in UNTYPED of export/quantize/modelopt_graph.py'
        )
    return {"both_factors": both, "one_factor": one, "as_they_were": none}


def modelopt_version(python: str) -> str:
    """ModelOpt's version in an interpreter. Raises `QuantizationError` where it is not there."""
    command = [python, "-c", f"import {MODULE}, importlib.metadata as m; print(m.version('nvidia-modelopt'))"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise QuantizationError(f"--python {python}: {error}") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise QuantizationError(
            f"{python} has no NVIDIA ModelOpt ({reason}); it needs another numpy than this environment, so make it one of its own:"
            f" python3 -m venv .venv-quantize && .venv-quantize/bin/pip install -r {REQUIREMENTS}, then --python"
            " .venv-quantize/bin/python"
        )
    return done.stdout.strip().splitlines()[-1]


def _run_modelopt(
    python: str, source: Path, partial: Path, mode: str, rows: Mapping[str, Array], excluded: Sequence[str]
) -> None:
    work = partial / "work"
    work.mkdir()
    for path in source.parent.glob(f"{ONNX_FILE}?*"):
        shutil.copy(path, work)  # ModelOpt rewrites what it is given, and onnx refuses weights with two hard links
    model = onnx.load(str(source), load_external_data=False)
    annotate(model)
    onnx.save(model, str(work / ONNX_FILE))
    data = work / "calibration.npz"
    np.savez(data, **dict(rows))
    log = partial.with_name(f"{partial.name}.log")
    # It leaves out products that meet a single row, as modulations would, row by row; a guided picture has two.
    shapes = [f"{name}:{'x'.join(map(str, values[:2].shape))}" for name, values in rows.items()]
    command = [
        python, "-m", MODULE, f"--quantize_mode={mode}", f"--onnx_path={(work / ONNX_FILE).resolve()}",
        f"--calibration_data_path={data.resolve()}", f"--calibration_shapes={','.join(shapes)}",
        f"--output_path={(partial / ONNX_FILE).resolve()}", "--calibration_eps", "cpu",
        f"--calibration_method={CALIBRATION_METHOD}", "--dq_only", "--disable_mha_qdq", "--use_external_data_format",
        "--high_precision_dtype=fp32",  # converts nothing: the graph says its precision
        "--op_types_to_quantize", *sorted(ONNX_PRODUCTS & {"Conv", "MatMul", "Gemm"}),
        "--nodes_to_exclude", *(f"^{re.escape(name + NAME_END)}$" for name in excluded),
    ]  # fmt: skip
    print(f"ModelOpt: {mode}", file=sys.stderr, flush=True)
    with log.open("w") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    shutil.rmtree(work)
    if done.returncode != 0 or not (partial / ONNX_FILE).exists():
        tail = "\n  ".join(log.read_text(errors="replace").splitlines()[-5:])
        raise QuantizationError(f"ModelOpt ended with code {done.returncode}:\n  {tail}\n  the whole log: {log}")
    quantized = onnx.load(str(partial / ONNX_FILE), load_external_data=False)
    restore(quantized, excluded)
    onnx.save(quantized, str(partial / ONNX_FILE))
    for path in partial.glob(f"{ONNX_FILE}?*"):
        shutil.copymode(source, path)  # it was a temporary file, which nobody else may read
    log.unlink()
