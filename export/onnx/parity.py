"""Parity: an exported component against the FP32 network that it came from, on several sizes and batches.

An error is the largest absolute difference as a share of the reference's largest absolute value: one number, comparable between
tensors of any scale, and a single wrong element shows. Knows nothing of how a component was built or exported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from faceclip_serving.contract.components import TEXT_TOKENS, multiples
from faceclip_serving.contract.names import DENOISER, FACE_ENCODER, TEXT_ENCODER, VAE_DECODER, VAE_ENCODER
from faceclip_serving.contract.tensors import Array, Bounds, Signature
from faceclip_serving.contract.variants.variant import Variant

from ..checkpoint.deferred import on_demand
from .errors import ParityError
from .example_inputs import Sizes, example_inputs

Arrays = Mapping[str, Array]
Run = Callable[[Arrays], dict[str, Array]]

_STEPS: Mapping[str, tuple[Sizes, ...]] = {
    FACE_ENCODER: ({"faces": 0}, {"faces": 2}),
    TEXT_ENCODER: ({"faces": 0, "rows": 0}, {"faces": 1, "rows": 2}, {"faces": 2, "rows": 1}, {"faces": 0, "rows": 2}),
    VAE_ENCODER: ({"images": 0, "height": 0, "width": 0}, {"images": 1, "height": 5, "width": 1}),
    DENOISER: (
        {"rows": 0, TEXT_TOKENS: 0, "latent_height": 0, "latent_width": 0},
        {"rows": 1, TEXT_TOKENS: 2, "latent_height": 1, "latent_width": 5},
        {"rows": 2, TEXT_TOKENS: 5, "latent_height": 6, "latent_width": 3},
    ),
    VAE_DECODER: (
        {"images": 0, "latent_height": 0, "latent_width": 0},
        {"images": 1, "latent_height": 5, "latent_width": 1},
    ),
}
"""Component -> cases, as steps above the smallest size of every named axis: batches of 1 to 3, odd sides, both orientations;
texts of 1, 3 and 6 chunks, where there may be several."""


@dataclass(frozen=True)
class Case:
    sizes: Sizes
    inputs: Arrays

    @property
    def name(self) -> str:
        return " ".join(f"{axis}={size}" for axis, size in self.sizes.items())


@dataclass(frozen=True)
class Finding:
    """How far one output was from its reference in one case."""

    check: str
    case: str
    tensor: str
    error: float
    """Largest absolute difference / largest absolute value of the reference; infinite where the output is not finite."""
    rms_error: float
    """Root mean square of the difference / that of the reference."""


def cases(variant: Variant, signature: Signature, bounds: Bounds) -> list[Case]:
    """The cases of a component, in the sizes that its bounds allow."""
    of = multiples(variant)
    found = []
    for steps in _STEPS[signature.name]:
        known = {axis: step for axis, step in steps.items() if axis in bounds}
        sizes = {axis: min(bounds[axis].min + step * of.get(axis, 1), bounds[axis].max) for axis, step in known.items()}
        found.append(Case(sizes, example_inputs(variant, signature, sizes, salt="parity")))
    return found


def by_position(signature: Signature, arrays: Arrays) -> tuple[torch.Tensor, ...]:
    """Named arrays as a module takes them."""
    return tuple(torch.from_numpy(arrays[tensor.name]) for tensor in signature.inputs)


def torch_run(module: nn.Module, signature: Signature) -> Run:
    """The module as a function of named arrays."""

    def run(arrays: Arrays) -> dict[str, Array]:
        with torch.no_grad(), on_demand():
            outputs = module(*by_position(signature, arrays))
        return {tensor.name: output.numpy() for tensor, output in zip(signature.outputs, outputs, strict=True)}

    return run


def onnx_run(path: Path, signature: Signature) -> Run:
    """An ONNX file on ONNX Runtime's CPU provider, as a function of named arrays, with little memory beyond the mapped weights.

    The CPU has no FP16 kernels: weights are cast to FP32 when they are used. ONNX Runtime's highest optimisation level does that for
    all of them at once when it loads (FuseInitializersTransformer), and prepacking copies them; without both, weights stay the
    mapped file. Without the arena, memory is given back after each product.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3  # errors; else a warning for each FP16 product that it cannot fold
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in signature.outputs]
    return lambda arrays: dict(zip(names, session.run(names, dict(arrays)), strict=True))


def compare(check: str, run: Run, signature: Signature, references: Iterable[tuple[Case, Arrays]]) -> list[Finding]:
    """Runs every case and measures its outputs. Raises `TensorError` where an output is not as the signature declares it."""
    findings = []
    for case, reference in references:
        outputs = run(case.inputs)
        signature.check_outputs(outputs)
        findings += [_finding(check, case.name, name, outputs[name], expected) for name, expected in reference.items()]
    return findings


def compare_alone(run: Run, signature: Signature, case: Case) -> list[Finding]:
    """Runs the last item of a batch by itself: what it gives in the batch is the reference, since neighbours are other requests."""
    batch_axis = signature.outputs[0].axes[0]
    alone = {
        tensor.name: case.inputs[tensor.name][-1:] if tensor.axes[0] == batch_axis else case.inputs[tensor.name]
        for tensor in signature.inputs
    }
    together, by_itself = run(case.inputs), run(alone)
    name = f"{case.name}, last of {batch_axis} alone"
    return [_finding("neighbours", name, key, by_itself[key], values[-1:]) for key, values in together.items()]


def require(findings: Iterable[Finding], component: str, precision: str, tolerance: float) -> None:
    """Raises `ParityError` for the worst finding beyond `tolerance`."""
    worst = max(findings, key=lambda finding: finding.error)
    if not worst.error <= tolerance:
        raise ParityError(
            f"{component} in {precision}: tensor '{worst.tensor}', case '{worst.case}' ({worst.check}): error {worst.error:.2e} of"
            f" the reference's largest value, tolerance {tolerance:.0e}; the exported graph computes something else, or"
            f" {precision} is too narrow for these weights"
        )


def summary(findings: Iterable[Finding]) -> list[dict[str, object]]:
    return [{**asdict(f), "error": float(f"{f.error:.3g}"), "rms_error": float(f"{f.rms_error:.3g}")} for f in findings]


def _finding(check: str, case: str, tensor: str, output: Array, reference: Array) -> Finding:
    output, reference = output.astype(np.float64), reference.astype(np.float64)
    if not np.isfinite(output).all():
        return Finding(check, case, tensor, math.inf, math.inf)
    difference = output - reference
    error = float(np.abs(difference).max() / np.abs(reference).max())
    rms_error = math.sqrt(np.square(difference).mean()) / math.sqrt(np.square(reference).mean())
    return Finding(check, case, tensor, error, rms_error)
