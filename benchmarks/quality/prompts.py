"""Are weights and chunks of prompts what they say? Pictures against diffusers' own pipeline, given embeddings that are put together here.

A prompt is written down as its chunks, each as words with their weights. From that follow the text in the usual notation, which the
server reads, and, on a way of its own, tokens and their weights: words are tokenised apart. The torch encoder encodes them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from faceclip_serving.contract.tensors import Array
from faceclip_serving.contract.variants.variant import Tokens
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.face.prepare import prepare_face
from faceclip_serving.models.prompts import encode_prompt, load_tokenizer

from ..measure.example import PHOTO
from ..measure.pictures import Picture, picture_psnr_db
from ..measure.report import say

if TYPE_CHECKING:
    import torch

    from ..measure.oracle import Oracle

Weighted = tuple[tuple[str, float], ...]
"""Words and their weight."""
Text = Callable[[tuple[Weighted, ...], bool], "tuple[torch.Tensor, torch.Tensor]"]
"""(chunks, whether the photograph is shown) -> embeddings of all chunks [tokens, width], and the pooled row of the first one."""
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


def _row(tokenizer: Any, tokens: Tokens, chunk: Weighted, prefixed: bool, blank: float | None) -> Array:
    """Ids of a chunk. `blank`: the words of this weight are padding."""
    before: Weighted = ((tokens.face_prefix, 1.0),) if prefixed and tokens.face_prefix else ()
    row = [] if tokens.begin is None else [tokens.begin]
    for words, weight in (*before, *chunk):
        found = tokenizer.encode(words, add_special_tokens=False).ids
        row += [tokens.padding] * len(found) if weight == blank else found
    row.append(tokens.end)
    return np.array(row + [tokens.padding] * (tokens.max_tokens - len(row)), np.int64)


def texts_of(oracle: Oracle, tokenizers: Mapping[str, Any], photo: bytes) -> Text:
    """The oracle's encoder for whole prompts; each is encoded once, however often it is asked for."""
    import torch

    face = prepare_face(photo, 0, False, YuNet()).crop

    def encode(chunks: Iterable[Weighted], chunk: Weighted, shows_face: bool, blank: float | None = None) -> tuple[Any, Any]:
        *readers, text = oracle.variant.tokens
        whole = " ".join(words for each in chunks for words, _ in each)
        ids = {t.input: encode_prompt(tokenizers[t.input], t, whole, shows_face).ids[None] for t in readers}
        ids[text.input] = _row(tokenizers[text.input], text, chunk, shows_face, blank)[None]
        seen = face if shows_face else np.zeros_like(face)
        embeddings, pooled = oracle.encode(seen[None], np.array([shows_face]), ids)
        return embeddings[0], pooled[0]

    def weighted(chunks: Iterable[Weighted], chunk: Weighted, shows_face: bool) -> tuple[Any, Any]:
        whole = encode(chunks, chunk, shows_face)
        embeddings, pooled = whole
        for weight in {weight for _, weight in chunk if weight != 1}:
            without = encode(chunks, chunk, shows_face, weight)
            embeddings = embeddings + (weight - 1) * (whole[0] - without[0])
            pooled = pooled + (weight - 1) * (whole[1] - without[1])
        return embeddings, pooled

    @functools.cache
    def text(chunks: tuple[Weighted, ...], shows_face: bool) -> tuple[torch.Tensor, torch.Tensor]:
        found = [weighted(chunks, chunk, shows_face) for chunk in chunks]
        return torch.cat([embeddings for embeddings, _ in found]), found[0][1]

    return text


def conditioned(texts: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings and pooled rows of the negative and the positive prompt, as diffusers' pipeline takes them: a short one is repeated."""
    import torch

    longest = math.lcm(*(len(embeddings) for embeddings, _ in texts))
    repeated = [embeddings.repeat(longest // len(embeddings), 1) for embeddings, _ in texts]
    return torch.stack(repeated), torch.stack([pooled for _, pooled in texts])


def prompts_of(oracle: Oracle, prepare_folder: Path, draw: Draw, steps: int = 6) -> dict[str, Any]:
    """Every combination of prompt, negative prompt and face that the variant reads in so many chunks; PSNR of each picture that `draw`
    makes to the reference's."""
    variant = oracle.variant
    tokenizers = {tokens.input: load_tokenizer(prepare_folder / tokens.tokenizer) for tokens in variant.tokens}
    photo = PHOTO.read_bytes()
    text, usual = texts_of(oracle, tokenizers, photo), variant.defaults
    sides: dict[str, Any] = {"height": usual.height, "width": usual.width}
    cases: list[dict[str, Any]] = []
    for (name, prompt), (other, negative), shows_face in itertools.product(PROMPTS.items(), NEGATIVES.items(), (True, False)):
        if max(len(prompt), len(negative)) > variant.limits.chunks:
            continue
        common: dict[str, Any] = {"scheduler": usual.scheduler, "guidance_scale": usual.guidance_scale, "seed": 1}
        face: dict[str, Any] = {"face_image": photo} if shows_face else {}
        ask = partial(draw, written(prompt), negative_prompt=written(negative), num_inference_steps=steps, **common, **face)
        embeddings, pooled = conditioned((text(negative, False), text(prompt, shows_face)))
        expected = oracle.picture(embeddings, pooled, **common, **sides, steps=steps)
        psnr = picture_psnr_db(ask(**sides), expected)
        cases.append({"prompt": name, "negative": other, "face": shows_face, "psnr_db": round(psnr, 2)})
        say(f"{name}, negative {other}, {'face' if shows_face else 'no face'}: {psnr:.1f} dB")
    return {"variant": variant.name, "psnr_db_min": min(case["psnr_db"] for case in cases), "cases": cases}
