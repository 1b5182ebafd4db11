"""Inputs that are the same everywhere, as the recorded outputs of networks were made with."""

import zlib

import numpy as np
from numpy.typing import NDArray


def seeded_input(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Uniform values in [0, 1), float32, that follow from `name` and `shape`."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    return generator.random(shape, dtype=np.float32)
