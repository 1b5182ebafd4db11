"""Several people in one picture, by a plain loop in torch: the formula alone, one request alone, against what is served.

    u + g·[f0 - u] + g·Σk mk·[fk - f0]

with u the negative prompt, f0 the prompt without a face, fk that of person k. Nothing of the server draws here: masks, guidance and
intervals are computed anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FluxPipeline
from PIL import Image, ImageOps

from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.schedules import make_scheduler
from faceclip_serving.contract.tensors import Array
from faceclip_serving.contract.variants.architectures import FACE_SIZE, FluxArchitecture
from faceclip_serving.contract.variants.flux import DISTILLED_GUIDANCE
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.face.prepare import prepare_face
from faceclip_serving.models.people import BORDER
from faceclip_serving.models.prompts import encode_prompt, load_tokenizer

from ..measure.example import PHOTO, PROMPT
from ..measure.oracle import Encoded, Oracle
from ..measure.pictures import Picture, picture_psnr_db, png
from ..measure.report import say

OWN_PROMPT = "a statue of marble"
BOXES = ((0.0, 0.0, 0.6, 1.0), (0.45, 0.1, 1.0, 0.95))
WEIGHTS = (1.0, 0.7)
INTERVALS: tuple[Mapping[str, float], ...] = ({}, {"id_start": 0.34, "guidance_end": 0.67})
"""The whole run; and one that begins with the common prompt alone and ends without guidance."""
Noise = Callable[[torch.Tensor, Any, Encoded], torch.Tensor]
"""(latents [1, ...], timestep, conditioning of one row) -> its prediction."""


def together_of(
    oracle: Oracle,
    prepare_folder: Path,
    draw: Callable[..., Picture],
    sizes: Sequence[tuple[int, int]],
    schedulers: Sequence[str],
    steps: int = 6,
) -> dict[str, Any]:
    """Two people, one of them with a prompt of their own and less weight: PSNR of each picture that `draw` makes to the loop's.

    `draw`: (prompt, keywords of a call, `people` as the list that its JSON says) -> the picture. `sizes`: height and width.
    """
    variant = oracle.variant
    photos = _photographs()
    rows = _encoded(oracle, prepare_folder, photos)
    scale = variant.defaults.guidance_scale
    people = [
        {"faces": [k], "box": list(box), "weight": weight, **({"prompt": OWN_PROMPT} if k else {})}
        for k, (box, weight) in enumerate(zip(BOXES, WEIGHTS, strict=True))
    ]
    cases: list[dict[str, Any]] = []
    for scheduler, (height, width), interval in itertools.product(schedulers, sizes, INTERVALS):
        options = {"scheduler": scheduler, "height": height, "width": width, "seed": 1}
        expected = _drawn(oracle, rows, steps, scale, interval, options)
        found = draw(
            PROMPT, face_images=photos, people=people, num_inference_steps=steps, guidance_scale=scale, **options, **interval
        )
        psnr = picture_psnr_db(found, expected)
        cases.append({"scheduler": scheduler, "height": height, "width": width, **interval, "psnr_db": round(psnr, 2)})
        say(f"{scheduler} {height}x{width} {dict(interval) or 'throughout'}: {psnr:.1f} dB")
    return {"variant": variant.name, "psnr_db_min": min(case["psnr_db"] for case in cases), "cases": cases}


def _photographs() -> list[bytes]:
    """Somebody, and somebody else: the same face seen in a mirror, in other colours."""
    image = Image.open(PHOTO).convert("RGB")
    return [PHOTO.read_bytes(), png(np.asarray(ImageOps.mirror(image))[:, :, ::-1].copy())]


def _encoded(oracle: Oracle, prepare_folder: Path, photos: Sequence[bytes]) -> list[Encoded]:
    """The negative prompt, the prompt without a face, and that of each person."""
    variant = oracle.variant
    image = np.zeros((2 + len(photos), 3, FACE_SIZE, FACE_SIZE), np.float32)
    for k, photo in enumerate(photos):
        image[2 + k] = prepare_face(photo, k, False, YuNet()).crop
    texts = ((variant.defaults.negative_prompt, False), (PROMPT, False), (PROMPT, True), (OWN_PROMPT, True))
    ids = {}
    for tokens in variant.tokens:
        tokenizer = load_tokenizer(prepare_folder / tokens.tokenizer)
        ids[tokens.input] = np.stack([encode_prompt(tokenizer, tokens, text, prefixed).ids for text, prefixed in texts])
    embeddings, pooled = oracle.encode(image, np.array([False, False, True, True]), ids)
    return [(embeddings[i : i + 1], pooled[i : i + 1]) for i in range(len(texts))]


def masks(height: int, width: int, cells: int) -> Array:
    """Of `BOXES`, with `WEIGHTS`, FP32 [people, height, width] of latent cells, `cells` pixels a side."""
    covered = []
    for left, top, right, bottom in BOXES:
        across = _within(round(left * width * cells), round(right * width * cells), width, cells)
        down = _within(round(top * height * cells), round(bottom * height * cells), height, cells)
        sigma = BORDER * min(height, width)
        covered.append(np.outer(_softened(down, sigma), _softened(across, sigma)))
    share = np.array(covered) / np.maximum(np.sum(covered, axis=0), 1)
    return np.asarray(share * np.array(WEIGHTS)[:, None, None], np.float32)


def _within(first: int, last: int, count: int, cells: int) -> Array:
    """The part of each of `count` cells that lies between two pixels."""
    inside = np.zeros(count * cells)
    inside[first:last] = 1
    return np.asarray(inside.reshape(count, cells).mean(1))


def _softened(line: Array, sigma: float) -> Array:
    """By a Gaussian as far as four deviations, where the line's ends go on."""
    reach = (round(sigma * 8 + 1) | 1) // 2
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    return np.convolve(np.pad(line, reach, mode="edge"), kernel / kernel.sum(), "valid")


