"""One training loop for every stage: seeded by step, resumable at any moment, averaged weights, loss curves as a picture.

A stage gives modules and a function step -> loss terms. Random numbers of a step depend on the seed and the step alone, so a run
that stopped and resumed makes the same weights as one that did not. Knows nothing of faces or pictures.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from . import device

Losses = Mapping[str, Tensor]
_SAVE_EVERY_S = 60.0


@dataclass(frozen=True)
class Stage:
    name: str
    modules: nn.ModuleDict
    """What is trained; parameters that do not require gradients stay as they are."""
    losses: Callable[[int], Losses]
    """Step -> named terms; their sum is minimised."""
    steps: int
    learning_rate: float
    warm_up: int = 50
    cool_down: float = 0.25
    """Share of the steps, at the end, over which the learning rate falls to 2 %."""
    average: float = 0.995
    """Decay of the exponential moving average that is the stage's result."""
    seed: int = 0


def run(
    stage: Stage, folder: Path, stop_after_s: float | None = None, report_every: int = 20, stop_at: int | None = None
) -> nn.ModuleDict:
    """Trains from the last checkpoint in `folder`, if any, and returns the modules with their averaged weights.

    `stop_after_s`, `stop_at`: leave after so many seconds, or once so many steps are done, with a checkpoint from which the same
    call goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{stage.name}.pt"
    parameters = [p for p in stage.modules.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    averages = {name: value.detach().clone() for name, value in stage.modules.state_dict().items()}
    history: list[dict[str, float]] = []
    first = 0
    if file.exists():
        saved = device.load(file)
        stage.modules.load_state_dict(saved["modules"])
        optimiser.load_state_dict(saved["optimiser"])
        averages, history, first = saved["averages"], saved["history"], saved["step"]

    def save(step: int) -> None:
        state = {"modules": stage.modules.state_dict(), "optimiser": optimiser.state_dict(), "averages": averages}
        torch.save({**state, "history": history, "step": step}, file.with_suffix(".part"))
        file.with_suffix(".part").rename(file)
        if history:
            plot(history, folder / f"{stage.name}.png")

    frozen = {name for name, parameter in stage.modules.named_parameters() if not parameter.requires_grad}
    changing = [(averages[name], value) for name, value in stage.modules.state_dict().items() if name not in frozen]
    started = saved_at = time.monotonic()
    terms: dict[str, float] = {}
    stage.modules.train()
    step = first
    while step < stage.steps:
        torch.manual_seed(stage.seed * 1_000_003 + step)
        for group in optimiser.param_groups:
            group["lr"] = stage.learning_rate * _rate(step, stage)
        losses = stage.losses(step)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise FloatingPointError(f"{stage.name}: step {step}: the loss is {float(total.detach())}; lower the learning rate")
        optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        decay = min(stage.average, (1 + step) / (10 + step))
        for average, value in changing:
            if value.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)
        for name, loss in losses.items():
            terms[name] = terms.get(name, 0.0) + float(loss.detach())
        step += 1
        now = time.monotonic()
        if step % report_every == 0 or step == stage.steps:
            count = (step - 1) % report_every + 1
            history.append({"step": step, **{name: value / count for name, value in terms.items()}})
            terms = {}
            print(json.dumps({"stage": stage.name, "elapsed_s": round(now - started, 1), **_rounded(history[-1])}), flush=True)
        late = (stop_after_s is not None and now - started > stop_after_s) or step == stop_at
        if now - saved_at > _SAVE_EVERY_S or late:
            save(step)
            saved_at = now
        if late:
            break
    save(step)
    stage.modules.load_state_dict(averages)
    return stage.modules.eval()


def _rate(step: int, stage: Stage) -> float:
    remaining = (stage.steps - step) / max(1.0, stage.steps * stage.cool_down)
    return min(1.0, (step + 1) / stage.warm_up) * (0.02 + 0.98 * min(1.0, remaining))


def _rounded(row: Mapping[str, float]) -> dict[str, Any]:
    return {name: round(value, 5) for name, value in row.items()}


def plot(history: list[dict[str, float]], file: Path) -> None:
    """Loss curves over steps, each term scaled to its own range (logarithmic), as a PNG."""
    picture = np.full((360, 720, 3), 255, np.uint8)
    colours = [(180, 90, 40), (60, 60, 200), (60, 150, 60), (160, 60, 150), (40, 150, 200), (90, 90, 90)]
    steps = np.array([row["step"] for row in history])
    x = 50 + 640 * steps / max(1.0, steps.max())
    for i, name in enumerate(name for name in history[-1] if name != "step"):
        values = np.array([row.get(name, math.nan) for row in history])
        level = np.log(np.maximum(np.abs(values), 1e-6))
        span = max(1e-6, float(np.nanmax(level) - np.nanmin(level)))
        y = 320 - 280 * (level - np.nanmin(level)) / span
        cv2.polylines(picture, [np.stack([x, y], 1).astype(np.int32)], False, colours[i % 6], 2, cv2.LINE_AA)
        label = f"{name} {values[-1]:.4g} (best {np.nanmin(values):.4g})"
        cv2.putText(picture, label, (330, 30 + 18 * i), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colours[i % 6], 1, cv2.LINE_AA)
    cv2.putText(picture, f"steps: {int(steps[-1])}", (50, 345), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.imwrite(str(file), picture)
