"""A server, a client and the denoiser in one process: requests at once, against what the denoiser alone would need for them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from export.onnx.example_inputs import example_inputs
from faceclip_serving.contract.components import bounds, components
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.placements import Placement
from faceclip_serving.contract.tensors import Array
from faceclip_serving.contract.variants.variant import Variant
from server.metrics import read_metrics

from ..measure.sleeping import Sleep
from ..measure.sleeping_denoiser import predict
from ..measure.timing import seconds_of

if TYPE_CHECKING:
    from faceclip import FaceCLIPOutput, FaceCLIPPipeline
    from server.process import TritonServer

ROWS_PER_PICTURE = 2
MIN_STEP_S = 0.03
COUNTERS = ("ticks_total", "denoiser_rows_total", "denoiser_seconds_total", "scheduler_seconds_total", "request_steps_total")
SAME_DB = 50
"""Batches of other sizes round differently in the last bits: above this it is the same picture."""


class Bench:
    """One server, one client, one size, and the denoiser in this process."""

    def __init__(
        self,
        variant: Variant,
        placement: Placement,
        server: TritonServer,
        pipe: FaceCLIPPipeline,
        steps: int,
        sleep: Sleep | None = None,
    ) -> None:
        from faceclip_serving.models.onnx_component import OnnxComponent

        self.variant, self.server, self.pipe, self.steps, self.sleep = variant, server, pipe, steps, sleep
        self.max_rows = placement.denoiser_rows
        runtime = placement.components[DENOISER].runtime
        self.denoiser = OnnxComponent(
            server.repository / placement.folder(DENOISER) / runtime.artifact,
            components(variant)[DENOISER],
            runtime.providers,
            bounds(variant, placement.denoiser_rows)[DENOISER],
        )
        self.side, self.step_s = self._size()

    def _size(self) -> tuple[int, float]:
        """The smallest square picture whose step takes `MIN_STEP_S`, and that time."""
        low, high = self.variant.limits.height
        side = max(low, 64)
        if self.sleep is not None:
            return side, self.denoise_s(ROWS_PER_PICTURE, side, repeats=5)
        while (seconds := self.denoise_s(ROWS_PER_PICTURE, side, repeats=5)) < MIN_STEP_S and side < high:
            side += 32
        return side, seconds

    def denoise_s(self, rows: int, side: int, repeats: int) -> float:
        """Median seconds of one denoiser call of so many rows in this process."""
        cells = side // self.variant.latent_scale
        signature = components(self.variant)[DENOISER]
        inputs = example_inputs(self.variant, signature, {"rows": rows, "latent_height": cells, "latent_width": cells})
        run: Callable[[Mapping[str, Array]], Mapping[str, Array]] = self.denoiser.run
        if self.sleep is not None:
            run = partial(predict, **asdict(self.sleep))
        run(inputs)
        return statistics.median(seconds_of(lambda: run(inputs)) for _ in range(repeats))

    def ask(self, seed: int, steps: int | None = None, **options: Any) -> FaceCLIPOutput:
        """One request; its pictures are files."""
        return self.pipe(
            "a portrait",
            seed=seed,
            num_inference_steps=steps or self.steps,
            height=self.side,
            width=self.side,
            output_type="bytes",
            **options,
        )

    def generate(self, seed: int, steps: int | None = None, **options: Any) -> bytes:
        """The picture of one request."""
        return bytes(self.ask(seed, steps, **options).images[0])

    def metrics(self) -> dict[str, float]:
        return read_metrics(f"127.0.0.1:{self.server.ports.metrics}")

    def settle(self) -> dict[str, float]:
        """Metrics once nothing runs any more; the sampler tells them four times a second."""
        before = self.metrics()
        while True:
            time.sleep(max(0.3, 4 * self.step_s))
            now = self.metrics()
            if now.get("faceclip_ticks_total") == before.get("faceclip_ticks_total"):
                return now
            before = now


_Request = TypeVar("_Request")


def under_load(
    bench: Bench, clients: int, requests: Sequence[_Request], one: Callable[[_Request], object], ideal_s: Callable[[], float]
) -> dict[str, float]:
    """Requests by so many clients at once, each of which takes the next. `one` makes a request, of one picture; `ideal_s`: the seconds
    that all would take at best, asked right before and after."""
    ideal = [ideal_s()]
    before = bench.settle()
    with ThreadPoolExecutor(clients) as callers:
        seconds = seconds_of(lambda: list(callers.map(one, requests)))
    after = bench.settle()
    ideal.append(ideal_s())
    done = {name: after[f"faceclip_{name}"] - before.get(f"faceclip_{name}", 0.0) for name in COUNTERS}
    return {
        "images_per_s": len(requests) / seconds,
        "over_ideal": statistics.mean(ideal) / seconds,
        "mean_rows_per_tick": done["denoiser_rows_total"] / done["ticks_total"],
        "denoiser_rows": done["denoiser_rows_total"],
        "scheduler_us_per_request_step": done["scheduler_seconds_total"] / done["request_steps_total"] * 1e6,
        "denoiser_s": done["denoiser_seconds_total"],
        "wall_s": seconds,
    }
