"""Calls that diffusers users make out of habit, and that mean nothing here: the model runs on a server.

Each says so in a warning, instead of failing or of doing nothing in silence, and returns what diffusers returns.
"""

from __future__ import annotations

import warnings
from typing import Any, NoReturn, TypeVar

_Self = TypeVar("_Self", bound="DiffusersHabits")

_SCHEDULER = (
    "scheduler is an argument of each call here: pipe(prompt, scheduler='EulerDiscreteScheduler'); see pipe.config.schedulers"
)


def warn_not_here(call: str, why: str = "device, precision and memory are the server's choice: its placement") -> None:
    """Warns the caller of the method that calls this."""
    warnings.warn(f"{call} has no effect on a remote pipeline; {why}", UserWarning, stacklevel=3)


class DiffusersHabits:
    """No-ops with a warning."""

    def to(self: _Self, *args: Any, **kwargs: Any) -> _Self:
        """No effect, with a warning: the server's placement places the model."""
        warn_not_here("to()")
        return self

    def enable_attention_slicing(self, slice_size: Any = None) -> None:
        """No effect, with a warning: the server's placement decides about memory."""
        warn_not_here("enable_attention_slicing()")

    def enable_model_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        """No effect, with a warning: the server's placement decides about memory."""
        warn_not_here("enable_model_cpu_offload()")

    def enable_sequential_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        """No effect, with a warning: the server's placement decides about memory."""
        warn_not_here("enable_sequential_cpu_offload()")

    def enable_vae_tiling(self) -> None:
        """No effect, with a warning: the server's placement decides about memory."""
        warn_not_here("enable_vae_tiling()")

    def enable_vae_slicing(self) -> None:
        """No effect, with a warning: the server's placement decides about memory."""
        warn_not_here("enable_vae_slicing()")

    def enable_xformers_memory_efficient_attention(self, *args: Any, **kwargs: Any) -> None:
        """No effect, with a warning: the server's engines decide about attention."""
        warn_not_here("enable_xformers_memory_efficient_attention()")

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """No effect, with a warning: this client draws no bar of its own."""
        warn_not_here("set_progress_bar_config()", "for progress pass callback_on_step_end=, or iterate over pipe.stream()")

    @property
    def scheduler(self) -> NoReturn:
        """Not an attribute here: an argument of each call."""
        raise AttributeError(_SCHEDULER)

    @scheduler.setter
    def scheduler(self, value: Any) -> NoReturn:
        raise AttributeError(_SCHEDULER)
