"""Encoded pictures in, pixels out, and back: what a caller uploads is read here, and what is answered is written here.

Knows file formats, orientation, colour profiles, transparency and how hostile a file may be. Does not know what a face is.
Needs Pillow. Whatever bytes come, the only error raised is `InvalidRequest`.
"""

from __future__ import annotations

import io
import json
import re
import threading
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from ..contract.errors import InvalidRequest

Pixels = NDArray[np.uint8]
"""RGB, [height, width, 3]."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
MAX_BYTES = 32 * 2**20
MAX_MEGAPIXELS = 64
"""Above the photographs of today's telephones (48 to 50), low enough that one photograph costs less than half a gigabyte."""
MAX_SIDE = 4096
"""Larger photographs are reduced by a whole factor. A face too small at this size would be too small for the network too."""
MAX_JPEG_SCANS = 64
"""Encoders write 1 to 12. Each scan visits every pixel again: a small file of thousands keeps a core busy for minutes."""

_TIFF = (b"II*\0", b"MM\0*")
_DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
_BACKGROUND = (255, 255, 255)
"""Put behind transparent pixels. White, because cut-out portraits are drawn, and their edges smoothed, for a white page."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes the picture upright; 1 and unknown values need nothing."""
_ORIENTATION = 0x0112

# One photograph is decoded at a time: that bounds the memory; and Python's warning filters, silenced for Pillow
# meanwhile, belong to the whole process.
_DECODING = threading.Lock()


@dataclass(frozen=True)
class Photo:
    """An upright photograph. A point (x, y) of `pixels` is at (factor * x, factor * y) in the photograph as sent."""

    pixels: Pixels
    factor: int
    """How many times the photograph was reduced, each way; 1 for most."""
    width: int
    height: int
    """Size as sent, in pixels, upright."""


_SMALLER = "make the photograph smaller, or crop it to the person"
_SAVE_AGAIN = "send the whole file, saved as JPEG or PNG (HEIC, AVIF and raw files are not read)"
_OF_TELEPHONES = {"HEIC": (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "AVIF": (b"avif", b"avis")}
"""Formats that are not read -> the brands that such files begin with. Their decoders are large, and made for friendly files."""


def decode_photo(data: bytes, index: int = 0) -> Photo:
    """Reads one encoded photograph. `index`: its place in `face_images`, for messages. Raises `InvalidRequest` alone."""
    return decode_picture(data, f"face_images[{index}]")


def decode_picture(data: bytes, name: str) -> Photo:
    """Reads the encoded picture that came as parameter `name`. Raises `InvalidRequest` alone."""
    return _read(data, name, lambda image, profile: _to_srgb(_opaque(image), profile))


def decode_mask(data: bytes, name: str) -> NDArray[np.uint8]:
    """An encoded mask in grey, [height, width]. Raises `InvalidRequest` alone, also for colours and transparent pixels."""
    return _read(data, name, lambda image, _: _grey(image, name)).pixels


_Flatten = Callable[[Image.Image, bytes | None], Image.Image]
"""Makes the final mode of a picture of `_eight_bits` and its colour profile."""


def _read(data: bytes, name: str, flatten: _Flatten) -> Photo:
    if not data:
        raise InvalidRequest(f"{name}: expected an encoded photograph, got 0 bytes; send the content of a JPEG or PNG file")
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"{name}: expected at most {MAX_BYTES >> 20} MiB, got {len(data) / 2**20:.1f} MiB; {_SMALLER}")
    with _DECODING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _decode(data, name, flatten)
        except InvalidRequest:
            raise
        except UnidentifiedImageError:
            if data.startswith(_TIFF):
                kinds = "whose kind of pixels is not read (such as colour of 32 bits per channel)"
                raise InvalidRequest(f"{name}: expected a photograph, got a TIFF {kinds}; {_SAVE_AGAIN}") from None
            if (kind := _telephone_format(data)) is not None:
                raise InvalidRequest(
                    f"{name}: expected a photograph ({', '.join(FORMATS)}), got {kind}, which is not read here; save it as JPEG, or send"
                    " it by the Python client, which converts it: `pip install faceclip-client[heif]`"
                ) from None
            found = f"got {len(data)} bytes that do not begin as one"
            raise InvalidRequest(f"{name}: expected a photograph ({', '.join(FORMATS)}), {found}; {_SAVE_AGAIN}") from None
        except Image.DecompressionBombError:
            raise InvalidRequest(f"{name}: expected at most {MAX_MEGAPIXELS} megapixels, got far more; {_SMALLER}") from None
        except Exception as error:  # noqa: BLE001  decoders of damaged files raise almost any class
            reason = f"damaged or incomplete ({error or type(error).__name__})"
            raise InvalidRequest(f"{name}: the photograph of {len(data)} bytes is {reason}; {_SAVE_AGAIN}") from None


