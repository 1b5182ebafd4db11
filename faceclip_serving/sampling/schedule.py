"""A request's schedule: made, and tried out before anything is drawn by it.

Some combinations of scheduler, options and number of steps are accepted by the scheduler and fail in its middle, or divide by zero.
They are the caller's to change, so they are found before the request joins others.
"""

from __future__ import annotations

import inspect
import json
from functools import lru_cache
from typing import Any

import torch

from ..contract.errors import InvalidRequest
from ..contract.parameters import GenerationRequest
from ..contract.schedules import SetTimesteps, make_scheduler
from ..contract.variant import Variant


def start_schedule(variant: Variant, request: GenerationRequest) -> Any:
    """A diffusers scheduler at the first step of the request. Raises `InvalidRequest` where it cannot reach the last one."""
    config, options = (json.dumps(each, sort_keys=True) for each in (variant.scheduler_config, request.scheduler_options))
    wanted = (
        request.scheduler,
        config,
        options,
        variant.timesteps_for,
        request.num_inference_steps,
        request.height,
        request.width,
    )
    refusal = _refusal(*wanted)
    if refusal is not None:
        raise InvalidRequest(refusal)
    return _scheduler(*wanted)


def step_arguments(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    """What the scheduler's `step` takes besides its tensors."""
    return {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}


def _scheduler(name: str, config: str, options: str, timesteps_for: SetTimesteps, steps: int, height: int, width: int) -> Any:
    """`config` and `options`: JSON."""
    found = json.loads(config)
    scheduler = make_scheduler(name, found, json.loads(options))
    try:
        scheduler.set_timesteps(**timesteps_for(found, steps, height, width))
    except ValueError as error:
        raise InvalidRequest(f"num_inference_steps: {name} refuses {steps}: {error}") from None
    return scheduler


@lru_cache(maxsize=1024)
def _refusal(
    name: str, config: str, options: str, timesteps_for: SetTimesteps, steps: int, height: int, width: int
) -> str | None:
    """Why the schedule cannot be run, found by running it on one cell; None: it can."""
    what = f"scheduler_options: {name} with {options} and {steps} steps"
    cure = "leave out an option, or choose another scheduler or number of steps"
    try:
        scheduler = _scheduler(name, config, options, timesteps_for, steps, height, width)
        sample = torch.ones(1, 1, 1, 1) * getattr(scheduler, "init_noise_sigma", 1.0)
        arguments = step_arguments(scheduler, torch.Generator().manual_seed(0))
        scale = getattr(
            scheduler, "scale_model_input", lambda sample, timestep: sample
        )  # else a step warns, in the server's log
        for timestep in scheduler.timesteps:
            scale(sample, timestep)
            sample = scheduler.step(torch.zeros_like(sample), timestep, sample, **arguments, return_dict=False)[0]
    except InvalidRequest as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever a scheduler raises, the combination is at fault
        return f"{what} cannot be run ({type(error).__name__}: {error}); {cure}"
    return None if torch.isfinite(sample).all() else f"{what} gives values that are not numbers; {cure}"
