"""How much memory a variant needs on a profile, from the real graphs, before anything is built or bought.

Weights are counted from the graphs; intermediate tensors by following each graph at the largest size that the profile admits
(`live_memory`). What no graph tells, the memory of processes, CUDA contexts and kernels' workspace, are constants below, measured or
assumed as they say. Whole-card memory is held against the profile's `gpu_bytes`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from faceclip_serving.contract.placements import ORT_CPU, ORT_CUDA, PROFILE_NAMES, TENSORRT, Placement, Profile, profiles
from faceclip_serving.contract.signatures import COMPONENTS, FINISH, PREPARE, SAMPLER, STREAM, VAE_DECODER, bounds
from faceclip_serving.contract.variant import Variant
from faceclip_serving.contract.variants import VARIANTS

from ..engine.shapes import parse_size
from ..repository.from_nothing import onnx_folder
from . import live_memory
from .shapes import concrete, find, record

CUDA_CONTEXT_BYTES = 450_000_000
"""Per process that computes on the card: CUDA's context, its libraries' code and small workspaces. Assumed; no GPU was at hand."""
MARGIN = 0.03
"""Share of the sum, for fragments and alignment. Assumed."""

SERVER_BYTES = 60_000_000
"""Resident memory of tritonserver itself. This and the following measured on the CPU, 2.51 of the wheel."""
COMPONENT_BYTES = 75_000_000
"""Of the process of a component on ONNX Runtime, without its weights."""
MODEL_BYTES: Mapping[str, int] = {PREPARE: 95_000_000, SAMPLER: 345_000_000, FINISH: 50_000_000, STREAM: 43_000_000}
"""Of the other Python models. The sampler's has torch and diffusers."""
PICTURE_COPIES = 10
"""FP32 pictures of a request that are held on their way from the decoder to the answer, by all processes together."""

_MATRIX_BITS = {"fp8": 8, "int8": 8, "int8w": 8}


@dataclass(frozen=True)
class Need:
    """Bytes of one component where it runs."""

    runtime: str
    precision: str
    weights: int
    activations: int
    on_gpu: bool

    @property
    def total(self) -> int:
        return self.weights + self.activations


@dataclass(frozen=True)
class Plan:
    variant: str
    profile: str
    size: tuple[int, int]
    """Largest picture planned for: height, width in pixels."""
    rows: int
    components: Mapping[str, Need]
    gpu_overhead: int
    host_overhead: int
    gpu_limit: int | None

    @property
    def gpu_bytes(self) -> int:
        """Peak on the card."""
        used = sum(need.total for need in self.components.values() if need.on_gpu)
        return round((used + self.gpu_overhead) * (1 + MARGIN)) if used else 0

    @property
    def host_bytes(self) -> int:
        """Peak of all processes' resident memory."""
        return self.host_overhead + sum(need.total for need in self.components.values() if not need.on_gpu)

    @property
    def fits(self) -> bool:
        return self.gpu_limit is None or self.gpu_bytes <= self.gpu_limit


