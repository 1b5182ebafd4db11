"""Where a picture is drawn anew: masks that came as files, faces and heads by name, and the seam between old and new.

A face and a head are ellipses over the face's five points: what landmarks tell. Hair that hangs down, and hands before a face, are
not known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ..contract.errors import InvalidRequest
from ..contract.variants.architectures import FACE_SIZE
from .alignment import TEMPLATE, apply, fit_similarity, invert
from .choice import in_box, similar
from .detectors import Detector, Face
from .photos import Pixels, decode_mask
from .search import find_faces

Grey = NDArray[np.uint8]
"""[height, width]; white where the picture is drawn anew."""
Mask = NDArray[np.bool_]
"""The same, true where that is."""
WHITE = 128
"""From here on a pixel counts as white."""

_ELLIPSES: Mapping[str, tuple[float, float, float, float]] = {
    "face": (0.50, 0.58, 0.42, 0.50),
    "head": (0.50, 0.45, 0.62, 0.72),
}
"""Middle (x, y) and half axes, of the aligned crop's side. `face`: from the forehead to the chin; `head`: with ears and the hair on top."""
_POINTS = 72
_SEAM = 0.08
"""Width of the seam, of the side of a square as large as the mask."""


def read_mask(
    data: bytes, name: str, height: int, width: int, picture: str = "image", white: str = "image is to be drawn anew"
) -> Grey:
    """The encoded mask that came as parameter `name` for a picture of `height` x `width`; `white` says where. Raises `InvalidRequest`."""
    mask = decode_mask(data, name)
    if mask.shape != (height, width):
        raise InvalidRequest(
            f"{name}: expected the size of {picture}, {width} x {height} pixels, got"
            f" {mask.shape[1]} x {mask.shape[0]}; make it of that size"
        )
    if mask.max() < WHITE:
        raise InvalidRequest(f"{name}: expected white where {white}, got at most {mask.max()} of 255; black is elsewhere")
    return mask


def choose(image: Pixels, box: Sequence[float] | None, detect: Detector) -> tuple[Face, list[str]]:
    """The face that a mask is for: the largest of the picture, or the one in `box`, fractions of it, as `in_box` says; and warnings.

    Raises `InvalidRequest` where there is none.
    """
    faces = find_faces(image, detect)
    chosen = in_box("image", "face_box", faces, box, image, detect) if box is not None else None
    if chosen is not None:
        return chosen.face, []
    if not faces:
        height, width = image.shape[:2]
        raise InvalidRequest(
            f"mask: no face was found in the {width} x {height} pixels of image; send the mask as mask_image, white where to draw"
        )
    if (count := similar(faces)) == 1:
        return faces[0], []
    return faces[0], [f"mask: {count} faces of similar size were found in image and the largest was used; choose by face_box"]


def mask_of(face: Face, kind: str, height: int, width: int) -> Grey:
    """The face or the head of `face` in a picture of `height` x `width`. `kind`: of `MASKS`, but `none`."""
    x, y, across, down = (FACE_SIZE * each for each in _ELLIPSES[kind])
    turns = np.linspace(0, 2 * math.pi, _POINTS, endpoint=False)
    outline = np.column_stack([x + across * np.cos(turns), y + down * np.sin(turns)])
    points = apply(invert(fit_similarity(face.landmarks, TEMPLATE)), outline)
    canvas = np.zeros((height, width), np.uint8)
    cv2.fillPoly(canvas, [np.rint(points).astype(np.int32)], 255)
    return canvas


def seam_of(mask: Mask) -> NDArray[np.uint8]:
    """Share of the new picture in each pixel, of 255: none outside the mask, rising within it from its border on."""
    if mask.all():
        return np.full(mask.shape, 255, np.uint8)
    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    width = min(1 + _SEAM * math.sqrt(int(mask.sum())), float(depth.max()) / 2)
    share = (depth / width).clip(0, 1)
    return np.asarray(np.ceil(share * 255), np.uint8)


def cells_of(mask: Grey, scale: int) -> NDArray[np.float32]:
    """A mask over latent cells of `scale` pixels, FP32 [1, 1, height, width]: of each cell its first pixel, as diffusers takes it."""
    return (mask[::scale, ::scale] >= WHITE)[None, None].astype(np.float32)


def blended(original: NDArray[np.uint8], drawn: NDArray[np.uint8], share: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`drawn` over `original`, [height, width, 3] each. Where the share is 0, the original's to the bit."""
    of = share.astype(np.int32)[:, :, None]
    return np.asarray((original * (255 - of) + drawn * of + 127) // 255, np.uint8)
