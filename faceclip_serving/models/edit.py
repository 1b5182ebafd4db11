"""A picture that came to be changed: `prepare` reads it and its mask, and says what is drawn; `finish` puts that back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..contract.errors import InvalidRequest
from ..contract.models import LATENT_MASK, ORIGINAL, SEAM
from ..contract.parameters import IMAGE, MASK_IMAGE, GenerationRequest
from ..contract.request import picture_of
from ..contract.tensors import Array
from ..contract.variants.variant import Variant
from ..face.alignment import as_planes
from ..face.choice import fractions_of
from ..face.detectors import Detector
from ..face.frames import Frame, around, nearest_size, whole
from ..face.masks import WHITE, Grey, blended, cells_of, choose, mask_of, read_mask, seam_of
from ..face.photos import MAX_SIDE, Pixels, decode_picture


@dataclass(frozen=True)
class Edit:
    """What a request with a picture becomes."""

    request: GenerationRequest
    """With the strength that is used, and the size of what is drawn."""
    begin: int
    """The first step of its run."""
    masked: bool
    told: dict[str, Any]
    """`Job.edit`."""
    tensors: dict[str, Array]
    """Of the outputs of `prepare`."""
    warnings: list[str] = field(default_factory=list)


def files_of(arrays: Mapping[str, Array]) -> dict[str, bytes]:
    """The files of the picture and of its mask that came, by parameter. Raises `InvalidRequest`."""
    files = {each.name: picture_of(each, arrays) for each in (IMAGE, MASK_IMAGE)}
    return {name: file for name, file in files.items() if file is not None}


def prepare_edit(
    variant: Variant,
    request: GenerationRequest,
    arrays: Mapping[str, Array],
    files: Mapping[str, bytes],
    detect: Detector,
    look: Callable[[Pixels], object] = lambda pixels: None,
) -> Edit | None:
    """What is drawn of the picture among `files`; None: there is none. `look` sees the decoded picture before anything is sought in it.

    Raises what `look` raises, and `InvalidRequest`.
    """
    named = request.mask != "none"
    masked = named or MASK_IMAGE.name in files
    if named and MASK_IMAGE.name in files:
        raise InvalidRequest(f"mask: expected none where mask_image comes, got '{request.mask}'; leave out one of both")
    if IMAGE.name not in files:
        if masked:
            raise InvalidRequest(
                f"{'mask' if named else MASK_IMAGE.name}: expected an image that it is of, got none; send image"
            )
        return None
    strength = _strength(variant, request, masked)
    begin = variant.first_step(request.num_inference_steps, strength)
    if begin >= request.num_inference_steps:
        raise InvalidRequest(
            f"strength: expected one of {request.num_inference_steps} num_inference_steps at least, got {strength:g} of them, which is"
            " none; raise one of both"
        )
    pixels = _decoded(files[IMAGE.name])
    look(pixels)
    size = pixels.shape[0], pixels.shape[1]
    grey, face, warnings = _mask(request, files, pixels, detect)
    height, width = _drawn_size(variant, request, arrays, size)
    frame = whole(size, height, width)
    if grey is not None and request.padding_mask_crop is not None:
        frame = around(grey >= WHITE, request.padding_mask_crop, height, width)
    tensors: dict[str, Array] = {"picture": as_planes(frame.seen(pixels))[None]}
    if grey is not None:
        cells = cells_of(frame.seen(grey), variant.latent_scale)
        if not cells.any():
            raise _unseen(variant, request, arrays, frame, grey)
        tensors |= {
            LATENT_MASK.name: cells,
            ORIGINAL.name: pixels,
            SEAM.name: seam_of(grey >= WHITE),
        }
    told = {"height": size[0], "width": size[1], "frame": frame.as_json(), "face": face}
    used = replace(request, strength=strength, height=height, width=width)
    return Edit(used, begin, masked, told, tensors, warnings)


def put_back(drawn: Pixels, arrays: Mapping[str, Array], told: Mapping[str, Any]) -> Pixels:
    """A drawn picture in the size of the one that came, over it where there is a mask. `told`: `Job.edit`."""
    frame = Frame.from_json(told["frame"])
    part = frame.returned(drawn)
    if ORIGINAL.name not in arrays:
        return part
    left, top, right, bottom = frame.box
    picture: Pixels = arrays[ORIGINAL.name].copy()
    within = picture[top:bottom, left:right]
    within[...] = blended(within, part, arrays[SEAM.name][top:bottom, left:right])
    return picture


def _strength(variant: Variant, request: GenerationRequest, masked: bool) -> float:
    if request.strength is None:
        return variant.defaults.mask_strength if masked else variant.defaults.strength
    return as_written(request.strength)


def as_written(strength: float) -> float:
    """0.7 comes as the FP32 next to it, of which 10 steps would be 6."""
    return float(str(np.float32(strength)))


def detailed(variant: Variant, request: GenerationRequest) -> tuple[GenerationRequest, int | None]:
    """The request with the `face_detail` that is used, and the first step of a face that is drawn again; None: it was not asked for.

    Raises `InvalidRequest` where no step is left.
    """
    if request.face_detail == 0:
        return request, None
    steps, strength = request.num_inference_steps, as_written(request.face_detail)
    begin = variant.first_step(steps, strength)
    if begin >= steps:
        raise InvalidRequest(
            f"face_detail: expected one of {steps} num_inference_steps at least, got {strength:g} of them, which is none; raise one of"
            " both, or leave it out"
        )
    return replace(request, face_detail=strength), begin


def _decoded(file: bytes) -> Pixels:
    photo = decode_picture(file, IMAGE.name)
    if photo.factor > 1:
        raise InvalidRequest(
            f"{IMAGE.name}: expected at most {MAX_SIDE} pixels a side, got {photo.width} x {photo.height}; make it smaller, or cut it to"
            " what is to be changed: it comes back in its own size"
        )
    return photo.pixels


def _mask(
    request: GenerationRequest, files: Mapping[str, bytes], pixels: Pixels, detect: Detector
) -> tuple[Grey | None, list[float] | None, list[str]]:
    """The mask, the face that it is of, and warnings."""
    height, width = pixels.shape[:2]
    if MASK_IMAGE.name in files:
        return read_mask(files[MASK_IMAGE.name], MASK_IMAGE.name, height, width), None, []
    if request.mask == "none":
        return None, None, []
    face, warnings = choose(pixels, request.face_box, detect)
    return mask_of(face, request.mask, height, width), fractions_of(face, height, width), warnings


def _drawn_size(
    variant: Variant, request: GenerationRequest, arrays: Mapping[str, Array], size: tuple[int, int]
) -> tuple[int, int]:
    """Height and width: as asked for, else the allowed ones nearest to the picture's; of a part of it, the variant's own."""
    height, width = request.height, request.width
    if request.padding_mask_crop is None:
        height, width = nearest_size(*size, variant.limits)
    return request.height if "height" in arrays else height, request.width if "width" in arrays else width


def _unseen(
    variant: Variant, request: GenerationRequest, arrays: Mapping[str, Array], frame: Frame, grey: Grey
) -> InvalidRequest:
    """Why a mask that no latent cell sees is refused, with what would make it seen."""
    closest = replace(request, padding_mask_crop=0)
    near = around(grey >= WHITE, 0, *_drawn_size(variant, closest, arrays, (grey.shape[0], grey.shape[1])))
    by_mask, crop = request.mask != "none", request.padding_mask_crop
    if crop != 0 and cells_of(near.seen(grey), variant.latent_scale).any():
        cure = (
            "set padding_mask_crop, which draws a part of the picture at that size"
            if crop is None
            else f"make padding_mask_crop smaller than {crop}, so that less around it is drawn"
        )
    else:
        cure = "send a larger one as mask_image" if by_mask else "make the white of it larger"
    return InvalidRequest(
        f"{'mask' if by_mask else MASK_IMAGE.name}: expected a {request.mask if by_mask else 'mask'} that is seen at {frame.width} x"
        f" {frame.height} pixels in cells of {variant.latent_scale}, got a smaller one; {cure}"
    )
