"""What one process does with the plans of a placement: `python -m benchmarks.gpu.trial JSON`. Its memory is gone before the next begins.

A rehearsal takes the same steps without a card: ONNX Runtime's CPU provider runs the file that each plan was built from.
"""

from __future__ import annotations

import json
import logging
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.engine.agreement import Load
from export.engine.build import this_machine
from export.engine.record import Purpose, check_plan
from export.engine.shapes import bounds_from
from export.engine.verify import verify_picture, verify_plan
from export.onnx.example_inputs import example_inputs
from faceclip_serving.contract.components import SIDES, components
from faceclip_serving.contract.names import DENOISER, VAE_DECODER
from faceclip_serving.contract.placements import CACHE_SUFFIX, ONNX_FILE, ORT_CPU, PLAN_FILE, Execution, placement_of
from faceclip_serving.contract.tensors import Array, Bounds, Signature
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.models import trt_component
from faceclip_serving.models.trt_component import TrtComponent
from faceclip_serving.sampling.tiling import tiled

from ..measure import gpu
from ..measure.timing import seconds_of

Run = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(frozen=True)
class Trial:
    what: str
    """One of `TRIALS`."""
    variant: str
    placement: str
    plans_on: str
    """Name of a runtime that was chosen for the plans; empty: the placement's own."""
    root: str
    """Of <precision>/<component>/, with the plans built."""
    component: str = ""
    """Of `agreement` and `start`."""
    cache: str = ""
    """Of `start`: folder of the runtime cache; what an earlier trial left there is loaded."""
    repeats: int = 5
    """Timed runs of each case."""
    steps: int = 4
    """Of a picture."""
    rehearse: bool = False

    def purpose(self, component: str) -> Purpose:
        variant = VARIANTS[self.variant]
        placement = placement_of(variant, self.placement)
        return Purpose(variant, placement.on(self.plans_on) if self.plans_on else placement, component)

    def folder(self, component: str) -> Path:
        return Path(self.root) / self.purpose(component).precision / component

    @property
    def load(self) -> Load:
        """The class that runs plans."""
        return OnCpu if self.rehearse else TrtComponent


class OnCpu:
    """Stands for `TrtComponent` in a rehearsal."""

    def __init__(self, path: Path, signature: Signature, _execution: Execution, bounds: Bounds) -> None:
        from faceclip_serving.models.onnx_component import OnnxComponent  # a second to import

        self._component = OnnxComponent(path.resolve().with_name(ONNX_FILE), signature, ORT_CPU.providers, bounds)

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        return self._component.run(arrays)

    def close(self) -> None:
        """Nothing is held that does not go by itself."""


def run_here(trial: Trial) -> dict[str, Any]:
    """The figures of one trial."""
    return TRIALS[trial.what](trial)


def agreement(trial: Trial) -> dict[str, Any]:
    """A plan against ONNX Runtime. Raises `ParityError` beyond the component's tolerance."""
    found = verify_plan(trial.purpose(trial.component), trial.folder(trial.component), trial.load)
    errors = [each["error"] for each in found["findings"]]
    return {"error_of_largest": max(errors), "tolerance": found["tolerance"], "compared": len(errors)}


def start(trial: Trial) -> dict[str, Any]:
    """Loading a plan, its first calls and its usual ones, of the usual and of the largest shape, and the runtime cache that is left.

    The largest shape is timed once after its first call; in a rehearsal by that one alone.
    """
    purpose, folder, cache = trial.purpose(trial.component), trial.folder(trial.component), Path(trial.cache)
    limits = _limits(purpose, folder)
    signature = components(purpose.variant)[trial.component]
    plan = cache / PLAN_FILE
    if not plan.exists():
        plan.symlink_to((folder / PLAN_FILE).resolve())  # the runtime cache is kept beside it
    with gpu.Peak() as peak, _Warnings() as said:
        started = time.perf_counter()
        with closing(trial.load(plan, signature, purpose.execution, limits)) as loaded:
            load_s = time.perf_counter() - started
            usual = _case(purpose, signature, {axis: each.opt for axis, each in limits.items()}, loaded.run, trial.repeats)
            again = 0 if trial.rehearse else 1  # without the card that is asked about, seconds say nothing
            largest = _case(purpose, signature, {axis: each.max for axis, each in limits.items()}, loaded.run, again)
    kept = [path.stat().st_size for path in cache.glob(f"{PLAN_FILE}.*{CACHE_SUFFIX}")]
    return {
        "load_s": round(load_s, 4),
        "first_s": usual["first_s"],
        "median_s": usual["median_s"],
        "largest_s": largest["median_s"],
        "finite": usual["finite"] and largest["finite"],
        "peak_bytes": _held(peak),
        "runtime_cache_bytes": None if trial.rehearse else sum(kept),
        "usual": usual,
        "largest": largest,
        "warnings": said.lines,
    }


