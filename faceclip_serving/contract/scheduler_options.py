"""What a request may say to its scheduler. Not beside the schedules, which variants have: exports follow from those, and not from this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .allowed import Allowed, Between, Flag, JsonObject, OneOf
from .schedules import FLOW_SCHEDULERS

_SIGMAS: Mapping[str, Allowed] = dict.fromkeys(("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"), Flag())
EPSILON_OPTIONS: Mapping[str, Allowed] = {
    **_SIGMAS,
    "timestep_spacing": OneOf(("leading", "linspace", "trailing")),
    "rescale_betas_zero_snr": Flag(),
    "algorithm_type": OneOf(("dpmsolver++", "sde-dpmsolver++")),
    "solver_order": Between(1, 3),
    "final_sigmas_type": OneOf(("zero", "sigma_min")),
}
"""Entries of diffusers' scheduler configurations that a request may set; not every scheduler has each. Few-step checkpoints ask for
`timestep_spacing: trailing`."""
FLOW_OPTIONS: Mapping[str, Allowed] = {**_SIGMAS, "shift": Between(0.01, 100.0)}
LONGEST_OPTIONS = 10_000
"""Of their text, in characters: many times what all of them need."""


def scheduler_options(schedulers: Sequence[str]) -> JsonObject:
    """What a request may say to the schedulers of a variant."""
    return JsonObject(FLOW_OPTIONS if set(schedulers) <= set(FLOW_SCHEDULERS) else EPSILON_OPTIONS, LONGEST_OPTIONS)
