"""The public request: its parameters, their ranges, and the one function that checks them.

`PARAMETERS` declares the inputs of the public models, in diffusers' names. All of them are optional to Triton, so that a
missing one is reported by this module, in words, instead of by a count of tensors.
"""

from __future__ import annotations

import base64
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import InvalidRequest
from .schedules import check_options, resolve_scheduler
from .tensors import Array, DType, Tensor, TensorError
from .variant import Limits, Variant

MAX_SEED = 2**63 - 1
MAX_PROMPT_CHARACTERS = 10_000
OUTPUT_FORMATS = ("PNG", "JPEG", "WEBP")
IMAGE_ENCODINGS = ("binary", "base64")
WEIGHTINGS = ("equal", "quality")
PRIORITIES = ("interactive", "batch")


def _scalar(name: str, dtype: DType, doc: str) -> Tensor:
    return Tensor(name, dtype, (1,), doc, optional=True)


PARAMETERS: tuple[Tensor, ...] = (
    Tensor("face_images", DType.BYTES, ("references",), "encoded photographs of one person; none: no face", optional=True),
    _scalar("prompt", DType.BYTES, "UTF-8 text; required"),
    _scalar("negative_prompt", DType.BYTES, "UTF-8 text; empty is allowed"),
    _scalar("seed", DType.INT64, "0 to 2^63-1; image i uses seed + i; default: random, reported"),
    _scalar("num_inference_steps", DType.INT32, "denoising steps"),
    _scalar("guidance_scale", DType.FP32, "classifier-free guidance; at or below 1 only the conditional branch runs"),
    _scalar("id_guidance_scale", DType.FP32, "split guidance: weight of the face; with text_guidance_scale alone: 3.0"),
    _scalar(
        "text_guidance_scale", DType.FP32, "split guidance: weight of the text; with id_guidance_scale alone: guidance_scale"
    ),
    _scalar("blend_weight", DType.FP32, "0 to 1: conditioning between the prompt without (0) and with (1) the face; default 1"),
    _scalar("guidance_start", DType.FP32, "fraction of the steps where guidance begins; default 0"),
    _scalar("guidance_end", DType.FP32, "fraction of the steps where guidance ends; default 1"),
    _scalar("id_start", DType.FP32, "fraction of the steps where the face begins to act; default 0"),
    _scalar("id_end", DType.FP32, "fraction of the steps where the face stops to act; default 1"),
    _scalar("height", DType.INT32, "pixels, a multiple of what the variant says: 8, or 16 for FLUX"),
    _scalar("width", DType.INT32, "pixels, as height"),
    _scalar("num_images_per_prompt", DType.INT32, "pictures of one request"),
    _scalar("scheduler", DType.BYTES, "a diffusers scheduler class, or its short name"),
    _scalar("scheduler_options", DType.BYTES, "JSON: entries of the scheduler's configuration, e.g. use_karras_sigmas"),
    _scalar("step_cache", DType.FP32, "0 (default): every step is computed; above: steps whose input changed less are not"),
    _scalar("face_aligned", DType.BOOL, "the photographs are already aligned square crops"),
    _scalar("face_weighting", DType.BYTES, "several references: equal (default), or quality: by score and frontality"),
    _scalar("output_format", DType.BYTES, "PNG, JPEG or WEBP"),
    _scalar("image_encoding", DType.BYTES, "how pictures travel, both ways: binary (default), or base64 for JSON over HTTP"),
    _scalar("priority", DType.BYTES, "interactive (default) goes before batch when requests wait"),
)


@dataclass(frozen=True)
class GenerationRequest:
    """A request that passed every check, defaults filled in. Field names are the public parameters'."""

    prompt: str
    negative_prompt: str
    seed: int
    num_inference_steps: int
    guidance_scale: float
    id_guidance_scale: float | None
    text_guidance_scale: float | None
    blend_weight: float
    guidance_start: float
    guidance_end: float
    id_start: float
    id_end: float
    height: int
    width: int
    num_images_per_prompt: int
    scheduler: str
    scheduler_options: dict[str, Any]
    step_cache: float
    face_aligned: bool
    face_weighting: str
    output_format: str
    image_encoding: str
    priority: str

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


DEFAULT_ID_GUIDANCE_SCALE = 3.0
"""Weight of the face when only the text's is given."""


