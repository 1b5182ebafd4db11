"""Masks as OpenAI's callers make them: transparent where the picture is drawn anew."""

from __future__ import annotations

import io

from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import invalid

LARGEST_PIXELS = 64_000_000


def white_where_transparent(mask: bytes) -> bytes:
    """The mask, white where it is transparent, if it is so anywhere; else the file as it came: white there already."""
    try:
        with Image.open(io.BytesIO(mask)) as picture:
            if picture.width * picture.height > LARGEST_PIXELS:
                raise invalid("mask", f"expected at most {LARGEST_PIXELS} pixels, got {picture.width} x {picture.height}")
            if not picture.has_transparency_data:
                return mask
            alpha = picture.convert("RGBA").getchannel("A")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError):
        return mask  # the server says what is wrong with it
    if alpha.getextrema() == (255, 255):
        return mask
    file = io.BytesIO()
    ImageOps.invert(alpha).save(file, "PNG", compress_level=1)
    return file.getvalue()