def make_plan(variant: Variant, profile: Profile, exported: Path, largest: tuple[int, int] | None = None) -> Plan:
    """`exported`: root of `<precision>/<component>/`; `largest`: height and width, if smaller than the profile's.

    TensorRT reserves memory for the largest picture and batch, whatever is asked for; ONNX Runtime's arena grows to the largest that
    was asked for: it is planned for the same. Raises `GraphError`.
    """
    narrowed = profile.narrowed(variant)
    high = narrowed.limits.size[1]
    usual = (variant.defaults.height, variant.defaults.width)
    size = largest or ((high, high) if profile.largest_side else usual)
    limits = bounds(narrowed, profile.denoiser_rows, profile.vae_tile)
    needs = {}
    for component in COMPONENTS:
        sizes = {axis: found.max for axis, found in limits[component].items()}
        for axis, pixels in zip(("latent_height", "latent_width"), size, strict=True):
            if axis in sizes:
                sizes[axis] = min(sizes[axis], pixels // variant.latent_scale)
        sizes = {**sizes, "height": size[0], "width": size[1]}
        needs[component] = _need(variant, component, profile.placements[component], sizes, exported)
    on_gpu = [placement.runtime for placement in profile.placements.values() if placement.runtime is not ORT_CPU]
    contexts = any(runtime.backend != "python" for runtime in on_gpu) + on_gpu.count(ORT_CUDA)
    hosted = sum(placement.runtime.backend == "python" for placement in profile.placements.values())
    pictures = narrowed.limits.num_images_per_prompt * 3 * 4 * size[0] * size[1]
    host = SERVER_BYTES + hosted * COMPONENT_BYTES + sum(MODEL_BYTES.values()) + PICTURE_COPIES * pictures
    return Plan(
        variant.name, profile.name, size, profile.denoiser_rows, needs, contexts * CUDA_CONTEXT_BYTES, host, profile.gpu_bytes
    )


def _need(variant: Variant, component: str, placement: Placement, sizes: Mapping[str, int], exported: Path) -> Need:
    graph = concrete(find(variant.name, component, exported), sizes)
    rules = live_memory.TENSORRT if placement.runtime is TENSORRT else live_memory.ONNX_RUNTIME
    if placement.precision == "fp32" or placement.runtime is ORT_CPU:
        rules = replace(rules, half_bits=32)
    weights = live_memory.weight_bytes(graph, rules, _MATRIX_BITS.get(placement.precision))
    activations = live_memory.peak_bytes(graph, rules)
    return Need(placement.runtime.name, placement.precision, weights, activations, placement.runtime is not ORT_CPU)


# ---------------------------------------------------------------------------------------------------------------- command
def document(plan: Plan) -> dict[str, object]:
    """The plan as JSON; sizes in GB of 10^9 bytes."""

    def gb(size: int) -> float:
        return round(size / 1e9, 3)

    return {
        "variant": plan.variant,
        "placement": plan.profile,
        "largest": list(plan.size),
        "denoiser_rows": plan.rows,
        "predicted_peak_gb": gb(plan.gpu_bytes or plan.host_bytes),
        "limit_gb": None if plan.gpu_limit is None else gb(plan.gpu_limit),
        "fits": plan.fits,
        "components": {
            name: {
                "where": "gpu" if need.on_gpu else "host",
                "runtime": need.runtime,
                "precision": need.precision,
                "weights_gb": gb(need.weights),
                "activations_gb": gb(need.activations),
            }
            for name, need in plan.components.items()
        },
        "gpu": {"predicted_peak_gb": gb(plan.gpu_bytes), "contexts_gb": gb(plan.gpu_overhead), "margin": MARGIN},
        "host": {"predicted_peak_gb": gb(plan.host_bytes), "processes_gb": gb(plan.host_overhead)},
    }


def table(plan: Plan) -> str:
    """The plan as lines to read."""
    height, width = plan.size
    lines = [
        f"{plan.variant} on {plan.profile}: pictures up to {height} x {width}, {plan.rows} denoiser rows, GB of 10^9 bytes",
        f"{'':14} {'where':5} {'runtime':9} {'precision':9} {'weights':>8} {'activations':>12} {'sum':>8}",
    ]
    for name, need in plan.components.items():
        where = "GPU" if need.on_gpu else "host"
        figures = f"{need.weights / 1e9:8.2f} {need.activations / 1e9:12.2f} {need.total / 1e9:8.2f}"
        lines.append(f"{name:14} {where:5} {need.runtime:9} {need.precision:9} {figures}")
    if plan.gpu_bytes:
        used = plan.gpu_bytes / (1 + MARGIN)
        lines.append(f"{'CUDA contexts':14} {'GPU':39} {plan.gpu_overhead / 1e9:8.2f}")
        lines.append(f"{'margin':14} {'GPU':39} {used * MARGIN / 1e9:8.2f}")
        limit = "" if plan.gpu_limit is None else f" of {plan.gpu_limit / 1e9:.2f}"
        lines.append(f"{'GPU peak':54} {plan.gpu_bytes / 1e9:8.2f}{limit}")
    lines.append(f"{'processes':14} {'host':39} {plan.host_overhead / 1e9:8.2f}")
    lines.append(f"{'host peak':54} {plan.host_bytes / 1e9:8.2f}")
    return "\n".join(lines)


def refusal(plan: Plan, limit: int) -> str:
    """Why a plan does not fit, and what would change that."""
    largest, need = max(((n, c) for n, c in plan.components.items() if c.on_gpu), key=lambda each: each[1].total)
    cures = []
    if need.weights >= limit:
        cures.append(f"its weights alone are more than the card: a smaller precision than {need.precision}, or a larger card")
    else:
        if plan.rows > 1:
            cures.append("fewer denoiser_rows")
        cures.append("smaller pictures (--largest HEIGHTxWIDTH, the profile's largest_side)")
        if plan.components[VAE_DECODER].on_gpu and plan.components[VAE_DECODER].activations > limit // 10:
            cures.append("a smaller vae_tile")
        cures.append("encoders on the CPU, or a placement for a larger card")
    return (
        f"'{plan.variant}' on '{plan.profile}' needs {plan.gpu_bytes / 1e9:.2f} GB of the card, {limit / 1e9:.2f} GB may be used; the"
        f" largest part is {largest} ({need.weights / 1e9:.2f} GB weights, {need.activations / 1e9:.2f} GB activations);"
        f" change: {'; '.join(cures)}"
    )


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("plan", help="what memory a placement needs, and whether it fits", description=__doc__)
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="sdxl")
    parser.add_argument("--placement", "--profile", choices=PROFILE_NAMES, help="only this one (default: all of the variant)")
    parser.add_argument(
        "--largest", type=parse_size, metavar="HEIGHTxWIDTH", help="largest picture, if not the placement's own"
    )
    parser.add_argument(
        "--components", type=Path, metavar="DIR", help="root of exported graphs (default: build/onnx/<variant>)"
    )
    parser.add_argument("--json", action="store_true", help="no table, only the JSON document")
    parser.add_argument("--record", action="store_true", help="keep the exported graphs, without weights, with the code")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    exported = args.components or onnx_folder(variant)
    if args.record:
        files = {component: str(record(variant.name, component, exported)) for component in COMPONENTS}
        print(json.dumps({"recorded": files}))
        return 0
    known = profiles(variant)
    chosen = [args.placement] if args.placement else list(known)
    plans = [_planned(variant, name, known, exported, args.largest) for name in chosen]
    for plan in plans:
        if not args.json:
            print(table(plan) + "\n", file=sys.stderr)
    documents = [document(plan) for plan in plans]
    print(json.dumps(documents[0] if args.placement else documents))
    refused = [plan for plan in plans if not plan.fits]
    for plan in refused:
        print(f"error: {refusal(plan, plan.gpu_limit or 0)}", file=sys.stderr)
    return 1 if refused else 0


def _planned(
    variant: Variant, name: str, known: Mapping[str, Profile], exported: Path, largest: tuple[int, int] | None
) -> Plan:
    """The plan of a profile. A card for which the variant has none gets the plan of its leanest, against that card's memory."""
    if name in known:
        return make_plan(variant, known[name], exported, largest)
    on_cards = [profile for profile in known.values() if profile.gpu_bytes is not None]
    leanest = min(on_cards, key=lambda profile: profile.gpu_bytes or 0)
    limit = next(p.gpu_bytes for v in VARIANTS.values() for p in profiles(v).values() if p.name == name)
    return replace(make_plan(variant, leanest, exported, largest), profile=name, gpu_limit=limit)
