"""The parameters of a request, each declared once.

From this table follow the inputs of the public models, the checks and their messages (request.py), what clients are told
(`interface`), and, rendered by `python -m export interface`, the client's keywords and command-line flags and docs/parameters.md.
Names are diffusers'. To add a parameter, add its line here, obey it where it acts, and render.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any

from .allowed import Allowed, Between, Box, Boxes, File, Files, Flag, Moment, OneOf, Several, Text
from .consent import ConsentRecord
from .marks import LABELS
from .people import MOST_PEOPLE, People
from .scheduler_options import scheduler_options
from .schedules import SCHEDULER_SPELLINGS
from .tensors import DType, Tensor
from .variants.variant import Variant

MAX_SEED = 2**63 - 1
RANDOM_SEEDS = 2**52
"""Random seeds are below. JavaScript, and whatever else reads JSON's numbers as doubles, can then repeat seed and seed + i."""
MAX_CHARACTERS = 10_000
MAX_TENANT = 64
MASKS = ("none", "face", "head")
"""What the parts of a picture are called that the server finds by itself."""
MAX_PADDING = 4096
MAX_FACE_INDEX = 99
DEFAULT_ID_GUIDANCE_SCALE = 3.0
"""Weight of the face when only the text's is given."""


class Default(Enum):
    """Defaults that are no value."""

    REQUIRED = "required"
    RANDOM = "random, reported"
    NONE = "none"


class Need(Enum):
    """What must hold in a request for a parameter to have an effect, in the words of a warning."""

    FACE = "a photograph: there are no face_images, and no identity"
    PHOTOGRAPH = "a photograph: there are no face_images"
    FOUND = "a photograph whose faces are looked for: there are no face_images, or face_aligned is set"
    FACES = "several photographs: face_images has fewer than two"
    GUIDANCE = "guidance, which is off: guidance_scale (or text_guidance_scale) is at most 1, or its interval is empty"
    SCALES = "a scale that guides, and there is none: set guidance_scale above 1"
    NO_TEXT_SCALE = "text_guidance_scale to be left out, which takes its place"
    SOMEBODY = "a photograph: there are no face_images, no identity, and no image"
    IMAGE = "a picture to change: there is no image"
    MASK = "a mask: mask is none, and there is no mask_image"
    NAMED_MASK = "mask to be face or head"


OfVariant = Callable[[Variant], Any]
"""What a variant decides."""


@dataclass(frozen=True)
class Parameter:
    name: str
    dtype: DType
    default: Any
    """A value, a `Default`, or a function of the variant."""
    allowed: Allowed | Callable[[Variant], Allowed]
    doc: str
    """One sentence, for every documentation."""
    short: tuple[str, ...] = ()
    """Shorter names on a command line; one letter: with one dash."""
    axes: tuple[int | str, ...] = (1,)
    needs: Need | None = None
    """Without it the parameter has no effect, and whoever sets it is warned."""

    @property
    def tensor(self) -> Tensor:
        """Its tensor. Optional to Triton, so that a missing one is reported in words instead of by a count of tensors."""
        return Tensor(self.name, self.dtype, self.axes, self.doc, optional=True)

    def default_of(self, variant: Variant) -> Any:
        """What a request of this variant has where it says nothing; drawn anew where that is random."""
        if self.default is Default.RANDOM:
            return secrets.randbelow(RANDOM_SEEDS)
        if self.default is Default.REQUIRED:
            return ""
        if self.default is Default.NONE:
            return None
        return self.default(variant) if callable(self.default) else self.default

    def allowed_of(self, variant: Variant) -> Allowed:
        return self.allowed(variant) if callable(self.allowed) else self.allowed


def _parameter(
    dtype: DType, default: Any, allowed: Any, doc: str, *short: str, needs: Need | None = None, count: int | str = 1
) -> Any:
    """A field of `GenerationRequest`. `count`: of its values, or the name of that axis."""
    return field(metadata={"declared": Parameter("", dtype, default, allowed, doc, short, (count,), needs)})


