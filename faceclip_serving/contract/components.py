"""Signatures of the components, the neural networks of a variant: pure functions of tensors, the same whatever runtime runs them.

`export` turns them into ONNX, and follows from nothing of the models around them.

How rows and faces meet: a request brings `faces` aligned crops and needs `rows` encodings, one per (face, prompt) pair. Each
row names its face by `face_index`; -1 means "no face", which the published network defines as an all-zero image. The features
of that image are constants of the exported text encoder, so a face-free row costs no face encoder run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from .names import DENOISER, FACE_ENCODER, TEXT_ENCODER, VAE_DECODER, VAE_ENCODER
from .tensors import Bounds, DType, Range, Signature, Tensor
from .variants.architectures import FACE_SIZE
from .variants.variant import Variant

ALIGNED_FACES = Tensor(
    "aligned_faces", DType.FP32, ("faces", 3, FACE_SIZE, FACE_SIZE), "aligned RGB crop in [0, 1]; zeros: no face"
)
FACE_INDEX = Tensor("face_index", DType.INT64, ("rows", 1), "row of aligned_faces that this prompt belongs to; -1: no face")

SIDES = {"latent_height": "height", "latent_width": "width"}
"""Axes of a picture: those in latent cells -> those in pixels."""
TEXT_TOKENS = "text_tokens"
"""Axis of the denoiser's embeddings where prompts may have several chunks: whole ones, all of a call as many."""


def latents(variant: Variant, batch_axis: str, name: str = "latents") -> Tensor:
    """A tensor of latents, with the given name for its first axis."""
    axes = (batch_axis, variant.latent_channels, "latent_height", "latent_width")
    return Tensor(name, DType.FP32, axes, "VAE latents, scaled as the denoiser sees them")


def ids(variant: Variant) -> tuple[Tensor, ...]:
    """Token ids, one tensor per tokenizer of the variant."""
    return tuple(Tensor(t.input, DType.INT64, ("rows", t.max_tokens), "token ids, padded") for t in variant.tokens)


def components(variant: Variant) -> dict[str, Signature]:
    """The networks of a variant."""
    return {
        FACE_ENCODER: Signature(FACE_ENCODER, (ALIGNED_FACES,), variant.face_features, "aligned face -> identity features"),
        TEXT_ENCODER: Signature(
            TEXT_ENCODER,
            (*ids(variant), FACE_INDEX, *variant.fused_features),
            variant.conditioning,
            "prompt tokens fused with the features of a face",
        ),
        VAE_ENCODER: Signature(
            VAE_ENCODER,
            (Tensor("picture", DType.FP32, ("images", 3, "height", "width"), "RGB in [0, 1]; sides are whole latent cells"),),
            (
                replace(
                    latents(variant, "images", "latent_mean"), doc="of the picture's latents, scaled as the denoiser sees them"
                ),
                replace(
                    latents(variant, "images", "latent_std"), doc="standard deviation about `latent_mean`, in the same scale"
                ),
            ),
            "picture -> normal distribution of its latents; the sampler draws mean + std * noise",
        ),
        DENOISER: Signature(
            DENOISER,
            (
                latents(variant, "rows"),
                Tensor("timestep", DType.FP32, ("rows", 1), "diffusion time of each row, in [0, 1000]"),
                *_denoised_with(variant),
                *variant.extras,
            ),
            (replace(latents(variant, "rows", "noise_pred"), doc="predicted noise (or velocity)"),),
            "one denoising step for rows that may belong to different requests",
        ),
        VAE_DECODER: Signature(
            VAE_DECODER,
            (latents(variant, "images"),),
            (Tensor("image", DType.FP32, ("images", 3, "height", "width"), "RGB in [0, 1]"),),
            "latents -> picture; undoes the latent scaling itself",
        ),
    }


