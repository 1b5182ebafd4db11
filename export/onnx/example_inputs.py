"""Inputs for any component of any variant: what tracing, parity and measurements run on.

Values follow from the tensor's name and a salt, so they are the same everywhere; each tensor is in the range that its
declaration promises. Knows which tensors have a meaning beyond "normally distributed"; a tensor without a row here is drawn so.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np

from faceclip_serving.contract.components import ALIGNED_FACES, FACE_INDEX, TEXT_TOKENS
from faceclip_serving.contract.tensors import Array, Signature, Tensor
from faceclip_serving.contract.variants.variant import Tokens, Variant

Sizes = Mapping[str, int]
"""Named axis -> size."""

_TRAIN_STEPS = 1000.0
_BLOCK = 24
"""Pixels."""


def example_inputs(variant: Variant, signature: Signature, sizes: Sizes, salt: str = "") -> dict[str, Array]:
    """One array for each input of `signature`, with the given sizes of the named axes; texts have one chunk unless these say more."""
    sizes = {TEXT_TOKENS: variant.text_tokens.max_tokens, **sizes}
    arrays = {}
    for tensor in signature.inputs:
        generator = np.random.Generator(np.random.PCG64(zlib.crc32(f"{salt}/{signature.name}/{tensor.name}".encode())))
        arrays[tensor.name] = _values(variant, tensor, sizes, generator)
    signature.check_inputs(arrays)
    return arrays


def _values(variant: Variant, tensor: Tensor, sizes: Sizes, generator: np.random.Generator) -> Array:
    shape = tensor.shape(sizes)
    if tensor.name in _RULES:
        values = _RULES[tensor.name](shape, sizes, generator)
    elif tensor in variant.extras:
        values = _extra(variant, tensor, shape, sizes)
    elif tokens := next((tokens for tokens in variant.tokens if tokens.input == tensor.name), None):
        values = _ids(tokens, shape, generator)
    else:
        values = generator.standard_normal(shape)
    return np.array(values, dtype=tensor.dtype.numpy, order="C")


def _uniform(shape: tuple[int, ...], _sizes: Sizes, generator: np.random.Generator) -> Array:
    return generator.random(shape)


def _blocks(shape: tuple[int, ...], _sizes: Sizes, generator: np.random.Generator) -> Array:
    """Pictures of flat squares, the brightest and darkest colours among them, under a little noise: areas as photographs have them."""
    *batch, height, width = shape
    colours = generator.random((*batch, -(-height // _BLOCK), -(-width // _BLOCK))).round()
    squares = colours.repeat(_BLOCK, axis=-2).repeat(_BLOCK, axis=-1)[..., :height, :width]
    return np.asarray(0.9 * squares + 0.1 * generator.random(shape))


def _times(shape: tuple[int, ...], _sizes: Sizes, generator: np.random.Generator) -> Array:
    """A time of its own for every row, as rows of different requests have."""
    return generator.random(shape) * _TRAIN_STEPS


def _unit_vectors(shape: tuple[int, ...], _sizes: Sizes, generator: np.random.Generator) -> Array:
    vectors = generator.standard_normal(shape)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def _face_choices(shape: tuple[int, ...], sizes: Sizes, _generator: np.random.Generator) -> Array:
    """Faces from the last to the first, then "no face", and again."""
    faces = sizes["faces"]
    return (faces - 1 - np.arange(shape[0]) % (faces + 1)).reshape(shape)


_RULES: Mapping[str, Callable[[tuple[int, ...], Sizes, np.random.Generator], Array]] = {
    ALIGNED_FACES.name: _uniform,
    FACE_INDEX.name: _face_choices,
    "picture": _blocks,
    "timestep": _times,
    "class_token": _unit_vectors,
}


def _extra(variant: Variant, tensor: Tensor, shape: tuple[int, ...], sizes: Sizes) -> Array:
    height, width = (sizes[axis] * variant.latent_scale for axis in ("latent_height", "latent_width"))
    return np.broadcast_to(variant.extras_for(height, width)[tensor.name], shape)


def _ids(tokens: Tokens, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Prompts of different lengths. An identity token stands inside its window in even rows, and beyond it in all."""
    ids = np.full(shape, tokens.padding)
    begin = [] if tokens.begin is None else [tokens.begin]
    first, last = tokens.words or (1, min(tokens.end, *begin) - 1)
    for row, line in enumerate(ids):
        length = int(generator.integers(tokens.max_tokens // 2, tokens.max_tokens - 1))
        words = generator.integers(first, last + 1, length - len(begin))
        words[words == tokens.identity_token] = first
        line[:length] = [*begin, *words]
        line[length] = tokens.end
        if tokens.identity_token is None:
            continue
        line[tokens.identity_window + 3] = tokens.identity_token
        if row % 2 == 0:
            line[tokens.identity_window - 2] = tokens.identity_token
    return ids
