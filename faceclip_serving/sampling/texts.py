"""The conditioning of whole texts, from the text encoder's rows: weights of their words, and the chunks of long ones.

A weight scales the distance of a token's embedding from the one at the same place where the text has no words, with the same face and
prefix: 1 changes nothing, 0 says no more than nothing at that place, and neither the face nor the level of the embeddings is scaled
along. The face and all that is of the whole text, such as `pooled`, bear no weight; of several chunks the first has it.
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

    Shorter ones are repeated as a whole: attention over tokens without a mask has the same mean of them. So a picture's rows fit one call.
    """
    per_token, *of_whole = (tensor.name for tensor in variant.conditioning)
    if not job.encodings:
        return {name: encoded[name] for name in (per_token, *of_whole)}
    texts = [_of_text(encoded[per_token], encoding) for encoding in job.encodings]
    tokens = math.lcm(*(len(text) for text in texts))
    first = [encoding.rows[0] for encoding in job.encodings]
    return {
        per_token: np.stack([np.tile(text, (tokens // len(text), 1)) for text in texts]),
        **{name: encoded[name][first] for name in of_whole},
    }


def _of_text(rows: Array, encoding: Encoding) -> Array:
    """Embeddings [chunks * tokens, width] of one text. `rows`: [rows, tokens, width]."""
    if encoding.base is None:
        return np.concatenate([rows[row] for row in encoding.rows])
    base = rows[encoding.base]
    weights = np.array(encoding.weights, np.float32)[:, :, None]
    return np.concatenate([
        np.where(weight == 1, rows[row], base + weight * (rows[row] - base))
        for row, weight in zip(encoding.rows, weights, strict=True)
    ])  # fmt: skip
