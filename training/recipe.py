"""The recipe as data: the stages in their order, and how many steps, pictures and people each takes. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

STAGES: Mapping[str, str] = {
    "face": "who it is, from aligned crops",
    "vae": "pictures <-> latents",
    "decoder": "the decoder alone goes on; may run beside the denoisers",
    "align": "text, picture and face in one space",
    "critic": "from latents, who is shown and what: for the losses of the denoisers",
    "natural": "the face encoder again: natural faces, as the drawn ones of the same people; rendered world only",
    "unet": "the denoiser of the joint encoder: frontal portraits, faces also as photographs show them, eyes and mouths above all",
    "together": "the denoiser again: two and three people in a picture, and wide pictures of one; rendered world only",
    "few_steps": "what is added to the denoiser so that it draws in 4 steps; rendered world only",
    "recogniser": "a judge: who is in a picture",
    "attributes": "a judge: what a picture shows; rendered world only",
    "hats": "a judge: the colour of a hat; rendered world only",
    "base": "a denoiser with face tokens beside the text: the common start of the peers",
    "text_only": "a peer that is shown no face",
    "adapter": "a peer: attention to a face, added to text_only's denoiser",
}
"""Stage -> what it learns, in the order in which a whole training runs; each needs those above it, the judges only the data."""
PEERS = ("base", "text_only", "adapter")
"""Stages of what the joint encoder is compared with: nothing that is served needs them."""
RENDERED_ONLY = ("natural", "together", "few_steps", "attributes", "hats")
"""Stages that learn what nobody knows of photographs."""


@dataclass(frozen=True)
class Recipe:
    """Steps and batches of every stage."""

    identities: int = 1600
    face_steps: int = 1200
    vae_steps: int = 4000
    decoder_steps: int = 6000
    align_steps: int = 1200
    critic_steps: int = 3600
    natural_steps: int = 1600
    unet_steps: int = 10000
    together_steps: int = 2000
    few_steps: int = 1000
    base_steps: int = 4000
    text_only_steps: int = 7000
    adapter_steps: int = 7000
    attribute_steps: int = 2600
    hats_steps: int = 800
    recogniser_steps: int = 1600
    face_batch: int = 64
    natural_batch: int = 64
    vae_batch: int = 8
    vae_patch: int = 64
    align_batch: int = 32
    unet_batch: int = 32
    frontal_identities: int = 4800
    """People whom the denoiser learns from, the others' first."""
    gatherings: int = 4000
    """Pictures of several people, or of one and much of a place."""
    together_batch: int = 12
    few_batch: int = 32
    peer_batch: int = 16
    judge_batch: int = 48
    seed: int = 0
    compiled: bool = False
    """Compile the denoiser; needs a C++ compiler."""


def small(recipe: Recipe, share: float) -> Recipe:
    """The same recipe with every number of steps multiplied by `share`, and no more people than all stages see: for trials."""
    steps = {name: max(2, round(value * share)) for name, value in vars(recipe).items() if name.endswith("_steps")}
    return replace(recipe, **steps, frontal_identities=min(recipe.identities, recipe.frontal_identities))


def steps_of(recipe: Recipe, stage: str) -> int:
    """How many steps a stage takes."""
    return int(getattr(recipe, _field_of(stage)))


def with_steps(recipe: Recipe, stage: str, steps: int) -> Recipe:
    """The recipe with another number of steps of one stage."""
    changed: Mapping[str, Any] = {_field_of(stage): steps}
    return replace(recipe, **changed)


def _field_of(stage: str) -> str:
    names = {"attributes": "attribute", "few_steps": "few"}
    return f"{names.get(stage, stage)}_steps"
