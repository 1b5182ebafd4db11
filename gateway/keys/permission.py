"""Which drawings a key may ask for: of which models, and how large. Nobody can tell before a server has said what it offers."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING

from PIL import Image

from faceclip import ServedModel

from ..drawing import Drawing
from ..errors import ApiError, invalid
from .caller import Limits

if TYPE_CHECKING:
    from ..backends.pool import Pool


async def check(limits: Limits, drawing: Drawing, pool: Pool) -> None:
    """Raises `ApiError`: 400 or 403 where the key may not; where it has such limits, 404 and 503 as `Pool.resolve`."""
    if limits.variants is not None or limits.largest_side is not None:
        await asyncio.to_thread(_check, limits, drawing, pool.resolve(drawing.model))


def _check(limits: Limits, drawing: Drawing, served: ServedModel) -> None:
    if limits.variants is not None and not {served.model, served.variant} & set(limits.variants):
        known = ", ".join(limits.variants)
        raise ApiError(403, f"model: this key may use {known}, not '{served.variant}'", code="model_not_allowed", param="model")
    if limits.largest_side is None:
        return
    for side, asked in drawn_size(drawing, served).items():
        if asked > limits.largest_side:
            raise invalid(side, f"this key may draw up to {limits.largest_side} pixels, got {asked}", code="size_not_allowed")


def drawn_size(drawing: Drawing, served: ServedModel) -> dict[str, int]:
    """Width and height that are drawn: what is asked for, else those of the picture to change, else the model's. Raises `ApiError`.

    With `padding_mask_crop` a part of the picture is drawn, at the model's size. The server takes the nearest size that it allows.
    """
    sizes = {"width": int(served.defaults.get("width") or 0), "height": int(served.defaults.get("height") or 0)}
    if drawing.image is not None and drawing.parameters.get("padding_mask_crop") is None:
        try:
            with Image.open(io.BytesIO(drawing.image)) as picture:
                sizes = dict(zip(("width", "height"), picture.size, strict=True))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise invalid("image", f"expected a picture whose size can be read, since this key limits it ({error})") from None
    return {side: int(drawing.parameters.get(side) or size) for side, size in sizes.items()}
