"""The conditioning of whole texts, from the text encoder's rows: weights of their words, and the chunks of long ones.

A weight scales the difference that its words make: to a row, the row of the same text, face and prefix with blanks in their places.
Weight 1 changes nothing, and 0 is the text without the words. What other words have heard of them, and the pooled row where the
encoder sees the blanks, are scaled along; the face and all else are not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..contract.job import Encoding, Job
from ..contract.tensors import Array
from ..contract.variants.variant import Variant


def of_texts(variant: Variant, job: Job, encoded: Mapping[str, Array]) -> dict[str, Array]:
    """Rows of the text encoder's output -> conditioning, a row per text of `job`; all with as many places for tokens.

    `pooled` and its like are the first chunk's.

    Shorter ones are repeated as a whole: attention over tokens without a mask has the same mean of them. So a picture's rows fit one call.
    """
    per_token, *of_whole = (tensor.name for tensor in variant.conditioning)
    if not job.encodings:
        return {name: encoded[name] for name in (per_token, *of_whole)}
    texts = [np.concatenate(_chunks(encoded[per_token], encoding)) for encoding in job.encodings]
    tokens = math.lcm(*(len(text) for text in texts))
    return {
        per_token: np.stack([np.tile(text, (tokens // len(text), 1)) for text in texts]),
        **{name: np.stack([_chunks(encoded[name], encoding)[0] for encoding in job.encodings]) for name in of_whole},
    }


def _chunks(rows: Array, encoding: Encoding) -> Array:
    """Of one text [chunks, ...], from the text encoder's rows [rows, ...]."""
    chunks: Array = rows[encoding.rows]
    whole = chunks
    for weight, without in zip(encoding.weights, encoding.without, strict=True):
        chunks = chunks + np.float32(weight - 1) * (whole - rows[without])
    return chunks
