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


_REFUSED = "size_not_allowed"


async def check(limits: Limits, drawing: Drawing, pool: Pool) -> None:
    """Raises `ApiError`: 400 or 403 where the key may not; where it has such limits, 404 and 503 as `Pool.resolve`."""
    if limits.variants is not None or limits.largest_side is not None:
        await asyncio.to_thread(_check, limits, drawing, pool.resolve(drawing.model))


def _check(limits: Limits, drawing: Drawing, served: ServedModel) -> None:
    if limits.variants is not None and not {served.model, served.variant} & set(limits.variants):
        known = ", ".join(limits.variants)
        raise ApiError(403, f"model: this key may use {known}, not '{served.variant}'", code="model_not_allowed", param="model")
    if limits.largest_side is not None:
        _check_size(limits.largest_side, drawing, served)


def _check_size(most: int, drawing: Drawing, served: ServedModel) -> None:
    """Of what is drawn, and of the answer: that has the size of the picture to change, whatever part of it is drawn, at whatever size.

    Drawn is the size that is asked for, else the picture's; of a part of it (`padding_mask_crop`), and of none, the model's. The server
    takes the nearest that it allows.
    """
    sides: dict[str, int] = {}
    if drawing.image is not None:
        width, height = _size(drawing.image)
        if max(width, height) > most:
            cure = "the answer has its size: send a smaller one"
            raise invalid(
                "image",
                f"this key may have pictures of up to {most} pixels a side, got {width}x{height}; {cure}",
                code=_REFUSED,
            )
    if drawing.image is None or drawing.parameters.get("padding_mask_crop") is not None:
        sides = {side: int(served.defaults.get(side) or 0) for side in ("width", "height")}
    for side in ("width", "height"):
        asked = int(drawing.parameters.get(side) or sides.get(side, 0))
        if asked > most:
            raise invalid(
                side, f"this key may draw up to {most} pixels, got {asked}; ask for less by width and height", code=_REFUSED
            )


def _size(picture: bytes) -> tuple[int, int]:
    """Width and height. Raises `ApiError`."""
    try:
        with Image.open(io.BytesIO(picture)) as opened:
            return opened.size
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise invalid("image", f"expected a picture whose size can be read, since this key limits it ({error})") from None
