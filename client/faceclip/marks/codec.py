# Copied by `python -m export interface`: change faceclip_serving/marking/codec.py, not this file.
"""A short number as bits that survive noise: a checksum, a convolutional code, and its soft decoder.

Knows bits; nothing of pictures. The code is the rate-1/3 one of constraint length 7 (generators 133, 171, 165 octal), ended by
six zeros; a checksum judges whether what was decoded is what was sent.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint8]
"""Zeros and ones, the first one most significant."""

_GENERATORS = (0o133, 0o171, 0o165)
_MEMORY = 6
_STATES = 1 << _MEMORY
_CRC24 = 0x864CFB
"""Polynomial of OpenPGP's CRC-24 (RFC 4880, 6.1)."""


@dataclass(frozen=True)
class Payload:
    """A number of `id_bits` bits with a checksum of 32 or 24 bits."""

    id_bits: int
    check_bits: int

    @property
    def coded_bits(self) -> int:
        return len(_GENERATORS) * (self.id_bits + self.check_bits + _MEMORY)

    def encode(self, number: int) -> Bits:
        """The coded bits [coded_bits]. Raises ValueError for a number that does not fit."""
        if not 0 <= number < 1 << self.id_bits:
            raise ValueError(f"number: expected 0 to 2^{self.id_bits}-1, got {number}")
        message = _to_bits(number, self.id_bits), _to_bits(self._check(number), self.check_bits), np.zeros(_MEMORY, np.uint8)
        return _convolve(np.concatenate(message))

    def decode(self, soft: NDArray[np.float64]) -> int | None:
        """The number in soft values [coded_bits], above 0 for a likely one; None where the checksum says that there is none."""
        bits = _viterbi(np.asarray(soft, np.float64).reshape(-1, len(_GENERATORS)))
        number, check = _to_number(bits[: self.id_bits]), _to_number(bits[self.id_bits : self.id_bits + self.check_bits])
        return number if check == self._check(number) else None

    def _check(self, number: int) -> int:
        data = number.to_bytes(-(-self.id_bits // 8), "big")
        return zlib.crc32(data) if self.check_bits == 32 else _crc24(data)


def _crc24(data: bytes) -> int:
    value = 0xB704CE
    for byte in data:
        value ^= byte << 16
        for _ in range(8):
            value = (value << 1) ^ (_CRC24 if value & 0x800000 else 0)
            value &= 0xFFFFFF
    return value


def _to_bits(number: int, count: int) -> Bits:
    return np.array([number >> i & 1 for i in reversed(range(count))], np.uint8)


def _to_number(bits: Bits) -> int:
    return int("".join(map(str, bits.tolist())), 2)


def _convolve(message: Bits) -> Bits:
    """Three output bits per message bit; the register holds the newest bit in front."""
    register, coded = 0, []
    for bit in message.tolist():
        register = bit << _MEMORY | register >> 1
        coded += [(register & generator).bit_count() & 1 for generator in _GENERATORS]
    return np.array(coded, np.uint8)


@cache
def _trellis() -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Per state the two states that it may follow [states, 2], and the signs of the bits sent on the way [states, 2, 3].

    A state is the register's newest six bits: its first one is the message bit that led there.
    """
    states = np.arange(_STATES)
    before = np.stack([(states << 1 & (_STATES - 1)) | oldest for oldest in (0, 1)], axis=1)
    register = (states[:, None] >> (_MEMORY - 1)) << _MEMORY | before
    sent = [[[(int(way) & generator).bit_count() & 1 for generator in _GENERATORS] for way in ways] for ways in register]
    return before, np.array(sent) * 2.0 - 1.0


def _viterbi(soft: NDArray[np.float64]) -> Bits:
    """The likeliest message [steps] for soft values [steps, 3]; it begins and ends with an empty register."""
    before, signs = _trellis()
    gains = np.einsum("swg,tg->tsw", signs, soft)
    score = np.full(_STATES, -np.inf)
    score[0] = 0.0
    taken = np.empty((len(soft), _STATES), np.intp)
    for step, gain in enumerate(gains):
        ways = score[before] + gain
        choice = ways[:, 1] > ways[:, 0]
        score = np.where(choice, ways[:, 1], ways[:, 0])
        taken[step] = np.where(choice, before[:, 1], before[:, 0])
    state, bits = 0, np.empty(len(soft), np.uint8)
    for step in reversed(range(len(soft))):
        bits[step] = state >> (_MEMORY - 1)
        state = taken[step, state]
    return bits
