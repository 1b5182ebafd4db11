"""Are weights and chunks of prompts what they say? Pictures against diffusers' own pipeline, given embeddings that are put together here.

A prompt is written down as its chunks, each as words with their weights. From that follow the text in the usual notation, which the
server reads, and, on a way of its own, tokens and their weights: words are tokenised apart. The torch encoder encodes them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from faceclip_serving.contract.tensors import Array
from faceclip_serving.contract.variants.architectures import FACE_SIZE
from faceclip_serving.contract.variants.variant import Tokens, Variant
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.face.prepare import prepare_face
from faceclip_serving.models.prompts import encode_prompt, load_tokenizer

from ..measure.example import PHOTO
from ..measure.pictures import Picture, picture_psnr_db
from ..measure.report import say

if TYPE_CHECKING:
    import torch

    from ..measure.oracle import Oracle

Weighted = Sequence[tuple[str, float]]
"""Words and their weight."""
Draw = Callable[..., Picture]
"""(prompt, keywords of a call) -> its first picture."""

_FIRST: Weighted = (("portrait of a person in", 1.0), ("a red hat", 1.4), (", studio light", 0.8))
_SECOND: Weighted = (("a", 1.0), ("blue coat", 1.21), ("in the rain", 1.0))
_THIRD: Weighted = (("a castle behind", 0.5), ("a tower", 1.0))
PROMPTS: Mapping[str, tuple[Weighted, ...]] = {
    "weights": (_FIRST,),
    "two chunks": ((("portrait of a person", 1.0),), (("in the rain", 1.0),)),
    "three chunks, weights": (_FIRST, _SECOND, _THIRD),
}
NEGATIVES: Mapping[str, tuple[Weighted, ...]] = {
    "plain": ((("blurry", 1.0),),),
    "two chunks, weights": ((("blurry", 1.0), ("fog", 1.3)), (("hat", 0.0), ("night", 1.0))),
}


def written(chunks: Iterable[Weighted]) -> str:
    """A prompt in the usual notation."""
    return " BREAK ".join(
        " ".join(words if weight == 1 else f"({words}:{weight:g})" for words, weight in chunk) for chunk in chunks
    )


@dataclass(frozen=True)
class _Rows:
    """Rows of one prompt: of each chunk, and at last one without words."""

    ids: dict[str, Array]
    weights: Array
    """Of the chunks' tokens, [chunks, tokens]."""


def _rows(variant: Variant, tokenizers: Mapping[str, Any], chunks: Sequence[Weighted], prefixed: bool) -> _Rows:
    text = variant.text_tokens
    rows = [_row(tokenizers[text.input], text, chunk, prefixed) for chunk in (*chunks, ())]
    ids = {text.input: np.stack([row for row, _ in rows])}
    for tokens in variant.tokens[:-1]:  # readers of the whole text, without weights
        plain = " ".join(words for chunk in chunks for words, _ in chunk)
        whole = [encode_prompt(tokenizers[tokens.input], tokens, each, prefixed).ids for each in (plain, "")]
        ids[tokens.input] = np.stack([*whole[:1] * len(chunks), whole[1]])
    return _Rows(ids, np.stack([weights for _, weights in rows[:-1]]))


def _row(tokenizer: Any, tokens: Tokens, chunk: Weighted, prefixed: bool) -> tuple[Array, Array]:
    ids, weights = np.full(tokens.max_tokens, tokens.padding), np.ones(tokens.max_tokens, np.float32)
    begin: Weighted = [(tokens.face_prefix, 1.0)] if prefixed and tokens.face_prefix else []
    row, of_row = [] if tokens.begin is None else [tokens.begin], [] if tokens.begin is None else [1.0]
    for words, weight in (*begin, *chunk):
        found = tokenizer.encode(words, add_special_tokens=False).ids
        row, of_row = [*row, *found], [*of_row, *[weight] * len(found)]
    ids[: len(row) + 1], weights[: len(row)] = [*row, tokens.end], of_row
    return ids, weights


def reference(
    oracle: Oracle, tokenizers: Mapping[str, Any], prompt: Sequence[Weighted], negative: Sequence[Weighted], photo: bytes | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings and pooled rows of the negative and the positive prompt, as diffusers' pipeline takes them."""
    import torch

    face = np.zeros((3, FACE_SIZE, FACE_SIZE), np.float32) if photo is None else prepare_face(photo, 0, False, YuNet()).crop
    texts, wholes = [], []
    for chunks, shows_face in ((negative, False), (prompt, photo is not None)):
        rows = _rows(oracle.variant, tokenizers, chunks, shows_face)
        count = len(chunks) + 1
        faces = np.stack([face if shows_face else np.zeros_like(face)] * count)
        embeddings, pooled = oracle.encode(faces, np.array([shows_face] * count), rows.ids)
        weights = torch.from_numpy(rows.weights)[:, :, None]
        texts.append(torch.cat(list(weights * embeddings[:-1] + (1 - weights) * embeddings[-1:])))
        wholes.append(pooled[0])
    longest = math.lcm(*map(len, texts))
    return torch.stack([text.repeat(longest // len(text), 1) for text in texts]), torch.stack(wholes)


def prompts_of(oracle: Oracle, prepare_folder: Path, draw: Draw, steps: int = 6) -> dict[str, Any]:
    """Every combination of prompt, negative prompt and face that the variant reads in so many chunks; PSNR of each picture that `draw`
    makes to the reference's."""
    variant = oracle.variant
    tokenizers = {tokens.input: load_tokenizer(prepare_folder / tokens.tokenizer) for tokens in variant.tokens}
    usual = variant.defaults
    sides: dict[str, Any] = {"height": usual.height, "width": usual.width}
    cases: list[dict[str, Any]] = []
    for (name, prompt), (other, negative), photo in itertools.product(
        PROMPTS.items(), NEGATIVES.items(), (PHOTO.read_bytes(), None)
    ):
        if max(len(prompt), len(negative)) > variant.limits.chunks:
            continue
        common: dict[str, Any] = {"scheduler": usual.scheduler, "guidance_scale": usual.guidance_scale, "seed": 1}
        face: dict[str, Any] = {"face_image": photo} if photo else {}
        ask = partial(draw, written(prompt), negative_prompt=written(negative), num_inference_steps=steps, **common, **face)
        embeddings, pooled = reference(oracle, tokenizers, prompt, negative, photo)
        expected = oracle.picture(embeddings, pooled, **common, **sides, steps=steps)
        psnr = picture_psnr_db(ask(**sides), expected)
        cases.append({"prompt": name, "negative": other, "face": photo is not None, "psnr_db": round(psnr, 2)})
        say(f"{name}, negative {other}, {'face' if photo else 'no face'}: {psnr:.1f} dB")
    return {"variant": variant.name, "psnr_db_min": min(case["psnr_db"] for case in cases), "cases": cases}
