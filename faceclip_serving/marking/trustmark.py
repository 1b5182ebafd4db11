"""TrustMark Q in the place of the own invisible mark: Adobe's networks, which other programs read too.

`python -m export download --only trustmark_encoder trustmark_decoder` fetches the two ONNX files (65 MB, MIT). Who has them can
read the mark, and put it on other pictures: there is no key. Bits are laid out by TrustMark's schema `BCH_5`: 61 of the id, 35
that correct, and four that name the schema.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from . import bch
from .authority import KeysError
from .watermark import MIN_SIDE, Found, Pixels, psnr

ENCODER_FILE, DECODER_FILE = "encoder_Q.onnx", "decoder_Q.onnx"
SIDE = 256
"""Pixels per side that the networks see."""
LONGEST = 2.0
"""From this ratio of sides on only the square in the middle bears the mark, as TrustMark has it."""
_ID_BITS, _DATA_BITS, _SCHEMA, _SCHEMA_BITS = 60, 61, 1, 4
_PADDING = 3
"""Zeros behind the data, for whole bytes, when the check bits are computed."""


class TrustMark:
    """Puts a mark on pictures, and reads it. May be used by several threads."""

    soft_binding = "com.adobe.trustmark.Q"

    def __init__(self, folder: Path) -> None:
        """`folder`: of the two files. Raises `KeysError` where they cannot be used."""
        self._encoder, self._decoder = (_session(folder / name) for name in (ENCODER_FILE, DECODER_FILE))

    def id_digits(self, height: int, width: int) -> int | None:
        """Hexadecimal digits of a mark's id; None for a picture that is too small."""
        return _ID_BITS // 4 if min(height, width) >= MIN_SIDE else None

    def value(self, mark_id: str) -> str:
        """How credentials name the mark: its schema and its data bits."""
        return f"{_SCHEMA}*{_bits(int(mark_id, 16) << (_DATA_BITS - _ID_BITS), _DATA_BITS)}"

    def embed(self, image: Pixels, mark_id: str) -> tuple[Pixels, float]:
        """A copy of `image` [height, width, 3] that bears `mark_id`, and the PSNR in dB between the two."""
        part = _part(*image.shape[:2])
        cover = _seen(image[part])
        marked = self._run(self._encoder, cover, _packet(int(mark_id, 16))[None])
        residual = np.clip(marked, -1.0, 1.0)[0] - cover[0]
        residual -= residual.mean(axis=(1, 2), keepdims=True)  # no colour of the picture moves
        height, width = image[part].shape[:2]
        delta = cv2.resize(residual.transpose(1, 2, 0) * 127.5, (width, height), interpolation=cv2.INTER_LINEAR)
        copy = image.copy()
        copy[part] = np.clip(np.rint(image[part] + delta * _edge(height, width)), 0, 255).astype(np.uint8)
        return copy, psnr(image, copy)

    def read(self, image: Pixels) -> Found | None:
        """The mark in a picture, mirrored or not; None where none is found, which proves nothing."""
        seen = image[_part(*image.shape[:2])]
        for mirrored in (False, True):
            bits = self._run(self._decoder, _seen(seen[:, ::-1] if mirrored else seen))[0] > 0
            if (found := _read(bits)) is not None:
                number, wrong = found
                sent = _DATA_BITS + bch.CHECK_BITS
                above_chance = (sent - 2 * wrong) / np.sqrt(sent)
                return Found(f"{number:0{_ID_BITS // 4}x}", round(float(above_chance), 1), 1.0, mirrored)
        return None

    def _run(self, session: onnxruntime.InferenceSession, *inputs: NDArray[Any]) -> NDArray[Any]:
        names = [each.name for each in session.get_inputs()]
        result: NDArray[Any] = session.run(None, dict(zip(names, inputs, strict=True)))[0]
        return result


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a mark is soon put on; the other cores are the denoiser's
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - ONNX Runtime has a class for each kind of bad file
        fetch = "python -m export download --only trustmark_encoder trustmark_decoder"
        raise KeysError(
            f"trustmark: expected TrustMark's {path.name} in {path.parent} ({error}); fetch it with `{fetch}`"
        ) from None


def _part(height: int, width: int) -> tuple[slice, slice]:
    if max(height, width) <= LONGEST * min(height, width):
        return slice(None), slice(None)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return slice(top, top + side), slice(left, left + side)


def _seen(image: Pixels) -> NDArray[np.float32]:
    """[1, 3, SIDE, SIDE] in [-1, 1]."""
    small = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
    return small.transpose(2, 0, 1)[None] / 127.5 - 1.0


def _edge(height: int, width: int) -> NDArray[np.float32]:
    """[height, width, 1]: from 0 at the edge to 1, over a hundredth of the short side."""
    wide = max(1, min(50, min(height, width) // 100))
    rows, columns = (np.minimum(np.arange(side), np.arange(side)[::-1]) / wide for side in (height, width))
    return np.minimum(np.minimum(rows[:, None], columns[None]), 1.0).astype(np.float32)[:, :, None]


def _bits(number: int, count: int) -> str:
    return f"{number:0{count}b}"


def _packet(number: int) -> NDArray[np.float32]:
    """[100], zeros and ones."""
    data = number << (_DATA_BITS - _ID_BITS)
    check = bch.check(data << _PADDING)
    packet = _bits(data, _DATA_BITS) + _bits(check, bch.CHECK_BITS) + _bits(_SCHEMA, _SCHEMA_BITS)
    return np.array([int(bit) for bit in packet], np.float32)


def _read(bits: NDArray[np.bool_]) -> tuple[int, int] | None:
    """The number in 100 bits, and how many were wrong; None where they are none of ours."""
    text = "".join("1" if bit else "0" for bit in bits)
    data, check, schema = text[:_DATA_BITS], text[_DATA_BITS:-_SCHEMA_BITS], text[-_SCHEMA_BITS:]
    if int(schema[2:], 2) != _SCHEMA:  # its last two bits tell the schema
        return None
    found = bch.corrected(int(data, 2) << _PADDING, int(check, 2), _DATA_BITS + _PADDING)
    if found is None or found[0] & (1 << (_PADDING + _DATA_BITS - _ID_BITS)) - 1:
        return None
    return found[0] >> (_PADDING + _DATA_BITS - _ID_BITS), found[1]
