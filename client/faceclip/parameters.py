"""The parameters of a request, as the server declares them.

Rendered by `python -m export interface`: change faceclip_serving/contract/parameters.py, not this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict


class Parameters(TypedDict, total=False):
    """Keywords that become tensors of the request. What is left out, or None, the server decides."""

    negative_prompt: str | None
    """What the picture should not show; may be empty (at most 10000 characters; default: the variant's)."""
    original_prompt: str | None
    """What was put into English before it was sent: the checks read it too, and no network does (at most 10000
    characters; default: empty)."""
    prompt_weighting: bool | None
    """Brackets in prompts are weights: (hat:1.3), (hat) for 1.1, [hat] for 1/1.1; \\( is a bracket itself; false: all
    are text (default: true)."""
    long_prompts: bool | None
    """Prompts beyond the tokens of one row are read in several, where the model can; BREAK begins one; false: the rest
    is left out (default: true)."""
    seed: int | None
    """Repeats a picture; picture i of a request uses seed + i (0 to 2^63-1; default: random, reported)."""
    num_inference_steps: int | None
    """Denoising steps (default: the variant's)."""
    guidance_scale: float | None
    """How closely to follow the prompt; at or below 1 only the conditional branch runs (default: the variant's)."""
    id_guidance_scale: float | None
    """Split guidance: weight of the face; 3.0 where only text_guidance_scale is given (0 to 5; default: none)."""
    text_guidance_scale: float | None
    """Split guidance: weight of the text; guidance_scale where only id_guidance_scale is given (0 to 20; default:
    none)."""
    blend_weight: float | None
    """Conditioning between the prompt without (0) and with (1) the face (0 to 1; default: 1.0)."""
    guidance_start: float | None
    """Share of the steps where guidance begins (0 to 1; default: 0.0)."""
    guidance_end: float | None
    """Share of the steps where guidance ends (0 to 1; default: 1.0)."""
    id_start: float | None
    """Share of the steps where the face begins to act (0 to 1; default: 0.0)."""
    id_end: float | None
    """Share of the steps where the face stops to act (0 to 1; default: 1.0)."""
    height: int | None
    """Height of the picture in pixels (default: the variant's)."""
    width: int | None
    """Width of the picture in pixels (default: the variant's)."""
    num_images_per_prompt: int | None
    """Pictures of one request (default: 1)."""
    scheduler: str | None
    """A diffusers scheduler class, or its short name such as euler (default: the variant's)."""
    scheduler_options: Mapping[str, Any] | str | None
    """Entries of the scheduler's configuration, as JSON (default: {})."""
    step_cache: float | None
    """Above 0: a step whose input changed less than this takes the last prediction; faster, and another picture
    (default: 0.0)."""
    face_aligned: bool | None
    """The photographs are aligned square face crops already (default: false)."""
    face_weighting: str | None
    """Of several references; quality: clear, frontal ones count more (equal, quality; default: equal)."""
    face_index: Sequence[int] | None
    """Which face of each photograph, a number for each: 0 is the largest; left out: the largest (default: none)."""
    face_boxes: Sequence[float] | None
    """Where in each photograph the face is, four numbers for each, one after the other; instead of face_index
    (default: none)."""
    strength: float | None
    """How much of image is drawn anew: that share of the steps is run; left out: diffusers', 0.3, with a mask 0.9999,
    of FLUX 0.6 (0 to 1; default: none)."""
    mask: str | None
    """Draw within the face, or the head, that is found in image; instead of mask_image (none, face, head; default:
    none)."""
    face_box: Sequence[float] | None
    """Where in image the face of mask is; left out: the largest (left, top, right, bottom from 0 to 1; default: none)."""
    padding_mask_crop: int | None
    """Draw what is within so many pixels of the mask at the model's size, and put it back (0 to 4096 pixels; default:
    none)."""
    face_detail: float | None
    """Above 0: faces in the result that are small are drawn again at the model's size, at this strength, and put back
    (0 to 1; default: 0.0)."""
    output_format: str | None
    """File format of the pictures (PNG, JPEG, WEBP; default: PNG)."""
    visible_label: str | None
    """A label in a corner that the picture is generated, in Chinese (zh), English (en) or both; the server may want
    one itself (none, zh, en, both; default: none)."""
    consent: Mapping[str, Any] | str | None
    """Consent of the person in the photographs; the server may require it (a JSON record, as python -m server consent
    sign makes it, at most 60000 characters; default: none)."""
    remember: bool | None
    """Encodings of the photographs and prompts may stay in the server's memory for some minutes (default: true)."""
    priority: str | None
    """Interactive goes before batch when requests wait (interactive, batch; default: interactive)."""
    tenant: str | None
    """Whom the request is for; a tenant's flood delays its own requests first (at most 64 characters; default: empty)."""
    preview: bool | None
    """Send a rough picture with every step; streaming only (default: false)."""


class Option(NamedTuple):
    """A parameter on a command line."""

    name: str
    type: type
    flags: tuple[str, ...]
    doc: str
    values: int = 1
    """How many it has; 0: any number."""
    low: float | None = None
    """The least, where it is the same for all variants; as the next three."""
    high: float | None = None
    longest: int | None = None
    """In characters."""
    names: tuple[str, ...] = ()
    """One of these, whatever their case."""
    is_json: bool = False
    """A JSON object, or its text."""


# fmt: off
OPTIONS = (
    Option("negative_prompt", str, ("--negative-prompt", "--negative"),
           "What the picture should not show; may be empty (at most 10000 characters; default: the variant's).",
           longest=10000),
    Option("original_prompt", str, (),
           "What was put into English before it was sent: the checks read it too, and no network does (at most 10000 "
           "characters; default: empty).",
           longest=10000),
    Option("prompt_weighting", bool, ("--prompt-weighting",),
           "Brackets in prompts are weights: (hat:1.3), (hat) for 1.1, [hat] for 1/1.1; \\( is a bracket itself; false: all "
           "are text (default: true)."),
    Option("long_prompts", bool, ("--long-prompts",),
           "Prompts beyond the tokens of one row are read in several, where the model can; BREAK begins one; false: the rest"
           " is left out (default: true)."),
    Option("seed", int, ("--seed",),
           "Repeats a picture; picture i of a request uses seed + i (0 to 2^63-1; default: random, reported).",
           low=0, high=9223372036854775807),
    Option("num_inference_steps", int, ("--num-inference-steps", "--steps"),
           "Denoising steps (default: the variant's)."),
    Option("guidance_scale", float, ("--guidance-scale", "--guidance"),
           "How closely to follow the prompt; at or below 1 only the conditional branch runs (default: the variant's)."),
    Option("id_guidance_scale", float, ("--id-guidance-scale", "--id-guidance"),
           "Split guidance: weight of the face; 3.0 where only text_guidance_scale is given (0 to 5; default: none).",
           low=0.0, high=5.0),
    Option("text_guidance_scale", float, ("--text-guidance-scale", "--text-guidance"),
           "Split guidance: weight of the text; guidance_scale where only id_guidance_scale is given (0 to 20; default: "
           "none).",
           low=0.0, high=20.0),
    Option("blend_weight", float, ("--blend-weight",),
           "Conditioning between the prompt without (0) and with (1) the face (0 to 1; default: 1.0).",
           low=0.0, high=1.0),
    Option("guidance_start", float, ("--guidance-start",),
           "Share of the steps where guidance begins (0 to 1; default: 0.0).",
           low=0.0, high=1.0),
    Option("guidance_end", float, ("--guidance-end",),
           "Share of the steps where guidance ends (0 to 1; default: 1.0).",
           low=0.0, high=1.0),
    Option("id_start", float, ("--id-start",),
           "Share of the steps where the face begins to act (0 to 1; default: 0.0).",
           low=0.0, high=1.0),
    Option("id_end", float, ("--id-end",),
           "Share of the steps where the face stops to act (0 to 1; default: 1.0).",
           low=0.0, high=1.0),
    Option("height", int, ("--height",),
           "Height of the picture in pixels (default: the variant's)."),
    Option("width", int, ("--width",),
           "Width of the picture in pixels (default: the variant's)."),
    Option("num_images_per_prompt", int, ("--num-images-per-prompt", "--images", "-n"),
           "Pictures of one request (default: 1)."),
    Option("scheduler", str, ("--scheduler",),
           "A diffusers scheduler class, or its short name such as euler (default: the variant's)."),
    Option("scheduler_options", str, ("--scheduler-options",),
           "Entries of the scheduler's configuration, as JSON (default: {}).",
           is_json=True),
    Option("step_cache", float, ("--step-cache",),
           "Above 0: a step whose input changed less than this takes the last prediction; faster, and another picture "
           "(default: 0.0)."),
    Option("face_aligned", bool, ("--face-aligned", "--aligned"),
           "The photographs are aligned square face crops already (default: false)."),
    Option("face_weighting", str, ("--face-weighting",),
           "Of several references; quality: clear, frontal ones count more (equal, quality; default: equal).",
           names=("equal", "quality")),
    Option("face_index", int, ("--face-index",),
           "Which face of each photograph, a number for each: 0 is the largest; left out: the largest (default: none).",
           values=0),
    Option("face_boxes", float, ("--face-boxes",),
           "Where in each photograph the face is, four numbers for each, one after the other; instead of face_index "
           "(default: none).",
           values=0),
    Option("strength", float, ("--strength",),
           "How much of image is drawn anew: that share of the steps is run; left out: diffusers', 0.3, with a mask 0.9999, "
           "of FLUX 0.6 (0 to 1; default: none).",
           low=0.0, high=1.0),
    Option("mask", str, ("--mask",),
           "Draw within the face, or the head, that is found in image; instead of mask_image (none, face, head; default: "
           "none).",
           names=("none", "face", "head")),
    Option("face_box", float, ("--face-box",),
           "Where in image the face of mask is; left out: the largest (left, top, right, bottom from 0 to 1; default: none).",
           values=4),
    Option("padding_mask_crop", int, ("--padding-mask-crop",),
           "Draw what is within so many pixels of the mask at the model's size, and put it back (0 to 4096 pixels; default: "
           "none).",
           low=0, high=4096),
    Option("face_detail", float, ("--face-detail",),
           "Above 0: faces in the result that are small are drawn again at the model's size, at this strength, and put back "
           "(0 to 1; default: 0.0).",
           low=0.0, high=1.0),
    Option("output_format", str, (),
           "File format of the pictures (PNG, JPEG, WEBP; default: PNG).",
           names=("PNG", "JPEG", "WEBP")),
    Option("visible_label", str, ("--visible-label", "--label"),
           "A label in a corner that the picture is generated, in Chinese (zh), English (en) or both; the server may want "
           "one itself (none, zh, en, both; default: none).",
           names=("none", "zh", "en", "both")),
    Option("consent", str, ("--consent",),
           "Consent of the person in the photographs; the server may require it (a JSON record, as python -m server consent "
           "sign makes it, at most 60000 characters; default: none).",
           is_json=True),
    Option("remember", bool, ("--remember",),
           "Encodings of the photographs and prompts may stay in the server's memory for some minutes (default: true)."),
    Option("priority", str, ("--priority",),
           "Interactive goes before batch when requests wait (interactive, batch; default: interactive).",
           names=("interactive", "batch")),
    Option("tenant", str, ("--tenant",),
           "Whom the request is for; a tenant's flood delays its own requests first (at most 64 characters; default: empty).",
           longest=64),
    Option("preview", bool, (),
           "Send a rough picture with every step; streaming only (default: false)."),
)
