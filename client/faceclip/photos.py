"""Photographs of a face, in the forms that users have them, as encoded files for the wire.

Files and bytes are sent as they are, HEIC and AVIF as PNG; pixels are sent losslessly, as PNG. Whether they show a face is the server's
matter.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import InvalidRequestError

Photo = Union[str, "os.PathLike[str]", bytes, BinaryIO, Image.Image, "NDArray[Any]"]
"""A path, the bytes of an image file, an open binary file, a PIL image, or pixels: [height, width, 3], also grey or with
alpha, uint8, uint16 or float in [0, 1]."""

_FORMS = "a path, the bytes of an image file, an open binary file, a PIL image, or an array"
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_LONGEST_PATH = 4096
"""Linux's PATH_MAX."""
_ONLY_HERE = {"HEIC": (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "AVIF": (b"avif", b"avis")}
"""Formats of telephones that the server does not read -> the brands that such files begin with."""


class _Array(NamedTuple):
    """What an array may be."""

    shape: str
    further: str
    bools: bool


_PHOTO_ARRAY = _Array("[height, width, 3]", "or 1 (grey) or 4 (with alpha) channels, uint8, uint16 or float in [0, 1]", False)
_MASK_ARRAY = _Array("[height, width]", "of bool, uint8, uint16 or float in [0, 1], white or true where the mask is", True)


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
    return _encoded(name, photo, _PHOTO_ARRAY)


def encode_mask(name: str, mask: Photo) -> bytes:
    """The same of a mask, which may also be an array of bool, true where it is white."""
    return _encoded(name, mask, _MASK_ARRAY)


def _encoded(name: str, photo: Photo, array: _Array) -> bytes:
    if isinstance(photo, (bytes, bytearray, memoryview)):
        return _for_server(name, bytes(photo))
    if isinstance(photo, (str, os.PathLike)):
        return _for_server(name, _read_path(name, photo))
    if isinstance(photo, Image.Image):
        return _png(name, photo)
    if isinstance(photo, np.ndarray):
        return _png(name, _from_array(name, photo, array))
    if hasattr(photo, "read"):
        return _for_server(name, _read_file(name, photo))
    raise TypeError(f"{name}: expected {_FORMS} {array.shape}, got {type(photo).__name__}")


def _for_server(name: str, content: bytes) -> bytes:
    """The file as it is; HEIC and AVIF as PNG, where they can be read here."""
    format = next((kind for kind, brands in _ONLY_HERE.items() if content[4:8] == b"ftyp" and content[8:12] in brands), None)
    if format is None:
        return content
    with contextlib.suppress(ImportError):
        import pillow_heif  # here, since few have it

        pillow_heif.register_heif_opener()
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return _png(name, image)
    except UnidentifiedImageError:
        raise InvalidRequestError(
            f"{name}: expected a photograph that the server reads, got {format}, which nothing here reads to convert it, unless it is"
            " damaged; `pip install faceclip-client[heif]`, or save it as JPEG"
        ) from None
    except OSError as error:
        raise InvalidRequestError(
            f"{name}: the {format} photograph is damaged or incomplete ({error}); save it as JPEG"
        ) from None


def _read_path(name: str, path: str | os.PathLike[str]) -> bytes:
    text = os.fspath(path)
    if text.startswith(("http://", "https://")):
        raise InvalidRequestError(f"{name}: expected a file, got a URL; fetch it first and pass its bytes")
    if text.startswith("data:"):
        raise InvalidRequestError(f"{name}: expected a file, got a data URL; pass base64.b64decode() of what follows its comma")
    if len(text) > _LONGEST_PATH:
        raise InvalidRequestError(
            f"{name}: expected a path, got a text of {len(text)} characters; if it is base64, pass base64.b64decode() of it"
        )
    return Path(path).read_bytes()


def _read_file(name: str, file: Any) -> bytes:
    """All of an open file, from its beginning where it can go there: callers pass one again, and Pillow reads from there too."""
    if isinstance(file, io.TextIOBase):
        raise TypeError(
            f"{name}: expected a file opened with 'rb', got one opened as text; open it with 'rb', or pass its path"
        )
    if hasattr(file, "seekable") and file.seekable():
        file.seek(0)
    content = file.read()
    if not isinstance(content, bytes):
        raise TypeError(f"{name}: expected a file opened with 'rb', got one that reads {type(content).__name__}")
    if not content:
        raise InvalidRequestError(f"{name}: expected a photograph, got a file that is empty or at its end; open it again")
    return content


def _png(name: str, image: Image.Image) -> bytes:
    """Upright pixels only: no EXIF leaves, with its place and date."""
    if 0 in image.size:
        raise InvalidRequestError(f"{name}: expected a photograph, got a picture of {image.width} x {image.height} pixels")
    try:
        upright = _eight_bits(name, ImageOps.exif_transpose(image))
    except InvalidRequestError:
        raise
    except (OSError, ValueError) as error:  # its file is damaged or closed; a mode that Pillow does not convert
        raise InvalidRequestError(
            f"{name}: the {image.mode} picture cannot be read ({error}); pass its file, or RGB"
        ) from error
    upright.info = {key: value for key, value in upright.info.items() if key in ("icc_profile", "transparency")}
    file = io.BytesIO()
    upright.save(file, "PNG", compress_level=1)  # size matters less than the caller's time
    return file.getvalue()


def _eight_bits(name: str, image: Image.Image) -> Image.Image:
    """A mode that PNG has, of 8 bits per channel; alpha is kept."""
    if image.mode.startswith("I;16"):
        return _grey(np.asarray(image), 65535.0)
    if image.mode in ("I", "F"):
        return _grey(np.asarray(image), _white(name, np.asarray(image)))
    if image.mode in _PNG_MODES:
        return image
    return image.convert("RGBA" if image.mode in ("PA", "La", "RGBa") else "RGB")


def _white(name: str, values: NDArray[Any]) -> float:
    """What is white in grey values of 32 bits: 1 (fractions only), 255 or 65,535, the next one from the largest value up."""
    low, high = float(values.min()), float(values.max())
    fractions = np.issubdtype(values.dtype, np.floating)
    slack = 0.05 if fractions else 0.0  # resampling overshoots
    for white in (1.0, 255.0, 65535.0) if fractions else (255.0, 65535.0):
        if low >= -slack * white and high <= (1 + slack) * white:  # nan compares false
            return white
    raise InvalidRequestError(
        f"{name}: expected grey values from 0 to 1, 255 or 65535, got values from {low:g} to {high:g}; scale them to 0 to 255"
    )


def _grey(values: NDArray[Any], white: float) -> Image.Image:
    return Image.fromarray(_scaled(values, white))


def _scaled(values: NDArray[Any], white: float) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = np.rint((values * (255.0 / white)).clip(0, 255)).astype(np.uint8)
    return pixels


def _from_array(name: str, array: NDArray[Any], form: _Array) -> Image.Image:
    expected = f"{name}: expected pixels {form.shape}, {form.further}"
    if array.size == 0:
        raise InvalidRequestError(f"{expected}, got an empty array of shape {list(array.shape)}; was the file read?")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (3, 4)):
        cure = "; move the channels last" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        cure = "; pass a batch as face_images" if array.ndim == 4 else cure
        raise InvalidRequestError(f"{expected}, got shape {list(array.shape)}{cure}")
    if array.dtype == np.bool_ and form.bools:
        array = array.astype(np.uint8) * 255
    if array.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(array))
    if array.dtype == np.uint16:
        return Image.fromarray(_scaled(array, 65535.0))
    if not np.issubdtype(array.dtype, np.floating):
        raise InvalidRequestError(f"{expected}, got {array.dtype}; convert it with .astype(np.uint8) if its values go to 255")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0.0 and high <= 1.0):  # also true of NaN
        cure = "; divide it by 255" if 1 < high <= 255 and low >= 0 else ""
        raise InvalidRequestError(f"{expected}, got values from {low:g} to {high:g}{cure}")
    return Image.fromarray(_scaled(array, 1.0))
