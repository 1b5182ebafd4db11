"""A request's schedule: found once, and refused where it cannot be run, before anything is drawn by it.

Some combinations of scheduler, options and number of steps are accepted by the scheduler and fail in its middle, or divide by zero.
They are the caller's to change, so they are found before the request joins others.
"""

from __future__ import annotations

import json

import numpy as np

from ..contract.errors import InvalidRequest
from ..contract.parameters import GenerationRequest
from ..contract.schedules import make_scheduler
from ..contract.variants.variant import Variant
from .probe import Schedule, probed

_Key = tuple[str, str, str, str, int, int | None]
"""What a schedule follows from."""


def start_schedule(variant: Variant, request: GenerationRequest, begin: int | None = None) -> Schedule:
    """The schedule of the request. `begin`: its first step where it starts from a picture; None: it starts from noise.

    Raises `InvalidRequest` where diffusers' scheduler cannot reach its last step.
    """
    key = _key(variant, request, begin)
    found = _known.get(key)
    if found is None:
        found = _found(*key)
        while len(_known) >= KNOWN:
            _known.pop(next(iter(_known)), None)
        _known[key] = found
    if isinstance(found, str):
        raise InvalidRequest(found)
    return found


def is_known(variant: Variant, request: GenerationRequest, begin: int | None = None) -> bool:
    """Whether the schedule of the request was found before; another takes up to two seconds."""
    return _key(variant, request, begin) in _known


def _key(variant: Variant, request: GenerationRequest, begin: int | None) -> _Key:
    config, steps = variant.scheduler_config, request.num_inference_steps
    timesteps = variant.timesteps_for(config, steps, request.height, request.width)
    told = (
        json.dumps(each, sort_keys=True, default=np.ndarray.tolist) for each in (config, request.scheduler_options, timesteps)
    )
    config_told, options, timesteps_told = told
    return request.scheduler, config_told, options, timesteps_told, steps, begin


KNOWN = 4096
"""Schedules that are remembered, and why others cannot be run; the oldest is forgotten first."""
_known: dict[_Key, Schedule | str] = {}


def _found(name: str, config: str, options: str, timesteps: str, steps: int, begin: int | None) -> Schedule | str:
    """The schedule, or why it cannot be run. `config`, `options` and `timesteps`, what `set_timesteps` is told, are JSON."""
    what = f"scheduler_options: {name} with {options} and {steps} steps"
    cure = "leave out an option, or choose another scheduler or number of steps"
    try:
        scheduler = make_scheduler(name, json.loads(config), json.loads(options))
    except InvalidRequest as error:
        return str(error)
    try:
        scheduler.set_timesteps(**json.loads(timesteps))
    except ValueError as error:
        return f"num_inference_steps: {name} refuses {steps}: {error}"
    except Exception as error:  # noqa: BLE001 - whatever a scheduler raises, the combination is at fault
        return f"{what} cannot be run ({type(error).__name__}: {error}); {cure}"
    try:
        schedule = probed(scheduler, begin)
    except Exception as error:  # noqa: BLE001 - the same
        return f"{what} cannot be run ({type(error).__name__}: {error}); {cure}"
    return schedule if schedule.finite else f"{what} gives values that are not numbers; {cure}"
