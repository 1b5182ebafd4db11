"""The imperceptible mark: a number in the brightness of a picture, which survives saving, resizing, cropping and mirroring.

A keyed pattern, a square tile repeated over the picture, is added to all three channels. A tile's spectrum is a ring of mid
frequencies. A quarter of its bins are pilots, known to whoever has the key: by them the reader finds the tile's place and the
picture's scale, and how well each frequency came through. Every other bin carries two coded bits of the number (`codec`).

The picture's short side counts as so many canonical pixels, whatever its real size; so resizing changes nothing. A crop makes
the tile look larger, a screenshot smaller: the reader tries scales, within a time. Whoever has the key can read the mark, put it
on other pictures, and take it away.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from .codec import Payload

Pixels = NDArray[np.uint8]
"""RGB, [height, width, 3]."""
_Plane = NDArray[Any]
"""FP32 [height, width]."""
_Spectrum = NDArray[Any]
"""Complex."""

KEY_BYTES = 32
MIN_SIDE = 96
"""Pictures with a shorter side, in pixels, are too small to hold the mark."""
SEARCH_S = 2.5
"""Time that a reader spends on scales, in seconds."""


@dataclass(frozen=True)
class Layout:
    """How a mark is laid out. A picture's size chooses one; a reader tries all."""

    name: str
    short_side: int
    """Canonical pixels of a picture's short side."""
    tile: int
    """Side of a tile in canonical pixels."""
    ring: tuple[float, float]
    """Radius of the lowest and the highest frequency, in waves per tile."""
    payload: Payload
    psnr_drop_db: float
    """How much stronger than asked the mark is: a small picture has little room."""

    @property
    def id_digits(self) -> int:
        """Hexadecimal digits of a mark's id."""
        return self.payload.id_bits // 4


LARGE = Layout("large", 512, 128, (6.0, 38.0), Payload(64, 32), 0.0)
SMALL = Layout("small", 128, 64, (3.0, 26.0), Payload(32, 24), 5.0)
LAYOUTS = (LARGE, SMALL)
SMALL_BELOW = 320
"""Short side in pixels from which on a picture has the large layout."""


def layout_of(height: int, width: int) -> Layout | None:
    """The layout of a picture's mark; None where it is too small for one."""
    side = min(height, width)
    return None if side < MIN_SIDE else SMALL if side < SMALL_BELOW else LARGE


@dataclass(frozen=True)
class Found:
    """A mark that was read."""

    mark_id: str
    """Hexadecimal."""
    confidence: float
    """Height of the pilots' correlation over what chance gives, in standard deviations. Chance alone reaches about 5."""
    scale: float
    """Canonical pixels that the picture's short side shows: 1 for a whole picture, below 1 for a crop."""
    mirrored: bool


# ------------------------------------------------------------------------------------------------------------------- the tile
@dataclass(frozen=True)
class _Bins:
    """Where in a tile's spectrum what lies. Rows and columns of bins; those of the other half follow from them."""

    pilot: tuple[NDArray[np.intp], NDArray[np.intp]]
    pilot_phase: _Spectrum
    """[pilots], of length one."""
    pilot_band: NDArray[np.intp]
    """[pilots], which band of frequencies each is in."""
    data: tuple[NDArray[np.intp], NDArray[np.intp]]
    data_band: NDArray[np.intp]
    bit: NDArray[np.intp]
    """[2 * data bins], the coded bit that each real, then each imaginary part carries; -1: none."""
    sign: NDArray[np.float32]
    """[2 * data bins]"""


_BANDS = 8


