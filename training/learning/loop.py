"""One training loop for every stage: seeded by step, resumable at any moment, averaged weights, loss curves as a picture.

A stage gives modules and a function step -> loss terms. Random numbers of a step depend on the seed and the step alone, so a run
that stopped and resumed makes the same weights as one that did not. Knows nothing of faces or pictures.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from export.outputs import replacing

from .. import device
from ..errors import TrainingError

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
    stage: Stage,
    folder: Path,
    stop_after_s: float | None = None,
    report_every: int = 20,
    stop_at: int | None = None,
    began: float | None = None,
) -> nn.ModuleDict:
    """Trains from the last checkpoint in `folder`, if any, and returns the modules with their averaged weights.

    `stop_after_s`, `stop_at`: leave after so many seconds, or once so many steps are done, with a checkpoint from which the same
    call goes on. `began`: when it was begun to make the stage, by the monotonic clock, which counts as its time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training = _Training(stage, folder)
    recent: list[dict[str, float]] = []
    saved_at = time.monotonic()
    started = saved_at if began is None else began
    before = training.seconds
    while training.step < stage.steps:
        recent.append(training.advance())
        now = time.monotonic()
        training.seconds = before + now - started
        if training.step % report_every == 0 or training.step == stage.steps:
            training.report(recent)
            recent = []
        if (stop_after_s is not None and now - started > stop_after_s) or training.step == stop_at:
            break
        if now - saved_at > _SAVE_EVERY_S:
            training.save()
            saved_at = now
    training.save()
    stage.modules.load_state_dict(training.averages.module.state_dict())
    return stage.modules.eval()


class _Training:
    """A stage under way: all that its checkpoint, `<stage>.pt`, holds."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage, self.file = stage, folder / f"{stage.name}.pt"
        self.parameters = [p for p in stage.modules.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )
        self.averages = AveragedModel(stage.modules, multi_avg_fn=_average(stage.average), use_buffers=True)
        self.history: list[dict[str, float]] = []
        self.step, self.seconds = 0, 0.0
        if self.file.exists():
            self._resume()
        self.averages.n_averaged.fill_(self.step + 1)  # the weights it started from are the first of the average
        stage.modules.train()

    def _resume(self) -> None:
        try:
            saved = device.load(self.file)
            if "optimiser" not in saved:
                raise TrainingError(
                    f"stage '{self.stage.name}': {self.file} was adopted, and is done; to train it anew, delete it"
                )
            self.stage.modules.load_state_dict(saved["modules"])
            self.averages.module.load_state_dict(saved["averages"])
            self.optimiser.load_state_dict(saved["optimiser"])
            self.history, self.step = saved["history"], saved["step"]
            self.seconds = saved.get("seconds", 0.0)
        except (RuntimeError, ValueError, LookupError, TypeError, UnpicklingError) as error:
            raise TrainingError(
                f"stage '{self.stage.name}': {self.file} is of other networks or of another number of people; give another folder,"
                f" or delete it and train the stage anew ({str(error).splitlines()[-1].strip()})"
            ) from error

    def save(self) -> None:
        state = {
            "modules": self.stage.modules.state_dict(),
            "averages": self.averages.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        with replacing(self.file) as partial:
            torch.save({**state, "history": self.history, "step": self.step, "seconds": self.seconds}, partial)
        if self.history:
            plot(self.history, self.file.with_suffix(".png"))

    def advance(self) -> dict[str, float]:
        """One step; returns its loss terms."""
        torch.manual_seed(self.stage.seed * 1_000_003 + self.step)
        self.optimiser.param_groups[0]["lr"] = self.stage.learning_rate * _rate(self.step, self.stage)
        losses = self.stage.losses(self.step)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise TrainingError(
                f"{self.stage.name}: step {self.step}: the loss is {float(total.detach())}; lower the learning rate"
            )
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.averages.update_parameters(self.stage.modules)
        self.step += 1
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def report(self, recent: Sequence[Mapping[str, float]]) -> None:
        """The mean of each loss term over the `recent` steps, to the history and to stdout."""
        means = {name: sum(terms[name] for terms in recent) / len(recent) for name in recent[-1]}
        self.history.append({"step": self.step, **means})
        rounded = {name: round(value, 5) for name, value in self.history[-1].items()}
        print(json.dumps({"stage": self.stage.name, "seconds": round(self.seconds, 1), **rounded}), flush=True)


def is_done(stage: str, steps: int, folder: Path) -> bool:
    """Whether a stage's checkpoint has so many steps."""
    file = folder / f"{stage}.pt"
    try:
        saved = torch.load(file, weights_only=True, mmap=True, map_location="cpu")
        return int(saved.get("step", 0)) >= steps
    except (OSError, RuntimeError, UnpicklingError):  # missing, or `run` tells what is wrong with it
        return False


def _rate(step: int, stage: Stage) -> float:
    """The learning rate of a step, as a share of the stage's."""
    remaining = (stage.steps - step) / max(1.0, stage.steps * stage.cool_down)
    return min(1.0, (step + 1) / stage.warm_up) * (0.02 + 0.98 * min(1.0, remaining))


def _average(decay: float) -> Callable[..., None]:
    """The moving average of `AveragedModel`, whose decay rises to `decay`: early weights are soon forgotten."""

    def update(averages: list[Tensor], values: list[Tensor], count: Tensor) -> None:
        if averages[0].is_floating_point():
            step = get_ema_multi_avg_fn(min(decay, int(count) / (int(count) + 9)))  # type: ignore[no-untyped-call]
            step(averages, values, count)
        else:
            torch._foreach_copy_(averages, values)  # counts and indices, which an average would round down

    return update


def plot(history: Sequence[Mapping[str, float]], file: Path) -> None:
    """Loss curves over steps, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    for name in sorted(history[-1].keys() - {"step"}):
        rows = [row for row in history if name in row]
        values = [row[name] for row in rows]
        label = f"{name} {values[-1]:.4g} (best {min(values):.4g})"
        axes.plot([row["step"] for row in rows], values, label=label)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend(fontsize="small")
    with replacing(file) as partial:
        figure.savefig(partial)
