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
    "base": "a denoiser with face tokens beside the text: the common start of the next three",
    "unet": "the denoiser of the joint encoder: what is served",
    "natural": "the face encoder again: natural faces, as the drawn ones of the same people; rendered world only",
    "finish": "the denoiser again: frontal portraits, every hat and expression, faces also as photographs show them",
    "details": "the denoiser again: eyes and mouths, of three times as many people; rendered world only",
    "together": "the denoiser again: two and three people in a picture, and wide pictures of one; rendered world only",
    "few_steps": "what is added to the denoiser so that it draws in 4 steps; rendered world only",
    "text_only": "a peer that is shown no face",
    "adapter": "a peer: attention to a face, added to text_only's denoiser",
    "recogniser": "a judge: who is in a picture",
    "attributes": "a judge: what a picture shows; rendered world only",
    "hats": "a judge: the colour of a hat; rendered world only",
}
"""Stage -> what it learns, in the order in which a whole training runs; each needs those above it, the last three only the data."""
RENDERED_ONLY = ("natural", "finish", "details", "together", "few_steps", "attributes", "hats")
"""Stages that learn what nobody knows of photographs."""


@dataclass(frozen=True)
class Recipe:
    """Steps and batches of every stage. After their common start, `base`, the denoiser of the joint encoder learns as long as that of
    `text_only` and then the adapter's attention to it."""

    identities: int = 1600
    face_steps: int = 1200
    vae_steps: int = 4000
    decoder_steps: int = 6000
    align_steps: int = 800
    critic_steps: int = 3600
    base_steps: int = 4000
    unet_steps: int = 14000
    natural_steps: int = 1600
    finish_steps: int = 1460
    details_steps: int = 2110
    together_steps: int = 4000
    few_steps: int = 2240
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
    unet_batch: int = 16
    finish_batch: int = 256
    details_batch: int = 64
    details_identities: int = 4800
    gatherings: int = 4000
    """Pictures of several people, or of one and much of a place."""
    together_batch: int = 12
    few_batch: int = 128
    judge_batch: int = 48
    seed: int = 0
    compiled: bool = False
    """Compile the denoiser; needs a C++ compiler."""


def small(recipe: Recipe, share: float) -> Recipe:
    """The same recipe with every number of steps multiplied by `share`, and no more people than all stages see: for trials."""
    steps = {name: max(2, round(value * share)) for name, value in vars(recipe).items() if name.endswith("_steps")}
    return replace(recipe, **steps, details_identities=min(recipe.identities, recipe.details_identities))


def with_steps(recipe: Recipe, stage: str, steps: int) -> Recipe:
    """The recipe with another number of steps of one stage."""
    names = {"attributes": "attribute", "few_steps": "few"}
    changed: Mapping[str, Any] = {f"{names.get(stage, stage)}_steps": steps}
    return replace(recipe, **changed)