def _side(name: str, doc: str) -> Any:
    def allowed(variant: Variant) -> Between:
        low, high = getattr(variant.limits, name)
        return Between(low, high, variant.limits.size_multiple, "pixels")

    return _parameter(DType.INT32, lambda v: getattr(v.defaults, name), allowed, doc)


def _fraction(default: float, doc: str, needs: Need) -> Any:
    return _parameter(DType.FP32, default, Between(0.0, 1.0), doc, needs=needs)


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """A request that passed every check, defaults filled in; each field declares a parameter."""

    prompt: str = _parameter(
        DType.BYTES, Default.REQUIRED, Text(MAX_CHARACTERS, "portrait, studio light"), "what the picture shows, in English"
    )
    negative_prompt: str = _parameter(
        DType.BYTES,
        lambda v: v.defaults.negative_prompt,
        Text(MAX_CHARACTERS),
        "what the picture should not show; may be empty",
        "negative",
        needs=Need.GUIDANCE,
    )
    original_prompt: str = _parameter(
        DType.BYTES, "", Text(MAX_CHARACTERS),
        "what was put into English before it was sent: the checks read it too, and no network does",
    )  # fmt: skip
    prompt_weighting: bool = _parameter(
        DType.BOOL, True, Flag(),
        "brackets in prompts are weights: (hat:1.3), (hat) for 1.1, [hat] for 1/1.1; \\( is a bracket itself; false: all are text",
    )  # fmt: skip
    long_prompts: bool = _parameter(
        DType.BOOL, True, Flag(),
        "prompts beyond the tokens of one row are read in several, where the model can; BREAK begins one; false: the rest is left out",
    )  # fmt: skip
    seed: int = _parameter(
        DType.INT64, Default.RANDOM, Between(0, MAX_SEED), "repeats a picture; picture i of a request uses seed + i"
    )
    num_inference_steps: int = _parameter(
        DType.INT32, lambda v: v.defaults.num_inference_steps, lambda v: Between(*v.limits.num_inference_steps),
        "denoising steps", "steps"
    )  # fmt: skip
    guidance_scale: float = _parameter(
        DType.FP32, lambda v: v.defaults.guidance_scale, lambda v: Between(*v.limits.guidance_scale),
        "how closely to follow the prompt; at or below 1 only the conditional branch runs", "guidance",
        needs=Need.NO_TEXT_SCALE,
    )  # fmt: skip
    id_guidance_scale: float | None = _parameter(
        DType.FP32, Default.NONE, Between(0.0, 5.0),
        f"split guidance: weight of the face; {DEFAULT_ID_GUIDANCE_SCALE} where only text_guidance_scale is given", "id-guidance",
        needs=Need.FACE,
    )  # fmt: skip
    text_guidance_scale: float | None = _parameter(
        DType.FP32, Default.NONE, Between(0.0, 20.0),
        "split guidance: weight of the text; guidance_scale where only id_guidance_scale is given", "text-guidance"
    )  # fmt: skip
    blend_weight: float = _fraction(1.0, "conditioning between the prompt without (0) and with (1) the face", Need.FACE)
    guidance_start: float = _fraction(0.0, "share of the steps where guidance begins", Need.SCALES)
    guidance_end: float = _fraction(1.0, "share of the steps where guidance ends", Need.SCALES)
    id_start: float = _fraction(0.0, "share of the steps where the face begins to act", Need.FACE)
    id_end: float = _fraction(1.0, "share of the steps where the face stops to act", Need.FACE)
    height: int = _side("height", "height of the picture in pixels")
    width: int = _side("width", "width of the picture in pixels")
    num_images_per_prompt: int = _parameter(
        DType.INT32, 1, lambda v: Between(1, v.limits.num_images_per_prompt), "pictures of one request", "images", "n"
    )
    scheduler: str = _parameter(
        DType.BYTES, lambda v: v.defaults.scheduler, lambda v: OneOf(v.schedulers, SCHEDULER_SPELLINGS),
        "a diffusers scheduler class, or its short name such as euler"
    )  # fmt: skip
    scheduler_options: dict[str, Any] = _parameter(  # noqa: RUF009 - makes a field
        DType.BYTES, {}, lambda v: scheduler_options(v.schedulers), "entries of the scheduler's configuration, as JSON"
    )
    step_cache: float = _parameter(
        DType.FP32, 0.0, lambda v: Between(*v.limits.step_cache),
        "above 0: a step whose input changed less than this takes the last prediction; faster, and another picture"
    )  # fmt: skip
    face_aligned: bool = _parameter(
        DType.BOOL, False, Flag(), "the photographs are aligned square face crops already", "aligned", needs=Need.PHOTOGRAPH
    )
    face_weighting: str = _parameter(
        DType.BYTES,
        "equal",
        OneOf(("equal", "quality")),
        "of several references; quality: clear, frontal ones count more",
        needs=Need.FACES,
    )
    face_index: list[int] | None = _parameter(  # noqa: RUF009 - makes a field
        DType.INT32, Default.NONE, lambda v: Several(Between(0, MAX_FACE_INDEX), v.limits.faces),
        "which face of each photograph, a number for each: 0 is the largest; left out: the largest", needs=Need.FOUND,
        count="references",
    )  # fmt: skip
    face_boxes: list[list[float]] | None = _parameter(  # noqa: RUF009 - makes a field
        DType.FP32, Default.NONE, lambda v: Boxes(v.limits.faces),
        "where in each photograph the face is, four numbers for each, one after the other; instead of face_index", needs=Need.FOUND,
        count="box_ends",
    )  # fmt: skip
    people: list[dict[str, Any]] | None = _parameter(  # noqa: RUF009 - makes a field
        DType.BYTES, Default.NONE, lambda v: People(v.limits.faces, MAX_CHARACTERS),
        "several people in one picture: whose photographs, and where, as JSON, see docs/together.md",
    )  # fmt: skip
    strength: float | None = _parameter(
        DType.FP32, Default.NONE, Between(0.0, 1.0),
        "how much of image is drawn anew: that share of the steps is run; left out: diffusers', 0.3, with a mask 0.9999, of FLUX 0.6",
        needs=Need.IMAGE,
    )  # fmt: skip
    mask: str = _parameter(
        DType.BYTES, "none", OneOf(MASKS), "draw within the face, or the head, that is found in image; instead of mask_image"
    )
    face_box: list[float] | None = _parameter(  # noqa: RUF009 - makes a field
        DType.FP32, Default.NONE, Box(), "where in image the face of mask is; left out: the largest", needs=Need.NAMED_MASK,
        count=4,
    )  # fmt: skip
    padding_mask_crop: int | None = _parameter(
        DType.INT32, Default.NONE, Between(0, MAX_PADDING, unit="pixels"),
        "draw what is within so many pixels of the mask at the model's size, and put it back",
        needs=Need.MASK,
    )  # fmt: skip
    face_detail: float = _parameter(
        DType.FP32, 0.0, Between(0.0, 1.0),
        "above 0: faces in the result that are small are drawn again at the model's size, at this strength, and put back",
    )  # fmt: skip
    output_format: str = _parameter(DType.BYTES, "PNG", OneOf(("PNG", "JPEG", "WEBP")), "file format of the pictures")
    visible_label: str = _parameter(
        DType.BYTES,
        "none",
        OneOf(LABELS),
        "a label in a corner that the picture is generated, in Chinese (zh), English (en) or both; the server may want one itself",
        "label",
    )
    image_encoding: str = _parameter(
        DType.BYTES,
        "base64",
        OneOf(("base64", "binary")),
        "how pictures are answered; binary: the files' bytes, which JSON cannot carry",
    )
    consent: dict[str, Any] | None = _parameter(  # noqa: RUF009 - makes a field
        DType.BYTES,
        Default.NONE,
        ConsentRecord(),
        "consent of the person in the photographs; the server may require it",
        needs=Need.SOMEBODY,
    )
    remember: bool = _parameter(
        DType.BOOL, True, Flag(), "encodings of the photographs and prompts may stay in the server's memory for some minutes"
    )
    priority: str = _parameter(
        DType.BYTES, "interactive", OneOf(("interactive", "batch")), "interactive goes before batch when requests wait"
    )
    tenant: str = _parameter(
        DType.BYTES, "", Text(MAX_TENANT), "whom the request is for; a tenant's flood delays its own requests first"
    )

    @property
    def seeds(self) -> list[int]:
        """The seed of each picture; wraps at 2^63."""
        return [(self.seed + i) % (MAX_SEED + 1) for i in range(self.num_images_per_prompt)]

    @property
    def guidance_scales(self) -> tuple[float, float]:
        """Scales of text and face. Equal, and then standard guidance, unless split guidance was asked for."""
        text, identity = self.text_guidance_scale, self.id_guidance_scale
        if text is None and identity is None:
            return self.guidance_scale, self.guidance_scale
        return (
            self.guidance_scale if text is None else text,
            DEFAULT_ID_GUIDANCE_SCALE if identity is None else identity,
        )


