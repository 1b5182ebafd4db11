"""Who makes the pictures of an evaluation: the exported graphs in the public request's terms, or a peer that exists only in torch.

Settings are parameters of the public request by their names; a maker turns cases and settings into pictures.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from export.repository.from_nothing import build_repository
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.placements import CPU, Execution, Placement
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.tensors import Array
from faceclip_serving.contract.variants.variant import Variant
from training.learning.autoencoder import decode_pictures
from training.learning.drawing import Guidance, generate
from training.learning.identity import face_features
from training.networks.conditioning import Faces
from training.pictures.crops import encoder_view
from training.pictures.dataset import VIEW
from training.run.weights import read_generator, read_vae

from ..measure import inprocess
from ..measure.pictures import decoded
from .judges import Pictures
from .world import Cases

Settings = Mapping[str, Any]
Maker = Callable[[Cases, Settings], Pictures]
_ROWS = 8
"""Pictures that a torch peer makes together; more only costs memory."""


def cpu_placement(precision: str, denoiser: str | None = None) -> Placement:
    """The `cpu` placement with all components in one precision, or the denoiser in one of its own."""
    placed = {name: Execution(each.runtime, precision) for name, each in CPU.components.items()}
    name = f"{CPU.name}-{precision}"
    if denoiser not in (None, precision):
        placed[DENOISER] = Execution(CPU.components[DENOISER].runtime, denoiser)
        name += f"-{denoiser}"
    return replace(CPU, name=name, components=placed)


def exported(variant: Variant, weights: Path | None, precision: str, threads: int = 0, denoiser: str | None = None) -> Maker:
    """The functions and graphs that are served, in this process, exported first if need be."""
    placement = cpu_placement(precision, denoiser)
    pipeline = inprocess.load(variant, placement, build_repository(variant, placement, weights), threads)

    def make(cases: Cases, settings: Settings) -> Pictures:
        files = [_png(crop) for crop in cases.shots.crops]
        made = []
        for i, prompt in enumerate(cases.prompts):
            photos = [files[row] for row in cases.references[i]]
            request = request_of(prompt, photos, {**settings, "seed": cases.seeds[i]})
            made.append(decoded(pipeline(request)["images"][0]))
        return np.stack(made)

    return make


def request_of(prompt: str, aligned: list[bytes], settings: Settings) -> dict[str, Array]:
    """The tensors of a public request. `aligned`: encoded crops."""
    faces = {"face_images": aligned, "face_aligned": True} if aligned else {}
    return request_tensors(prompt=prompt, **faces, **settings)


def trained(folder: Path, peer: str, usual: Settings) -> Maker:
    """A peer's networks in torch, with the same noise and scheduler as the exported ones. `usual`: the variant's defaults."""
    unet, conditioner = read_generator(folder, peer)
    vae = read_vae(folder)

    @torch.no_grad()
    def make(cases: Cases, settings: Settings) -> Pictures:
        views = np.stack([encoder_view(crop, VIEW) for crop in cases.shots.crops])
        faces = Faces(*face_features(conditioner.encoder.branches[0].face_encoder, views))
        guidance = guidance_of({**usual, **settings})
        parts = []
        for i in range(0, len(cases), _ROWS):
            rows = cases.only(range(i, min(i + _ROWS, len(cases))))
            latents = generate(unet, conditioner, rows.prompts, faces, rows.references, guidance, seeds=rows.seeds)
            parts.append(decode_pictures(vae, latents))
        return np.concatenate(parts)

    return make


def guidance_of(settings: Settings) -> Guidance:
    """The settings that torch peers know. Raises `ValueError` for others."""
    known = {"guidance_scale", "num_inference_steps", "scheduler"}
    if set(settings) - known:
        raise ValueError(f"setting: peers in torch know {', '.join(sorted(known))}, got {sorted(set(settings) - known)}")
    scale = float(settings["guidance_scale"])
    return Guidance(scale, scale, steps=int(settings["num_inference_steps"]), scheduler=str(settings["scheduler"]))


def _png(picture: Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()
