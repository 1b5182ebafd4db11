"""Classifier-free guidance for a face and a text, as one formula.

A picture's prediction is a chain over branches, e(b0) + s1·[e(b1) - e(b0)] + s2·[e(b2) - e(b1)]. With u = negative prompt
without a face, t = prompt without a face, f = prompt with the face:

- standard (the published pipeline's): (u, f), scale g
- split: (u, t, f), scales s_text, s_id; s_id = 0 is the face-free picture, equal scales are the standard form
- no guidance (g <= 1): (f,)

Every step has its own chain, because guidance and identity may be limited to an interval of the steps. Branches that a chain
does not name are not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..contract.parameters import GenerationRequest
from ..contract.tensors import Array

UNCONDITIONAL, TEXT, IDENTITY = "unconditional", "text", "identity"
PREFIXED_TEXT = "prefixed_text"
"""Encoding of the face-prefixed prompt without a face: what `blend_weight` mixes the identity with."""


@dataclass(frozen=True)
class Chain:
    """Branches and the scales between neighbours; len(scales) == len(branches) - 1."""

    branches: tuple[str, ...]
    scales: tuple[float, ...]


def chain_at(request: GenerationRequest, has_face: bool, step: int) -> Chain:
    """The guidance chain of step number `step` (from 0)."""
    guided = _within(step, request.guidance_start, request.guidance_end, request.num_inference_steps)
    text_scale, id_scale = request.guidance_scales if guided else (1.0, 1.0)
    if not (has_face and _within(step, request.id_start, request.id_end, request.num_inference_steps)):
        return _pair(TEXT, text_scale)
    if text_scale == id_scale:
        return _pair(IDENTITY, text_scale)
    if id_scale == 0.0:
        return _pair(TEXT, text_scale)
    if text_scale == 1.0:
        return Chain((TEXT, IDENTITY), (id_scale,))
    return Chain((UNCONDITIONAL, TEXT, IDENTITY), (text_scale, id_scale))


def _within(step: int, start: float, end: float, steps: int) -> bool:
    """Whether a step lies in an interval of fractions; rounded to whole steps, since 0.4 arrives as the FP32 next to it."""
    return round(start * steps) <= step < round(end * steps)


def _pair(branch: str, scale: float) -> Chain:
    return Chain((branch,), ()) if scale <= 1.0 else Chain((UNCONDITIONAL, branch), (scale,))


def branches_needed(request: GenerationRequest, has_face: bool, begin: int = 0) -> tuple[str, ...]:
    """Every branch that some step of the request needs from step number `begin` on, in a fixed order."""
    steps = range(begin, request.num_inference_steps)
    used = {branch for step in steps for branch in chain_at(request, has_face, step).branches}
    return tuple(branch for branch in (UNCONDITIONAL, TEXT, IDENTITY) if branch in used)


def combine(predictions: Sequence[Any], scales: Sequence[float]) -> Any:
    """The chain's value from the predictions of its branches (arrays or tensors of one shape)."""
    value = predictions[0]
    for scale, left, right in zip(scales, predictions[:-1], predictions[1:], strict=True):
        value = value + scale * (right - left)
    return value


def with_guidance(steps: Array, chains: Sequence[Chain]) -> Array:
    """Matrices of steps over the branches in the place of the prediction: the first branch, then each one's difference to the one
    before it. `steps`: those of `Schedule`, as many as `chains`."""
    registers = steps.shape[1]
    scales = np.zeros((len(chains), 1, max(len(chain.branches) for chain in chains)), np.float32)
    for row, chain in zip(scales, chains, strict=True):
        row[0, : len(chain.branches)] = (1.0, *chain.scales)
    of_prediction = steps[:, :, registers : registers + 1]
    return np.concatenate([steps[:, :, :registers], of_prediction * scales, steps[:, :, registers + 1 :]], axis=2)


def blend(identity: Any, prefixed_text: Any, weight: float) -> Any:
    """`blend_weight`: conditioning between the face (1) and the same prompt without it (0)."""
    return weight * identity + (1.0 - weight) * prefixed_text


def weighted_sum(rows: Sequence[Any], weights: Sequence[float]) -> Any:
    """Conditioning of several references of one person; one row of weight 1 is returned unchanged."""
    if len(rows) == 1:
        return rows[0]
    total = weights[0] * rows[0]
    for weight, row in zip(weights[1:], rows[1:], strict=True):
        total = total + weight * row
    return total
