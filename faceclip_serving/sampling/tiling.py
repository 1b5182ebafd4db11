"""Encoding and decoding a picture in tiles of one size, so that the memory of a VAE's halves does not grow with the picture.

Each tile is computed by itself. Neighbours overlap and fade into each other, with weights that add up to one at every pixel, or latent
cell, so what one tile alone covers is that tile to the bit. What a network computes over the whole picture (the statistics of its
group norms, attention in its middle) it computes over the tile instead; that, not the seams, is how the result differs from a whole
one. Knows arrays and any callable network; nothing of servers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from ..contract.tensors import Array

Decode = Callable[[Array], Array]
"""Latents [1, channels, h, w] -> RGB [1, 3, scale * h, scale * w], FP32 in [0, 1]."""

Run = Callable[[Mapping[str, Array]], dict[str, Array]]

Encode = Callable[[Array], Mapping[str, Array]]
"""RGB [1, 3, scale * h, scale * w] in [0, 1] -> arrays over its latent cells by name, FP32 [1, channels, h, w] each."""

OVERLAP = 0.25
"""Least share of a tile's side that it has in common with its neighbour."""


@dataclass(frozen=True)
class Span:
    """One tile along one axis."""

    start: int
    """Latent cells from the picture's edge."""
    weights: Array
    """FP32 [pixels of the tile]: its share of each pixel; those of all tiles add up to one."""


def spans(cells: int, tile: int, scale: int) -> tuple[Span, ...]:
    """The tiles of one axis, evenly spaced: `cells` latent cells in tiles of `tile`, `scale` pixels per cell.

    An axis that is no longer than the tile is one tile of its own length.
    """
    if tile < 2:
        raise ValueError(f"tile: expected at least 2 latent cells, got {tile}")
    if cells <= tile:
        return (Span(0, np.ones(cells * scale, np.float32)),)
    stride = tile - max(1, round(tile * OVERLAP))
    steps = -(-(cells - tile) // stride)
    starts = [round(i * (cells - tile) / steps) for i in range(steps + 1)]
    raw = np.zeros((len(starts), cells * scale))
    for i, start in enumerate(starts):
        before = starts[i - 1] + tile - start if i else 0
        after = start + tile - starts[i + 1] if i < steps else 0
        raw[i, start * scale : (start + tile) * scale] = _window(tile * scale, before * scale, after * scale)
    raw /= raw.sum(axis=0)
    return tuple(
        Span(start, row[start * scale : (start + tile) * scale].astype(np.float32))
        for start, row in zip(starts, raw, strict=True)
    )


def decode_tiled(decode: Decode, latents: Array, tile: int, scale: int) -> Array:
    """Latents [images, channels, height, width] -> RGB [images, 3, scale * height, scale * width], FP32 in [0, 1].

    `decode` sees one tile of one picture at a time: `tile` cells a side, or the picture's side where that is shorter. So a picture
    no larger than a tile is decoded whole. `scale`: pixels per latent cell, each way.
    """
    images, _, height, width = latents.shape
    picture = np.zeros((images, 3, height * scale, width * scale), np.float32)
    for image, down, across in product(range(images), spans(height, tile, scale), spans(width, tile, scale)):
        cells = latents[image : image + 1, :, down.start : down.start + tile, across.start : across.start + tile]
        decoded = decode(np.ascontiguousarray(cells))
        top, left = down.start * scale, across.start * scale
        place = picture[image, :, top : top + len(down.weights), left : left + len(across.weights)]
        if decoded.shape != (1, *place.shape):
            raise ValueError(
                f"decoded tile: expected the shape {[1, *place.shape]} for latents {list(cells.shape)}, got {list(decoded.shape)}"
            )
        place += decoded[0] * (down.weights[:, None] * across.weights)
    return picture.clip(0, 1, out=picture)  # shares of one, rounded, may add up to a trifle more


def encode_tiled(encode: Encode, picture: Array, tile: int, scale: int) -> dict[str, Array]:
    """RGB [images, 3, scale * height, scale * width] in [0, 1] -> by name, FP32 [images, channels, height, width].

    `encode` sees one tile of one picture at a time: `scale * tile` pixels a side, or the picture's side where that is shorter.
    """
    images, _, height, width = picture.shape
    if height % scale or width % scale:
        raise ValueError(f"picture: expected sides in multiples of {scale} pixels, got {height} x {width}")
    latents: dict[str, Array] = {}
    for image, down, across in product(range(images), spans(height // scale, tile, 1), spans(width // scale, tile, 1)):
        rows, columns = (slice(span.start, span.start + len(span.weights)) for span in (down, across))
        pixels = picture[
            image : image + 1, :, rows.start * scale : rows.stop * scale, columns.start * scale : columns.stop * scale
        ]
        for name, cells in encode(np.ascontiguousarray(pixels)).items():
            if cells.shape[2:] != (len(down.weights), len(across.weights)):
                raise ValueError(
                    f"encoded tile: expected {len(down.weights)} x {len(across.weights)} cells of '{name}' for {pixels.shape[2]} x"
                    f" {pixels.shape[3]} pixels, got {cells.shape[2]} x {cells.shape[3]}"
                )
            if name not in latents:
                latents[name] = np.zeros((images, cells.shape[1], height // scale, width // scale), np.float32)
            latents[name][image, :, rows, columns] += cells[0] * (down.weights[:, None] * across.weights)
    return latents


def tiled_encoder(run: Run, tile: int, scale: int) -> Run:
    """A VAE encoder as a function of named tensors, made of one that sees no more than a tile. Tensors as in its signature."""

    def encode(picture: Array) -> dict[str, Array]:
        return run({"picture": picture})

    return lambda arrays: encode_tiled(encode, arrays["picture"], tile, scale)


def tiled(run: Run, tile: int, scale: int) -> Run:
    """A VAE decoder as a function of named tensors, made of one that sees no more than a tile. Tensors as in its signature."""

    def decode(latents: Array) -> Array:
        return run({"latents": latents})["image"]

    return lambda arrays: {"image": decode_tiled(decode, arrays["latents"], tile, scale)}


def _window(size: int, before: int, after: int) -> Array:
    """Reaches one after the first `before` pixels, falls below it in the last `after`; where both meet, the smaller holds.

    Between, where a tile is alone, any value is its whole share. Of a tile at the picture's edge one of both is 0.
    """
    position = np.arange(size) + 0.5
    rise = position / before if before else np.inf
    fall = (size - position) / after if after else np.inf
    return np.asarray(np.minimum(rise, fall))