@cache
def _bins(key: bytes, layout: Layout) -> _Bins:
    if len(key) != KEY_BYTES:
        raise ValueError(f"key: expected {KEY_BYTES} bytes, got {len(key)}")
    half = layout.tile // 2
    rows, columns = np.mgrid[-half + 1 : half, 0:half].reshape(2, -1)
    radius = np.hypot(rows, columns)
    inside = (radius >= layout.ring[0]) & (radius <= layout.ring[1]) & ((columns > 0) | (rows > 0))
    order = np.flatnonzero(inside)[np.argsort(radius[inside], kind="stable")]
    rows, columns, radius = rows[order], columns[order], radius[order]
    chance = _Chance(key, layout.name)
    # Of every four neighbours by radius one is a pilot, so that pilots tell of all frequencies alike.
    quads = len(order) // 4
    chosen = np.arange(quads) * 4 + (chance.numbers(quads) % 4).astype(np.intp)
    is_pilot = np.zeros(len(order), bool)
    is_pilot[chosen] = True
    band = np.minimum(np.arange(len(order)) * _BANDS // len(order), _BANDS - 1)
    phase = np.exp(2j * np.pi * (chance.numbers(quads) % 4) / 4 + 1j * np.pi / 4).astype(np.complex64)
    # Every coded bit gets one part of each run of frequencies, so that none depends on high ones alone.
    parts, coded = 2 * int((~is_pilot).sum()), layout.payload.coded_bits
    bit = np.full(parts, -1, np.intp)
    for begin in range(0, parts - coded + 1, coded):
        bit[begin : begin + coded] = np.argsort(chance.numbers(coded), kind="stable")
    sign = np.where(chance.numbers(parts) % 2, 1, -1).astype(np.float32)
    rows = rows % layout.tile
    return _Bins(
        (rows[is_pilot], columns[is_pilot]), phase, band[is_pilot],
        (rows[~is_pilot], columns[~is_pilot]), band[~is_pilot], bit, sign,
    )  # fmt: skip


class _Chance:
    """Numbers that follow from a key and a name alone, on every machine and in every version of numpy."""

    def __init__(self, key: bytes, name: str) -> None:
        self._seed = hashlib.sha256(b"faceclip mark 1 " + name.encode() + b" " + key).digest()
        self._drawn = 0

    def numbers(self, count: int) -> NDArray[np.uint64]:
        self._drawn += 1
        text = hashlib.shake_256(self._seed + self._drawn.to_bytes(4, "big")).digest(8 * count)
        return np.frombuffer(text, ">u8").astype(np.uint64)


def _tile(key: bytes, layout: Layout, number: int) -> _Plane:
    """[tile, tile], mean 0, variance 1."""
    bins = _bins(key, layout)
    values = np.append(layout.payload.encode(number) * 2.0 - 1.0, 0.0)  # bit -1: no bit
    parts = values[bins.bit] * bins.sign
    spectrum = np.zeros((layout.tile, layout.tile), np.complex64)
    spectrum[bins.data] = (parts[0::2] + 1j * parts[1::2]) / np.sqrt(2)
    spectrum[bins.pilot] = bins.pilot_phase * _PILOT_STRENGTH
    tile = np.fft.ifft2(spectrum).real
    return np.asarray(tile / tile.std(), np.float32)


_PILOT_STRENGTH = 1.0


# ------------------------------------------------------------------------------------------------------------------ embedding
def embed(image: Pixels, number: int, key: bytes, psnr_db: float) -> tuple[Pixels, float]:
    """A copy of `image` that bears `number`, and the PSNR in dB between the two.

    `psnr_db`: as asked, which small pictures fall short of by their layout's `psnr_drop_db`. Raises ValueError where the picture
    is too small or the number too large; see `layout_of`.
    """
    layout = layout_of(*image.shape[:2])
    if layout is None:
        raise ValueError(f"image: expected a short side of at least {MIN_SIDE} pixels, got {min(image.shape[:2])}")
    height, width = image.shape[:2]
    scale = layout.short_side / min(height, width)
    luma = _resized(_luma(image), scale)
    tile = _tile(key, layout, number)
    times = [-(-(side + 2) // layout.tile) for side in luma.shape]
    pattern = np.tile(tile, times)[: luma.shape[0] + 2, : luma.shape[1] + 2]
    pattern = pattern * cv2.copyMakeBorder(_activity(luma), 0, 2, 0, 2, cv2.BORDER_REPLICATE)
    # Exactly the inverse of the reader's map, which rounds no scale.
    shift = (scale - 1) / 2
    to_canonical = np.array([[scale, 0, shift], [0, scale, shift]])
    delta = cv2.warpAffine(
        pattern, to_canonical, (width, height), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    wanted = 255.0 / 10 ** ((psnr_db - layout.psnr_drop_db) / 20)
    delta *= wanted / max(float(np.sqrt(np.mean(delta * delta))), 1e-6)
    steps = np.rint(delta).astype(np.int16)
    marked = cv2.add(image.astype(np.int16), np.repeat(steps[:, :, None], 3, axis=2))
    marked = np.clip(marked, 0, 255).astype(np.uint8)
    return marked, psnr(image, marked)


def psnr(one: Pixels, other: Pixels) -> float:
    """Of two pictures of a size, in dB."""
    error = cv2.norm(one, other, cv2.NORM_L2SQR) / one.size
    return float(10 * np.log10(255.0**2 / max(error, 1e-10)))


def _luma(image: Pixels) -> _Plane:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.float32)


def _resized(plane: _Plane, scale: float) -> _Plane:
    if scale == 1:
        return plane
    resized: _Plane = cv2.resize(
        plane, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    return resized


def _activity(luma: _Plane) -> _Plane:
    """How much a mark may change each place, around 1: more where there is texture, less where it is smooth."""
    mean = cv2.blur(luma, (7, 7))
    spread = np.sqrt(np.maximum(cv2.blur(luma * luma, (7, 7)) - mean * mean, 0.0))
    return np.asarray(cv2.blur(np.clip(0.45 + spread / 12.0, 0.0, 1.8), (5, 5)))


# -------------------------------------------------------------------------------------------------------------------- the mark
@dataclass(frozen=True)
class Tiles:
    """This mark, as a server puts it on pictures and reads it. May be used by several threads."""

    keys: tuple[bytes, ...] = field(repr=False)
    """At least one; the first marks, all are read."""
    psnr_db: float = 43.0
    """See `embed`."""
    soft_binding: ClassVar[str] = "io.faceclip-triton.tiles.1"
    """Its name in credentials. It is in no public list of such names."""

    def id_digits(self, height: int, width: int) -> int | None:
        """Hexadecimal digits of a mark's id; None for a picture that is too small."""
        layout = layout_of(height, width)
        return None if layout is None else layout.id_digits

    def value(self, mark_id: str) -> str:
        """How credentials name the mark."""
        return mark_id

    def embed(self, image: Pixels, mark_id: str) -> tuple[Pixels, float]:
        """A copy of `image` that bears `mark_id`, and the PSNR in dB between the two."""
        return embed(image, int(mark_id, 16), self.keys[0], self.psnr_db)

    def read(self, image: Pixels) -> Found | None:
        """The mark of one of the keys. Spends little more than `SEARCH_S` seconds."""
        for key in self.keys:
            if (found := read(image, key, SEARCH_S / len(self.keys))) is not None:
                return found
        return None


# -------------------------------------------------------------------------------------------------------------------- reading
def read(image: Pixels, key: bytes, search_s: float = SEARCH_S) -> Found | None:
    """The mark in a picture; None where none is found, which proves nothing. Spends little more than `search_s` seconds."""
    deadline = time.monotonic() + search_s
    if min(image.shape[:2]) < MIN_SIDE // 2:
        return None
    luma = _luma(image)
    first = [layout_of(*image.shape[:2]) or SMALL]
    layouts = first + [layout for layout in LAYOUTS if layout not in first]
    prepared = {}
    for layout in layouts:
        plane = prepared[layout] = _Prepared(luma, layout)
        if (found := _best(plane, key, [1.0])) is not None:
            return found
    for i, layout in enumerate(layouts):
        until = time.monotonic() + (deadline - time.monotonic()) / (len(layouts) - i)
        if (found := _search(prepared[layout], key, until)) is not None:
            return found
    return None


class _Prepared:
    """A picture as one layout sees it: its canonical size, flattened so that no place or frequency drowns the mark."""

    def __init__(self, luma: _Plane, layout: Layout) -> None:
        self.layout = layout
        side = min(luma.shape)
        plane = _resized(luma[: 4 * side, : 4 * side], layout.short_side / side)  # of a long strip, a part will do
        detail = plane - cv2.GaussianBlur(plane, (0, 0), 3.0)
        spread = np.sqrt(cv2.blur(detail * detail, (15, 15)) + 1.0)
        self.flat = np.clip(detail / spread, -3.0, 3.0)

    def periods(self) -> list[float]:
        """Scales at which tiles would lie where the picture resembles itself most, the likeliest first."""
        height, width = self.flat.shape
        size = cv2.getOptimalDFTSize(height + height // 2), cv2.getOptimalDFTSize(width + width // 2)
        spectrum = np.fft.rfft2(self.flat, size)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        power = np.minimum(power / (cv2.blur(power, (15, 15)) + 1e-6), 8.0)
        waves = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None]) * self.layout.tile
        low, high = self.layout.ring
        alike = np.fft.irfft2((power - 1) * ((waves > low * 0.7) & (waves < high * 1.3)), s=size)
        lags = np.arange(
            int(self.layout.tile / _SCALES[1]), min(int(self.layout.tile / _SCALES[0]), height * 2 // 3, width * 2 // 3)
        )
        if len(lags) < 3:
            return []
        across = alike[0, lags] + alike[lags, 0]
        peak = np.flatnonzero((across[1:-1] >= across[:-2]) & (across[1:-1] > across[2:])) + 1
        peak = peak[np.argsort(-across[peak])][:_PEAKS]
        before, here, after = across[peak - 1], across[peak], across[peak + 1]
        exact = lags[peak] + 0.5 * (before - after) / (before - 2 * here + after)
        return [float(self.layout.tile / lag) for lag in exact]

    def spectrum(self, scale: float) -> _Spectrum:
        """Of the mean tile [tile, tile], if the picture shows `scale` times its canonical size. About unit noise in each bin."""
        tile = self.layout.tile
        plane = _resized(self.flat, scale)
        rows, columns = (-(-side // tile) * tile for side in plane.shape)
        padded = np.zeros((rows, columns), np.float32)
        padded[: plane.shape[0], : plane.shape[1]] = plane
        folded = padded.reshape(rows // tile, tile, columns // tile, tile).sum(axis=(0, 2))
        spectrum = np.fft.fft2(folded)
        power = cv2.blur((spectrum.real**2 + spectrum.imag**2).astype(np.float32), (9, 9))
        return np.asarray(spectrum / np.sqrt(power + 1e-9), np.complex64)


def _correlate(spectrum: _Spectrum, key: bytes, layout: Layout, mirrored: bool) -> tuple[float, tuple[int, int]]:
    """How far the best place of the pilots stands out, in standard deviations, and that place."""
    bins = _bins(key, layout)
    seen = spectrum[_mirror(bins.pilot, layout.tile)].conj() if mirrored else spectrum[bins.pilot]
    product = np.zeros((layout.tile, layout.tile), np.complex64)
    product[bins.pilot] = seen * bins.pilot_phase.conj()
    found = np.fft.ifft2(product).real
    place = np.unravel_index(int(np.argmax(found)), found.shape)
    return float(found[place] / (found.std() + 1e-12)), (int(place[0]), int(place[1]))


def _mirror(bins: tuple[NDArray[np.intp], NDArray[np.intp]], tile: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where a bin's partner lies in the spectrum of a picture mirrored left to right, conjugated."""
    return (-bins[0]) % tile, bins[1]


def _read_number(spectrum: _Spectrum, key: bytes, layout: Layout, mirrored: bool, place: tuple[int, int]) -> int | None:
    bins = _bins(key, layout)

    def at(where: tuple[NDArray[np.intp], NDArray[np.intp]]) -> NDArray[Any]:
        seen: _Spectrum = spectrum[_mirror(where, layout.tile)].conj() if mirrored else spectrum[where]
        turned: _Spectrum = seen * np.exp(2j * np.pi * (where[0] * place[0] + where[1] * place[1]) / layout.tile)
        return turned

    agreement = (at(bins.pilot) * bins.pilot_phase.conj()).real
    heard = np.bincount(bins.pilot_band, weights=agreement, minlength=_BANDS) / np.bincount(bins.pilot_band, minlength=_BANDS)
    values = at(bins.data) * np.maximum(heard, 0.0)[bins.data_band]
    parts = np.stack([values.real, values.imag], axis=1).ravel() * bins.sign
    used = bins.bit >= 0
    soft = np.bincount(bins.bit[used], weights=parts[used], minlength=layout.payload.coded_bits)
    return layout.payload.decode(np.asarray(soft, np.float64))


_WORTH = 5.0
"""Correlation, in standard deviations, from which on decoding is tried."""


def _best(plane: _Prepared, key: bytes, scales: list[float]) -> Found | None:
    """The mark at one of these scales, the likeliest first."""
    layout = plane.layout
    tries = []
    for scale in scales:
        spectrum = plane.spectrum(scale)
        for mirrored in (False, True):
            height, place = _correlate(spectrum, key, layout, mirrored)
            tries.append((height, scale, mirrored, place, spectrum))
    tries.sort(key=lambda each: -each[0])
    for height, scale, mirrored, place, spectrum in tries[:3]:
        if height < _WORTH:
            break
        number = _read_number(spectrum, key, layout, mirrored, place)
        if number is not None:
            return Found(f"{number:0{layout.id_digits}x}", round(height, 1), round(scale, 4), mirrored)
    return None


_SCALES = (0.45, 2.2)
"""Canonical pixels that a picture's short side may show: of a crop to less than half, to a screenshot of more than twice."""
_STEP = 0.004
"""Between two scales of the grid: over a picture's width the tiles then shift by a small part of a wave."""
_FINE = tuple(1 + i * 0.001 for i in range(-6, 7))
_PEAKS = 6


def _search(plane: _Prepared, key: bytes, until: float) -> Found | None:
    """The mark at whatever scale: first those at which the picture repeats itself, then all from 1 outwards, as time allows."""
    for scale in plane.periods():
        if (found := _best(plane, key, [scale * fine for fine in _FINE])) is not None:
            return found
    for scale in _grid():
        if time.monotonic() > until:
            return None
        spectrum = plane.spectrum(scale)
        if max(_correlate(spectrum, key, plane.layout, mirrored)[0] for mirrored in (False, True)) < _WORTH:
            continue
        if (found := _best(plane, key, [scale * fine for fine in _FINE[3:-3]])) is not None:
            return found
    return None


def _grid() -> NDArray[np.float64]:
    steps = np.arange(int(np.log(_SCALES[0]) / _STEP), int(np.log(_SCALES[1]) / _STEP) + 1)
    return np.asarray(np.exp(steps[np.argsort(np.abs(steps), kind="stable")] * _STEP))