def parse_request(variant: Variant, arrays: Mapping[str, Array]) -> GenerationRequest:
    """Checks the public inputs but the photographs, and fills in the variant's defaults. Raises `InvalidRequest`."""
    values = {tensor.name: _value(tensor, arrays) for tensor in PARAMETERS if tensor.name in arrays and tensor.axes == (1,)}
    default, limits = variant.defaults, variant.limits
    prompt = values.get("prompt")
    if prompt is None or not prompt.strip():
        raise InvalidRequest("prompt: a text is required, got nothing; describe the scene, e.g. 'portrait, studio light'")
    negative_prompt = values.get("negative_prompt", default.negative_prompt)
    for name, text in (("prompt", prompt), ("negative_prompt", negative_prompt)):
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise InvalidRequest(f"{name}: at most {MAX_PROMPT_CHARACTERS} characters are read, got {len(text)}; shorten it")
    scheduler = values.get("scheduler", default.scheduler)
    return GenerationRequest(
        prompt=prompt,
        negative_prompt=negative_prompt,
        seed=_within("seed", values.get("seed", secrets.randbelow(MAX_SEED + 1)), (0, MAX_SEED)),
        num_inference_steps=_within(
            "num_inference_steps", values.get("num_inference_steps", default.num_inference_steps), limits.num_inference_steps
        ),
        guidance_scale=_within("guidance_scale", values.get("guidance_scale", default.guidance_scale), limits.guidance_scale),
        id_guidance_scale=_optional("id_guidance_scale", values, (0.0, 5.0)),
        text_guidance_scale=_optional("text_guidance_scale", values, (0.0, 20.0)),
        blend_weight=_within("blend_weight", values.get("blend_weight", 1.0), (0.0, 1.0)),
        **_interval("guidance", values),
        **_interval("id", values),
        height=_side("height", values.get("height", default.height), limits),
        width=_side("width", values.get("width", default.width), limits),
        num_images_per_prompt=_within(
            "num_images_per_prompt", values.get("num_images_per_prompt", 1), (1, limits.num_images_per_prompt)
        ),
        scheduler=_choice("scheduler", resolve_scheduler(scheduler) or scheduler, variant.schedulers),
        scheduler_options=check_options(values.get("scheduler_options", "")),
        step_cache=_within("step_cache", values.get("step_cache", 0.0), limits.step_cache),
        face_aligned=values.get("face_aligned", False),
        face_weighting=_choice("face_weighting", values.get("face_weighting", "equal").lower(), WEIGHTINGS),
        output_format=_choice("output_format", values.get("output_format", "PNG").upper(), OUTPUT_FORMATS),
        image_encoding=_choice("image_encoding", values.get("image_encoding", "binary").lower(), IMAGE_ENCODINGS),
        priority=_choice("priority", values.get("priority", "interactive").lower(), PRIORITIES),
    )


def reference_photos(variant: Variant, arrays: Mapping[str, Array], image_encoding: str = "binary") -> list[bytes]:
    """The encoded photographs of a request, possibly none. Raises `InvalidRequest`."""
    photos = arrays.get("face_images")
    if photos is None:
        return []
    declared = next(tensor for tensor in PARAMETERS if tensor.name == "face_images")
    try:
        declared.check(photos, "request")
    except TensorError as error:
        raise InvalidRequest(str(error)) from None
    if len(photos) > variant.limits.faces:
        raise InvalidRequest(f"face_images: at most {variant.limits.faces} photographs are used together, got {len(photos)}")
    encoded = [photo.encode() if isinstance(photo, str) else bytes(photo) for photo in photos]
    return [_from_base64(i, photo) for i, photo in enumerate(encoded)] if image_encoding == "base64" else encoded


def _from_base64(index: int, text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InvalidRequest(
            f"face_images[{index}]: expected base64, as image_encoding says, got other text ({error})"
        ) from None


def to_wire(files: Sequence[bytes], image_encoding: str) -> Array:
    """Encoded pictures as a BYTES tensor, object [n], in the request's `image_encoding`."""
    wire = [base64.b64encode(file) for file in files] if image_encoding == "base64" else list(files)
    return np.array(wire, dtype=object)


def _value(tensor: Tensor, arrays: Mapping[str, Array]) -> Any:
    try:
        tensor.check(arrays[tensor.name], "request")
    except TensorError as error:
        raise InvalidRequest(str(error)) from None
    value = arrays[tensor.name][0]
    if tensor.dtype is not DType.BYTES:
        return value.item()
    if isinstance(value, str):
        return value
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{tensor.name}: expected UTF-8 text, got bytes that are not ({error.reason} at {error.start})"
        ) from None


def _within(name: str, value: Any, limits: tuple[Any, Any]) -> Any:
    low, high = limits
    if (isinstance(value, float) and not math.isfinite(value)) or not low <= value <= high:
        raise InvalidRequest(f"{name}: expected a value from {low} to {high}, got {value}")
    return value


def _choice(name: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise InvalidRequest(f"{name}: expected one of {', '.join(known)}, got '{value}'")
    return value


def _optional(name: str, values: Mapping[str, Any], limits: tuple[float, float]) -> float | None:
    return _within(name, values[name], limits) if name in values else None


def _interval(name: str, values: Mapping[str, Any]) -> dict[str, float]:
    """`<name>_start` and `<name>_end`, fractions of the steps."""
    start = _within(f"{name}_start", values.get(f"{name}_start", 0.0), (0.0, 1.0))
    end = _within(f"{name}_end", values.get(f"{name}_end", 1.0), (0.0, 1.0))
    if start > end:
        raise InvalidRequest(f"{name}_start: expected at most {name}_end ({end:g}), got {start:g}")
    return {f"{name}_start": start, f"{name}_end": end}


def _side(name: str, value: int, limits: Limits) -> int:
    low, high = limits.size
    multiple = limits.size_multiple
    if value % multiple or not low <= value <= high:
        nearest = min(max(round(value / multiple) * multiple, low), high)
        raise InvalidRequest(
            f"{name}: expected a multiple of {multiple} from {low} to {high} pixels, got {value}; try {nearest}"
        )
    return value