def _decode(data: bytes, name: str, flatten: _Flatten) -> Photo:
    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = image.size
    if width * height > MAX_MEGAPIXELS * 10**6:
        got = f"{width} x {height} = {width * height / 1e6:.0f}"
        raise InvalidRequest(f"{name}: expected at most {MAX_MEGAPIXELS} megapixels, got {got}; {_SMALLER}")
    if image.format in ("JPEG", "MPO") and (scans := count_jpeg_scans(data)) > MAX_JPEG_SCANS:
        raise InvalidRequest(f"{name}: expected a JPEG of at most {MAX_JPEG_SCANS} scans, got {scans}; {_SAVE_AGAIN}")

    factor = -(-max(width, height) // MAX_SIDE)
    if factor > 1:
        # JPEG alone can be decoded at 1/2, 1/4 or 1/8 size; for other formats this does nothing.
        image.draft(None, (max(width // factor, 1), max(height // factor, 1)))
    factor = round(max(width, height) / max(image.size))
    image.load()
    orientation = image.getexif().get(_ORIENTATION)  # after load(): for TIFF, Pillow has obeyed and removed it by now
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    profile = image.info.get("icc_profile")

    image = _eight_bits(image, name)
    rest = -(-max(image.size) // MAX_SIDE)
    if rest > 1:
        image = image.reduce(rest)
    image = flatten(image, profile)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    return Photo(np.array(image, np.uint8), factor * rest, width, height)


def _telephone_format(data: bytes) -> str | None:
    return next((kind for kind, brands in _OF_TELEPHONES.items() if data[4:8] == b"ftyp" and data[8:12] in brands), None)


_JPEG_MARKER = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd7])", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE = b"\xda", b"\xd9"


def count_jpeg_scans(data: bytes) -> int:
    """Scans up to the end-of-image marker, read from the markers alone: segments are skipped by their length."""
    scans, position = 0, 2
    while (marker := _JPEG_MARKER.search(data, position)) and marker[1] != _END_OF_IMAGE:
        scans += marker[1] == _START_OF_SCAN
        position = marker.end() + max(int.from_bytes(data[marker.end() : marker.end() + 2], "big"), 2)
    return scans


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """The picture in a mode of 8 bits per channel that can be resampled: L, RGB, RGBA or CMYK."""
    if image.mode in _DEEP_GREY:
        table = ((np.arange(65536, dtype=np.uint32) + 128) // 257).astype(np.uint8)
        return Image.fromarray(table[np.asarray(image)])
    if image.mode in ("I", "F"):
        return _by_range(np.asarray(image), name)
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("L" if image.mode == "1" else "RGB")


def _by_range(values: NDArray[Any], name: str) -> Image.Image:
    """Grey of 32 bits, whose file does not say what is white: 1 (fractions only), 255 or 65,535, the next one from its largest value up."""
    low, high = float(values.min()), float(values.max())
    fractions = np.issubdtype(values.dtype, np.floating)
    slack = 0.05 if fractions else 0.0  # resampling overshoots
    whites = (1.0, 255.0, 65535.0) if fractions else (255.0, 65535.0)
    white = next((w for w in whites if low >= -slack * w and high <= (1 + slack) * w), None)  # nan compares false
    if white is None:
        raise InvalidRequest(
            f"{name}: expected grey values from 0 to 1, 255 or 65535, got 32 bits from {low:g} to {high:g}; save it as JPEG or PNG"
        )
    return Image.fromarray(np.rint((values * (255.0 / white)).clip(0, 255)).astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    canvas = Image.new("RGB", image.size, _BACKGROUND)
    canvas.paste(image, mask=image.getchannel("A"))
    return canvas


_COLOURED = 64
"""Difference between channels, of 255, that no compression of grey makes."""


def _grey(image: Image.Image, name: str) -> Image.Image:
    """A mask in grey. Colours and transparent pixels could mean anything, so they are refused."""
    cure = "; save it as a black and white picture, white where the picture is to be drawn anew"
    if image.mode == "RGBA" and (np.asarray(image.getchannel("A")) < 255).any():
        raise InvalidRequest(f"{name}: expected black and white, got transparent pixels{cure}")
    pixels = np.asarray(image.convert("RGB"))
    if int(np.ptp(pixels, axis=2).max()) > _COLOURED:
        raise InvalidRequest(f"{name}: expected black and white, got colours{cure}")
    return image.convert("L")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB as sRGB. A profile that is damaged or made for another kind of picture is left out of account, as viewers do."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass
    return image.convert("RGB")


# --------------------------------------------------------------------------------------------------------------- writing
_SAVE_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "PNG": {"compress_level": 1, "compress_type": zlib.Z_RLE},
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"quality": 95, "method": 4},
}
"""Output format -> Pillow's options. PNG: runs alone take half the time of level 4 and a fifth of the default's; measured sizes are
0.97 to 1.06 of level 4's for photographs, 1.14 for drawn pictures."""
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
MAX_COMMENT_BYTES = 65_000
"""A JPEG segment ends at 65,533 bytes, EXIF's own structure included."""


def encode_picture(image: Pixels, output_format: str, metadata: Mapping[str, str], xmp: bytes = b"", **more: Any) -> bytes:
    """Encodes `image` ([height, width, 3], uint8 RGB) with `metadata` inside, and an XMP packet. `more`: of Pillow's options.

    PNG holds one text chunk per entry (keys: 1 to 79 Latin-1 characters); JPEG and WebP hold all as one JSON object in EXIF's
    UserComment. Raises ValueError for an unknown format, another array, or metadata that cannot be held.
    """
    if output_format not in _SAVE_OPTIONS:
        raise ValueError(f"output_format: expected one of {', '.join(_SAVE_OPTIONS)}, got '{output_format}'")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image: expected uint8 [height, width, 3], got {image.dtype} {list(image.shape)}")
    options = {**_SAVE_OPTIONS[output_format], **more}
    if output_format == "PNG":
        options["pnginfo"] = chunks = _text_chunks(metadata)
        if xmp:
            chunks.add_itxt("XML:com.adobe.xmp", xmp.decode())
    elif metadata:
        exif = Image.Exif()
        exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = _user_comment(metadata)
        options["exif"] = exif.tobytes()
    if xmp and output_format != "PNG":
        options["xmp"] = xmp
    file = io.BytesIO()
    Image.fromarray(image).save(file, output_format, **options)
    return file.getvalue()


def _text_chunks(metadata: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    for key, text in metadata.items():
        if not 1 <= len(key) <= 79 or not key.isprintable() or not all(ord(character) < 256 for character in key):
            raise ValueError(f"metadata: expected keys of 1 to 79 Latin-1 characters, got {key!r}")
        chunks.add_text(key, text)  # becomes an iTXt chunk by itself where Latin-1 does not suffice
    return chunks


def _user_comment(metadata: Mapping[str, str]) -> bytes:
    """EXIF 2.32, 4.6.5: eight bytes that name the character code, then the text."""
    text = json.dumps(dict(metadata), ensure_ascii=False)
    comment = b"ASCII\0\0\0" + text.encode("ascii") if text.isascii() else b"UNICODE\0" + text.encode("utf-16-be")
    if len(comment) > MAX_COMMENT_BYTES:
        raise ValueError(f"metadata: expected at most {MAX_COMMENT_BYTES} bytes in EXIF, got {len(comment)}; shorten the texts")
    return comment