def picture(trial: Trial) -> dict[str, Any]:
    """A picture by the placement's plans and by ONNX Runtime. Raises `EngineError` where it is another picture."""
    variant = VARIANTS[trial.variant]
    placed = {}
    for component in components(variant):
        purpose = trial.purpose(component)
        placed[component] = (trial.folder(component), purpose if purpose.execution.runtime.package else None)
    psnr_db = verify_picture(variant, placed, trial.steps, trial.load)
    return {"psnr_db": round(psnr_db, 2) if math.isfinite(psnr_db) else None, "steps": trial.steps}


def on_card(trial: Trial) -> dict[str, Any]:
    """Everything that the placement has on the card, loaded at once in one process, as the server has it; guided steps and a decode
    of the usual picture."""
    variant = VARIANTS[trial.variant]
    nets = components(variant)
    placement = trial.purpose(DENOISER).placement
    usual = placement.narrowed(variant).defaults
    grid = {axis: size // variant.latent_scale for axis, size in zip(SIDES, (usual.height, usual.width), strict=True)}
    rows = min(2, placement.denoiser_rows)
    inputs = example_inputs(variant, nets[DENOISER], {"rows": rows, **grid})
    with ExitStack() as stack, gpu.Peak() as peak:
        runs: dict[str, Run] = {}
        for component, execution in placement.components.items():
            if execution.runtime.package:
                path, limits = (
                    trial.folder(component) / PLAN_FILE,
                    _limits(trial.purpose(component), trial.folder(component)),
                )
                runs[component] = stack.enter_context(closing(trial.load(path, nets[component], execution, limits))).run
        step_s = [seconds_of(lambda: [runs[DENOISER](inputs) for _ in range(0, 2, rows)]) for _ in range(max(1, trial.steps))]
        decode = runs[VAE_DECODER]
        if placement.vae_tile:
            decode = tiled(decode, placement.vae_tile, variant.latent_scale)
        latents = inputs["latents"][:1]
        started = time.perf_counter()
        image = decode({"latents": latents})["image"]
        decode_s = time.perf_counter() - started
    return {
        "guided_step_s": round(statistics.median(step_s), 6),
        "decode_s": round(decode_s, 6),
        "finite": bool(np.isfinite(image).all()),
        "peak_bytes": _held(peak),
        "height": image.shape[2],
        "width": image.shape[3],
        "loaded": sorted(runs),
    }


TRIALS: Mapping[str, Callable[[Trial], dict[str, Any]]] = {
    "agreement": agreement,
    "start": start,
    "picture": picture,
    "on_card": on_card,
}


def _limits(purpose: Purpose, folder: Path) -> Bounds:
    """What the plan was built for. Raises `EngineError` where it cannot be loaded here."""
    record = check_plan(folder, purpose, this_machine(purpose.execution.runtime))
    return bounds_from(record.recipe.bounds)


def _case(purpose: Purpose, signature: Signature, sizes: Mapping[str, int], run: Run, repeats: int) -> dict[str, Any]:
    inputs = example_inputs(purpose.variant, signature, sizes)
    started = time.perf_counter()
    outputs = run(inputs)
    first_s = time.perf_counter() - started
    seconds = [seconds_of(lambda: run(inputs)) for _ in range(repeats)] or [first_s]
    return {
        "sizes": dict(sizes),
        "first_s": round(first_s, 6),
        "median_s": round(statistics.median(seconds), 6),
        "finite": all(bool(np.isfinite(each).all()) for each in outputs.values()),
    }


def _held(peak: gpu.Peak) -> int | None:
    """Inside a container the driver may know this process by another number: then what the whole card gained counts."""
    return peak.bytes or peak.card_bytes


class _Warnings(logging.Handler):
    """Keeps what the runner of plans warns of, e.g. of a runtime cache that was not taken."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def __enter__(self) -> _Warnings:
        trt_component.log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        trt_component.log.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


if __name__ == "__main__":
    print(json.dumps(run_here(Trial(**json.loads(sys.argv[1])))))