FACE_IMAGES = Parameter(
    "face_images",
    DType.BYTES,
    Default.NONE,
    lambda v: Files(v.limits.faces),
    "photographs of one person, or of people, each a file's bytes or base64 of them; left out: no face",
    ("face",),
    ("references",),
)
IMAGE = Parameter(
    "image",
    DType.BYTES,
    Default.NONE,
    File(),
    "a picture to change, a file's bytes or base64 of them; left out: drawn from noise",
)
MASK_IMAGE = Parameter(
    "mask_image", DType.BYTES, Default.NONE, File(), "where image is drawn anew: white there, black elsewhere, of the same size"
)
IDENTITY = Parameter(
    "identity",
    DType.BYTES,
    Default.NONE,
    Files(MOST_PEOPLE, ("identity", "identities")),
    "a sealed identity in the place of face_images, the bytes of its file or base64 of them; faceclip_faces makes it; several: of people",
    axes=("identities",),
)
PEOPLE_MASKS = Parameter(
    "people_masks",
    DType.BYTES,
    Default.NONE,
    Files(MOST_PEOPLE, ("mask", "masks"), "boxes"),
    "where people are, for those without a box: white there, black elsewhere, each of the picture's size",
    axes=("masks",),
)
FILES = (FACE_IMAGES, IMAGE, MASK_IMAGE, IDENTITY, PEOPLE_MASKS)
"""Parameters that are files: they are no part of what travels as a `GenerationRequest`."""
SCALARS = tuple(replace(each.metadata["declared"], name=each.name) for each in fields(GenerationRequest))
PARAMETERS: tuple[Parameter, ...] = (*FILES, *SCALARS)
"""Inputs of the public models."""

