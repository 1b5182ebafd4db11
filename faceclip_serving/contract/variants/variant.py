"""What a servable model consists of, as a type: its networks, its tensors, its token ids, its defaults and limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..schedules import FirstStep, SetTimesteps
from ..tensors import Array, Range, Tensor
from .architectures import FluxArchitecture, SDXLArchitecture


@dataclass(frozen=True)
class Tokens:
    """How one tokenizer's ids are made from a prompt."""

    input: str
    """Name of the text encoder's input that takes these ids."""
    tokenizer: str
    """File beside the `prepare` model: a Hugging Face `tokenizer.json`."""
    max_tokens: int
    begin: int | None
    """None: texts begin with their first word."""
    end: int
    padding: int
    face_prefix: str = ""
    """Put before the prompt when a face is given."""
    identity_token: int | None = None
    """Id of the word that the face replaces; None: faces replace no word."""
    identity_window: int = 7
    """Only ids in the first so many positions are replaced."""
    source: str = "tokenizer"
    """Folder of the tokenizer's files: beside the weights, or in export/assets where these are stand-ins."""
    reader: str = ""
    """Name of the text tower, for messages; empty where the variant has only one."""
    words: tuple[int, int] | None = None
    """Smallest and largest id of a word; None: from 1 until the begin and end tokens, as CLIP numbers them."""


@dataclass(frozen=True)
class Defaults:
    height: int
    width: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: str = "EulerDiscreteScheduler"
    negative_prompt: str = (
        "nude, worst quality, low quality, normal quality, nsfw, abnormal, glasses, mutated, blurry, watermark"
    )
    strength: float = 0.3
    """How much of a picture that came is drawn anew."""
    mask_strength: float = 0.9999
    """The same within a mask. Below 1, since at 1 nothing of the picture is left within it."""


@dataclass(frozen=True)
class Limits:
    """Accepted ranges, both ends included."""

    height: tuple[int, int]
    """Pixels."""
    width: tuple[int, int]
    size_multiple: int = 8
    num_inference_steps: tuple[int, int] = (1, 200)
    guidance_scale: tuple[float, float] = (0.0, 20.0)
    num_images_per_prompt: int = 4
    faces: int = 4
    chunks: int = 1
    """Pieces of as many tokens as the text encoder takes that a prompt is read in, at most."""
    step_cache: tuple[float, float] = (0.0, 1.0)
    """Thresholds of `step_cache`; (0, 0) forbids it."""

    @property
    def largest(self) -> tuple[int, int]:
        """Height and width of the largest picture, pixels."""
        return self.height[1], self.width[1]


@dataclass(frozen=True)
class Licence:
    """What the weights of a variant may be used for. It binds whoever uses them, and is no legal advice."""

    names: Mapping[str, str]
    """What is licensed -> the name of its licence."""
    commercial: bool
    """Whether all of them allow commercial use."""

    @property
    def text(self) -> str:
        """All in one line."""
        return "; ".join(f"{what}: {name}" for what, name in self.names.items())

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"names": dict(self.names), "commercial": self.commercial}


OWN_WEIGHTS = Licence({"weights": "Apache-2.0"}, commercial=True)
"""Of weights that this project made."""


@dataclass(frozen=True)
class Variant:
    name: str
    architecture: SDXLArchitecture | FluxArchitecture
    weights: str
    """`checkpoint` (official files or a folder of the same layout), `committed` (in this project, `weights/<name>`) or `seeded`
    (deterministic stand-ins for tests)."""
    tokens: tuple[Tokens, ...]
    face_features: tuple[Tensor, ...]
    """What the face encoder finds; the first says who it is."""
    fused_features: tuple[Tensor, ...]
    """Those of them that the text encoder reads."""
    conditioning: tuple[Tensor, ...]
    """What the text encoder hands to the denoiser, one row per (face, prompt) pair."""
    extras: tuple[Tensor, ...]
    """Further denoiser inputs, computed per request."""
    extras_for: Callable[[int, int], dict[str, Array]]
    """(height, width) in pixels -> the extras of one row, each [1, ...]."""
    latent_channels: int
    latent_scale: int
    """Pixels per latent cell, each way."""
    schedulers: tuple[str, ...]
    """diffusers classes that fit the denoiser's prediction."""
    scheduler_config: Mapping[str, Any]
    timesteps_for: SetTimesteps
    """What a scheduler is told to make its timesteps from."""
    first_step: FirstStep
    """Where a run begins that starts from a picture."""
    defaults: Defaults
    limits: Limits
    licence: Licence

    @property
    def text_tokens(self) -> Tokens:
        """Whose places are those of `conditioning[0]`, which has an embedding for each token; the rest is of the whole text."""
        return self.tokens[-1]

    @property
    def latent_multiple(self) -> int:
        """Latent cells per side come in multiples of this."""
        return max(1, self.limits.size_multiple // self.latent_scale)

    @property
    def identity(self) -> Tensor:
        """The face feature that says who it is: unit vectors, [faces, branches, classes]."""
        return self.face_features[0]

    @property
    def latent_height(self) -> Range:
        """Latent cells from top to bottom."""
        return self._cells(self.limits.height, self.defaults.height)

    @property
    def latent_width(self) -> Range:
        """Latent cells from left to right."""
        return self._cells(self.limits.width, self.defaults.width)

    def _cells(self, pixels: tuple[int, int], usual: int) -> Range:
        low, high = pixels
        return Range(low // self.latent_scale, usual // self.latent_scale, high // self.latent_scale)