def _denoised_with(variant: Variant) -> tuple[Tensor, ...]:
    """The conditioning of whole texts, where that of the text encoder is of one chunk."""
    embeddings, *of_whole = variant.conditioning
    if variant.limits.chunks > 1:
        rows, _, width = embeddings.axes
        embeddings = replace(embeddings, axes=(rows, TEXT_TOKENS, width))
    return embeddings, *of_whole


MAX_FACE_FREE_ROWS = 3
"""Texts of one request that show no face: negative prompt, prompt alone, prompt with the face prefix."""


def most_encoded(variant: Variant) -> int:
    """Rows of one call of the text encoder, at most: all texts of a request, where none has weights or several chunks."""
    return variant.limits.faces + MAX_FACE_FREE_ROWS


def bounds(variant: Variant, denoiser_rows: int, vae_tile: int = 0) -> dict[str, Bounds]:
    """Per component, the sizes its named axes may take.

    `denoiser_rows`: largest batch of one denoiser call. `vae_tile`: latent cells per side that the VAE's halves see at most, one
    picture at a time; 0: whole pictures. Pictures are encoded one at a time: a request brings one. Texts of different numbers of
    chunks are repeated until they are equally long.
    """
    faces = Range(1, 1, variant.limits.faces)
    rows = Range(1, 2, most_encoded(variant))
    grid = {"latent_height": variant.latent_height, "latent_width": variant.latent_width}
    one = Range(1, 1, 1)
    images, seen = Range(1, 1, variant.limits.num_images_per_prompt), grid
    if vae_tile:
        images, seen = one, {axis: _within_tile(side, vae_tile, variant.latent_multiple) for axis, side in grid.items()}
    tokens, chunks = variant.text_tokens.max_tokens, variant.limits.chunks
    texts = {TEXT_TOKENS: Range(tokens, tokens, tokens * math.lcm(*range(1, chunks + 1)))} if chunks > 1 else {}
    pixels = {
        axis.removeprefix("latent_"): Range(*(cells * variant.latent_scale for cells in side)) for axis, side in seen.items()
    }
    return {
        FACE_ENCODER: {"faces": faces},
        TEXT_ENCODER: {"faces": faces, "rows": rows},
        VAE_ENCODER: {"images": one, **pixels},
        DENOISER: {"rows": Range(1, min(2, denoiser_rows), denoiser_rows), **texts, **grid},
        VAE_DECODER: {"images": images, **seen},
    }


def usual_sizes(variant: Variant, limits: Bounds) -> list[dict[str, int]]:
    """Named axes of the calls that a server gets most: of the default picture, one at a time and as many as go into a call."""
    picture = both_sides(variant, {"height": variant.defaults.height, "width": variant.defaults.width})
    one = {axis: min(picture.get(axis, limit.opt), limit.max) for axis, limit in limits.items()}
    most = {axis: size if axis in (*picture, TEXT_TOKENS) else limits[axis].max for axis, size in one.items()}
    return [one] if one == most else [one, most]


def both_sides(variant: Variant, sizes: Mapping[str, int]) -> dict[str, int]:
    """`sizes` of named axes, with those of a picture in latent cells and in pixels where one of both is given."""
    scale = variant.latent_scale
    in_pixels = {pixels: sizes[cells] * scale for cells, pixels in SIDES.items() if cells in sizes}
    in_cells = {cells: sizes[pixels] // scale for cells, pixels in SIDES.items() if pixels in sizes}
    return {**in_pixels, **in_cells, **sizes}


def _within_tile(side: Range, tile: int, multiple: int) -> Range:
    if tile < 2 or tile % multiple:
        raise ValueError(f"vae_tile: expected a multiple of {multiple} latent cells, at least 2, or 0; got {tile}")
    return Range(*(min(cells, tile) for cells in side))


def multiples(variant: Variant) -> dict[str, int]:
    """Named axes whose sizes come in multiples, and of what."""
    of = variant.latent_multiple
    sides = {**dict.fromkeys(SIDES, of), **dict.fromkeys(SIDES.values(), of * variant.latent_scale)}
    return {**sides, TEXT_TOKENS: variant.text_tokens.max_tokens}