OF_PHOTOGRAPHS: tuple[Parameter, ...] = tuple(
    each
    for each in PARAMETERS
    if (each.name.startswith("face_") and each.name not in ("face_box", "face_detail"))
    or each.name in ("consent", "remember", "image_encoding", "priority", "tenant")
)
MAKE_IDENTITY = Parameter("make_identity", DType.BOOL, False, Flag(), "seal the chosen faces as a portable identity")
EXPIRES = Parameter("expires", DType.BYTES, Default.NONE, Moment(), "when that identity ends; left out: never")
OF_FACES = (*OF_PHOTOGRAPHS, MAKE_IDENTITY, EXPIRES)
"""Inputs of the model that looks at photographs."""

PREVIEW = Parameter("preview", DType.BOOL, False, Flag(), "send a rough picture with every step; streaming only")
"""Of the streaming model alone."""


def interface(variant: Variant) -> dict[str, Any]:
    """What clients want to know of a served variant: per parameter its datatype, default, range and meaning; what its weights allow."""
    return {
        "parameters": {each.name: _told(each, variant) for each in (*PARAMETERS, PREVIEW)},
        "licence": variant.licence.as_json(),
    }


def _told(parameter: Parameter, variant: Variant) -> dict[str, Any]:
    if parameter.default is Default.REQUIRED:
        default: dict[str, Any] = {"required": True}
    else:
        default = {} if isinstance(parameter.default, Default) else {"default": parameter.default_of(variant)}
    return {"dtype": parameter.dtype.value, **default, **parameter.allowed_of(variant).as_json(), "doc": parameter.doc}
