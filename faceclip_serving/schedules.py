"""Noise schedules: diffusers' scheduler classes by name, and their construction from a variant's configuration.

Names can be checked without importing diffusers (and torch), which only the sampler's process needs.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

EPSILON_SCHEDULERS: Mapping[str, str] = {
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_a",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "UniPCMultistepScheduler": "unipc",
    "DDIMScheduler": "ddim",
    "LCMScheduler": "lcm",
}
"""diffusers class -> short name, for denoisers that predict noise on a discrete diffusion schedule."""


def resolve_scheduler(name: str) -> str | None:
    """The diffusers class name for a class name or a short name; None if unknown."""
    if name in EPSILON_SCHEDULERS:
        return name
    return next((full for full, short in EPSILON_SCHEDULERS.items() if short == name.lower()), None)


def make_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """A diffusers scheduler `name` with the entries of `config` that it knows. Imports diffusers."""
    import diffusers

    scheduler_class = getattr(diffusers, name)
    known = inspect.signature(scheduler_class.__init__).parameters
    return scheduler_class(**{key: value for key, value in config.items() if key in known})