@torch.no_grad()
def _drawn(
    oracle: Oracle,
    rows: Sequence[Encoded],
    steps: int,
    scale: float,
    interval: Mapping[str, float],
    options: Mapping[str, Any],
) -> Picture:
    """One picture, uint8 [height, width, 3]."""
    variant = oracle.variant
    height, width = (options[side] // variant.latent_scale for side in ("height", "width"))
    shares = torch.from_numpy(masks(height, width, variant.latent_scale))[:, None]
    scheduler = make_scheduler(options["scheduler"], variant.scheduler_config)
    scheduler.set_timesteps(**variant.timesteps_for(variant.scheduler_config, steps, options["height"], options["width"]))
    noise = (
        _flux_noise(oracle, height, width)
        if isinstance(variant.architecture, FluxArchitecture)
        else _sdxl_noise(oracle, options)
    )
    generator = torch.Generator().manual_seed(options["seed"])
    latents = torch.randn((1, variant.latent_channels, height, width), generator=generator)
    latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)
    negative, common, *people = rows
    for step, timestep in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(latents, timestep) if hasattr(scheduler, "scale_model_input") else latents
        prediction = plain = noise(seen, timestep, common)
        if step >= round(interval.get("id_start", 0.0) * steps):
            for share, person in zip(shares, people, strict=True):
                prediction = prediction + share * (noise(seen, timestep, person) - plain)
        if step < round(interval.get("guidance_end", 1.0) * steps):
            unconditional = noise(seen, timestep, negative)
            prediction = unconditional + scale * (prediction - unconditional)
        latents = scheduler.step(prediction, timestep, latents, generator=generator, return_dict=False)[0]
    config = oracle.vae.config
    image = oracle.vae.decode(latents / config.scaling_factor + (config.shift_factor or 0), return_dict=False)[0]
    return np.asarray(((image[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy() * 255).round(), np.uint8)


def _sdxl_noise(oracle: Oracle, options: Mapping[str, Any]) -> Noise:
    side = (options["height"], options["width"])
    time_ids = torch.tensor([[*side, 0, 0, *side]], dtype=torch.float32)

    def noise(latents: torch.Tensor, timestep: Any, row: Encoded) -> torch.Tensor:
        added = {"text_embeds": row[1], "time_ids": time_ids}
        found: torch.Tensor = oracle.networks[DENOISER](latents, timestep, row[0], added_cond_kwargs=added, return_dict=False)[
            0
        ]
        return found

    return noise


def _flux_noise(oracle: Oracle, height: int, width: int) -> Noise:
    places = FluxPipeline._prepare_latent_image_ids(1, height // 2, width // 2, "cpu", torch.float32)

    def noise(latents: torch.Tensor, timestep: Any, row: Encoded) -> torch.Tensor:
        found = oracle.networks[DENOISER](
            hidden_states=FluxPipeline._pack_latents(latents, *latents.shape),
            timestep=timestep.reshape(1) / 1000,
            guidance=torch.tensor([DISTILLED_GUIDANCE]),
            pooled_projections=row[1],
            encoder_hidden_states=row[0],
            txt_ids=torch.zeros(row[0].shape[1], 3),
            img_ids=places,
            return_dict=False,
        )[0]
        scale = oracle.variant.latent_scale
        unpacked: torch.Tensor = FluxPipeline._unpack_latents(found, height * scale, width * scale, scale)
        return unpacked

    return noise
