"""Photographs of a face, in the forms that users have them, as encoded files for the wire.

Files and bytes are sent as they are; pixels are sent losslessly, as PNG. Whether they show a face is the server's matter.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from .errors import InvalidRequestError

Photo = Union[str, "os.PathLike[str]", bytes, BinaryIO, Image.Image, "NDArray[Any]"]
"""A path, the bytes of an image file, an open binary file, a PIL image, or pixels [height, width, 3], uint8 or float [0, 1]."""

_FORMS = "a path, the bytes of an image file, an open binary file, a PIL image, or an array [height, width, 3]"
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


def collect_photos(face_image: Photo | None, face_images: Iterable[Photo] | None) -> list[bytes]:
    """The encoded photographs of a call, possibly none."""
    if face_image is not None and face_images is not None:
        raise TypeError("face_image and face_images: give one of them, not both")
    if face_image is not None:
        return [encode_photo("face_image", face_image)]
    if face_images is None:
        return []
    if isinstance(face_images, (str, bytes, os.PathLike, Image.Image)) or hasattr(face_images, "read"):
        raise TypeError(f"face_images: expected several, got one {type(face_images).__name__}; pass it as face_image")
    photos = [encode_photo(f"face_images[{i}]", photo) for i, photo in enumerate(face_images)]
    if not photos:
        raise InvalidRequestError(
            "face_images: expected at least one, got none; leave it out for a picture without a reference"
        )
    return photos


def encode_photo(name: str, photo: Photo) -> bytes:
    """One photograph as an image file. `name`: the parameter, for messages. Raises `OSError` if a file cannot be read."""
    if isinstance(photo, (bytes, bytearray, memoryview)):
        return bytes(photo)
    if isinstance(photo, (str, os.PathLike)):
        if str(photo).startswith(("http://", "https://", "data:")):
            raise InvalidRequestError(f"{name}: expected a file, got a URL; fetch it first and pass its bytes")
        return Path(photo).read_bytes()
    if isinstance(photo, Image.Image):
        return _png(photo)
    if isinstance(photo, np.ndarray):
        return _png(_from_array(name, photo))
    if hasattr(photo, "read"):
        content = photo.read()
        if not isinstance(content, bytes):
            raise TypeError(f"{name}: expected a file opened with 'rb', got one that reads {type(content).__name__}")
        return content
    raise TypeError(f"{name}: expected {_FORMS}, got {type(photo).__name__}")


def _png(image: Image.Image) -> bytes:
    """Upright pixels only: no EXIF leaves, with its place and date."""
    upright = ImageOps.exif_transpose(image)
    upright.info = {key: value for key, value in upright.info.items() if key in ("icc_profile", "transparency")}
    if upright.mode not in _PNG_MODES:
        upright = upright.convert("RGB")
    file = io.BytesIO()
    upright.save(file, "PNG", compress_level=1)  # size matters less than the caller's time
    return file.getvalue()


def _from_array(name: str, array: NDArray[Any]) -> Image.Image:
    expected = f"{name}: expected pixels [height, width, 3], uint8 or float in [0, 1]"
    if array.ndim != 3 or array.shape[2] != 3:
        cure = "; move the channels last" if array.ndim == 3 and array.shape[0] == 3 else ""
        cure = "; pass a batch as face_images" if array.ndim == 4 else cure
        raise InvalidRequestError(f"{expected}, got shape {list(array.shape)}{cure}")
    if array.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(array))
    if not np.issubdtype(array.dtype, np.floating):
        raise InvalidRequestError(f"{expected}, got {array.dtype}")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0.0 and high <= 1.0):  # also true of NaN
        raise InvalidRequestError(f"{expected}, got values from {low:g} to {high:g}")
    return Image.fromarray(np.round(array * 255.0).astype(np.uint8))
