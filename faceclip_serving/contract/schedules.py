"""Noise schedules: diffusers' scheduler classes by name, their construction, and what their timesteps are made from.

Names can be checked without importing diffusers (and torch), which only the sampler's process needs.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np

from .errors import InvalidRequest

EPSILON_SCHEDULERS: Mapping[str, str] = {
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_a",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "UniPCMultistepScheduler": "unipc",
    "DDIMScheduler": "ddim",
    "LCMScheduler": "lcm",
}
"""diffusers class -> short name, for denoisers that predict noise on a discrete diffusion schedule."""

FLOW_SCHEDULERS: Mapping[str, str] = {"FlowMatchEulerDiscreteScheduler": "flow_euler"}
"""diffusers class -> short name, for denoisers that predict the velocity of a straight flow from noise to picture."""

SCHEDULER_SPELLINGS: Mapping[str, str] = {short: name for name, short in {**EPSILON_SCHEDULERS, **FLOW_SCHEDULERS}.items()}
"""Short name -> diffusers class."""

SetTimesteps = Callable[[Mapping[str, Any], int, int, int], dict[str, Any]]
"""(scheduler configuration, steps, height, width in pixels) -> arguments of the scheduler's `set_timesteps`."""


def spaced_by_scheduler(config: Mapping[str, Any], steps: int, height: int, width: int) -> dict[str, Any]:
    """The scheduler spaces the timesteps by itself, whatever the size."""
    return {"num_inference_steps": steps}


_TOKEN_PIXELS = 16
"""Side of an image token of FLUX: 2 x 2 latent cells of 8 x 8 pixels."""


def shifted_by_size(config: Mapping[str, Any], steps: int, height: int, width: int) -> dict[str, Any]:
    """Even noise levels, which the scheduler shifts towards noise by `mu`: the more, the larger the picture.

    `mu` is linear in the number of image tokens, each of 16 x 16 pixels, through two points of the configuration.
    """
    tokens = (height // _TOKEN_PIXELS) * (width // _TOKEN_PIXELS)
    few, many = config["base_image_seq_len"], config["max_image_seq_len"]
    slope = (config["max_shift"] - config["base_shift"]) / (many - few)
    return {"sigmas": np.linspace(1.0, 1.0 / steps, steps), "mu": tokens * slope + config["base_shift"] - slope * few}


FirstStep = Callable[[int, float], int]
"""(steps, strength) -> the first step of a run that starts from a picture; all steps: none is left."""


def whole_steps(steps: int, strength: float) -> int:
    """The last `strength` of the steps, a part of one left out. As diffusers' pipelines of SDXL have it."""
    return steps - min(int(steps * strength), steps)


def begun_steps(steps: int, strength: float) -> int:
    """The last `strength` of the steps, a part of one taken for a whole one. As diffusers' pipelines of FLUX have it."""
    return int(max(steps - min(steps * strength, steps), 0))


def _scheduler_class(name: str) -> Any:
    """A class of diffusers, imported without what would be most of a sampler's start.

    torch's compiler is a third of the time and 70 MB: diffusers takes one decorator from it that no scheduler uses, and does without
    where it is missing. `scipy.stats` is wanted for one option: scipy imports it when it is first named. The metadata of all installed
    packages is read to name the distributions of three quantisers and kernels.
    """
    absent = {
        "torch._dynamo": None,
        "scipy.stats": ModuleType("scipy.stats"),
    }  # None: how Python says that it cannot be imported
    absent = {module: instead for module, instead in absent.items() if module not in sys.modules}
    sys.modules.update(absent)  # type: ignore[arg-type]
    of_all = metadata.packages_distributions
    metadata.packages_distributions = dict
    try:
        import diffusers

        return getattr(diffusers, name)
    finally:
        metadata.packages_distributions = of_all
        for module in absent:
            del sys.modules[module]


def make_scheduler(name: str, config: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> Any:
    """A diffusers scheduler `name` with the entries of `config` that it knows, and `options`, all of which it must know.

    Imports diffusers. Raises `InvalidRequest` for an option that this scheduler has not, or a combination that it refuses.
    """
    options = options or {}
    scheduler_class = _scheduler_class(name)
    known = inspect.signature(scheduler_class.__init__).parameters
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InvalidRequest(
            f"scheduler_options: {name} has no {', '.join(unknown)}; leave that out, or choose another scheduler"
        )
    try:
        return scheduler_class(**{key: value for key, value in {**config, **options}.items() if key in known})
    except (ValueError, NotImplementedError, ImportError) as error:
        raise InvalidRequest(f"scheduler_options: {name} refuses {dict(options)}: {error}") from None
