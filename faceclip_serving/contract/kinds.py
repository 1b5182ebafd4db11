"""What a request asks for, as metrics tell requests apart: a picture drawn anew costs more than one that is changed a little."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from .names import FACES
from .parameters import IMAGE, MASK_IMAGE, MASKS
from .tensors import Array

_MASK = "mask"


class Kind(Enum):
    """Diffusers' names of tasks, and those of requests that draw nothing."""

    TEXT_TO_IMAGE = "text_to_image"
    """From noise; with a photograph or without one."""
    IMAGE_TO_IMAGE = "image_to_image"
    INPAINTING = "inpainting"
    FACES = "faces"
    """To look at photographs."""
    UNREAD = "unread"
    """It ended before its tensors could be read."""


def kind_of(role: str, arrays: Mapping[str, Array]) -> Kind:
    """Of a request to the public model `role` by the tensors that came, before any of them is checked."""
    if role == FACES:
        return Kind.FACES
    if MASK_IMAGE.name in arrays or _names_a_mask(arrays):
        return Kind.INPAINTING
    return Kind.IMAGE_TO_IMAGE if IMAGE.name in arrays else Kind.TEXT_TO_IMAGE


def _names_a_mask(arrays: Mapping[str, Array]) -> bool:
    values = arrays[_MASK].ravel().tolist() if _MASK in arrays else []
    return any(value in (name, name.encode()) for value in values for name in MASKS[1:])
