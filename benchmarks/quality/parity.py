"""Is a served picture the reference's picture? Served files against diffusers' own pipeline, same weights and seed."""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from export.commandline import add_checkpoint, add_placement, add_variant
from faceclip_serving.contract.components import components
from faceclip_serving.contract.names import FACE_ENCODER, PREPARE, TEXT_ENCODER
from faceclip_serving.contract.placements import CPU, Placement, placement_of
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant
from faceclip_serving.face.masks import WHITE, seam_of

from ..measure.example import PHOTO, PROMPT
from ..measure.pictures import Picture, decoded, picture_psnr_db, png
from ..measure.report import emit, result_name, say
from ..measure.running import PLAIN, serving

if TYPE_CHECKING:
    from faceclip import FaceCLIPPipeline

    from ..measure.oracle import Oracle, Rows

SCHEDULERS = (
    "EulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
)
"""Those of them are tried that fit the variant."""

Draw = Callable[..., Picture]
"""(prompt, keywords of a call) -> its first picture."""


def sizes(variant: Variant) -> list[tuple[int, int]]:
    """The default size and, where the variant takes several, a smaller, odd one, or else a larger one."""
    multiple = variant.limits.size_multiple

    def another(side: int, allowed: tuple[int, int]) -> int:
        smaller = max(allowed[0], (side // 2 // multiple + 1) * multiple)
        return smaller if smaller != side else min(side + multiple, allowed[1])

    height, width = variant.defaults.height, variant.defaults.width
    other = (another(height, variant.limits.height), another(width, variant.limits.width))
    return list(dict.fromkeys([(height, width), other]))


def encoder_error(variant: Variant, placement: Placement, oracle: Oracle, repository: Path, rows: Rows) -> float:
    """Largest absolute difference of the exported encoders' conditioning from the torch encoder's."""
    from faceclip_serving.models.onnx_component import OnnxComponent
    from faceclip_serving.models.prepare import NO_FACE

    image, exist, ids = rows
    nets = components(variant)
    run = {
        name: OnnxComponent(repository / placement.folder(name) / runtime.artifact, nets[name], runtime.providers, {}).run
        for name, runtime in ((each, placement.components[each].runtime) for each in (FACE_ENCODER, TEXT_ENCODER))
    }
    features = run[FACE_ENCODER]({"aligned_faces": image})
    fused = {tensor.name: features[tensor.name] for tensor in variant.fused_features}
    index = np.where(exist, np.arange(len(exist)), NO_FACE)[:, None].astype(np.int64)
    found = run[TEXT_ENCODER]({**ids, "face_index": index, **fused})
    expected = oracle.encode(image, exist, ids)
    return max(float(np.abs(found[t.name] - e.numpy()).max()) for t, e in zip(variant.conditioning, expected, strict=True))


def measure_parity(variant: Variant, checkpoint: Path | None = None, placement: Placement = CPU) -> dict[str, Any]:
    """`parity_of` a server of its own."""
    from ..measure.oracle import load_oracle

    with serving(variant, placement, checkpoint, settings=PLAIN) as (server, pipe):
        return parity_of(load_oracle(variant, checkpoint), server.repository, pipe, placement=placement)


def parity_of(
    oracle: Oracle, repository: Path, pipe: FaceCLIPPipeline, steps: int = 6, placement: Placement = CPU
) -> dict[str, Any]:
    """Every combination of scheduler, size and face; PSNR of each served picture to the reference's."""
    from ..measure.oracle import reference_rows

    variant = oracle.variant
    guidance_scale = variant.defaults.guidance_scale
    cases = []
    errors = []
    for photo in (PHOTO.read_bytes(), None):
        rows = reference_rows(variant, repository / PREPARE / "1", photo, PROMPT)
        errors.append(encoder_error(variant, placement, oracle, repository, rows))
        reference = partial(oracle.picture, *oracle.encode(*rows), steps=steps, guidance_scale=guidance_scale, seed=1)
        face: dict[str, Any] = {"face_image": photo} if photo else {}
        served = partial(
            pipe, PROMPT, **face, num_inference_steps=steps, guidance_scale=guidance_scale, seed=1, output_type="bytes"
        )
        schedulers = [name for name in SCHEDULERS if name in variant.schedulers]
        for scheduler, (height, width) in itertools.product(schedulers, sizes(variant)):
            options: dict[str, Any] = {"scheduler": scheduler, "height": height, "width": width}
            found, served_s = timed(lambda: decoded(served(**options).images[0]))  # noqa: B023  called here
            expected, reference_s = timed(lambda: reference(**options))  # noqa: B023
            psnr, seconds = picture_psnr_db(found, expected), {"served_s": served_s, "reference_s": reference_s}
            cases.append({**options, "face": photo is not None, "psnr_db": round(psnr, 2), **seconds})
            say(f"{scheduler} {height}x{width} {'face' if photo else 'no face'}: {psnr:.1f} dB, {told(**seconds)}")
    return {
        "variant": variant.name,
        "psnr_db_min": min(case["psnr_db"] for case in cases),
        "encoder_max_abs_error": max(errors),
        "cases": cases,
    }


def timed(work: Callable[[], Picture]) -> tuple[Picture, float]:
    """What `work` gives, and its seconds, so that a slow comparison tells which side is slow."""
    began = time.perf_counter()
    return work(), round(time.perf_counter() - began, 3)


def told(served_s: float, reference_s: float) -> str:
    return f"served in {served_s:.2f} s, reference {reference_s:.2f} s"


STRENGTHS = (0.4, 0.75, 1.0)


def edits_of(
    oracle: Oracle, prepare_folder: Path, draw: Draw, steps: int = 6, strengths: tuple[float, ...] = STRENGTHS
) -> dict[str, Any]:
    """Every combination of scheduler, size and strength, from a picture and within a mask of it; PSNR of each picture that `draw` makes
    to the reference's, within the mask where there is one: outside it is the one that came, to the bit."""
    from ..measure.oracle import reference_rows

    variant = oracle.variant
    photo, guidance_scale = PHOTO.read_bytes(), variant.defaults.guidance_scale
    embeddings, pooled = oracle.encode(*reference_rows(variant, prepare_folder, photo, PROMPT))
    schedulers = [name for name in SCHEDULERS if name in variant.schedulers][:2]
    masks = (False, True) if variant.latent_channels in oracle.masked_channels else (False,)
    cases: list[dict[str, Any]] = []
    for scheduler, (height, width), strength, masked in itertools.product(schedulers, sizes(variant), strengths, masks):
        image = Image.open(PHOTO).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        mask = disc(height, width)
        common: dict[str, Any] = {"scheduler": scheduler, "guidance_scale": guidance_scale, "seed": 1, "strength": strength}
        pictures: dict[str, Any] = {"image": image, **({"mask_image": Image.fromarray(mask)} if masked else {})}
        asked = {**common, **pictures, "steps": steps, "height": height, "width": width}
        expected, reference_s = timed(lambda: oracle.picture(embeddings, pooled, **asked))  # noqa: B023  called here
        files = {name: png(np.asarray(each)) for name, each in pictures.items()}
        found, served_s = timed(lambda: draw(PROMPT, face_image=photo, num_inference_steps=steps, **common, **files))  # noqa: B023
        if masked:
            seam = seam_of(mask >= WHITE)
            outside = np.abs(found.astype(int) - np.asarray(image))[seam == 0]
            if outside.any():
                raise RuntimeError(
                    f"outside the mask, {int((outside > 0).any(axis=1).sum())} pixels are not the picture's that came"
                )
            found, expected = found[seam == 255][None], expected[seam == 255][None]
        psnr, seconds = picture_psnr_db(found, expected), {"served_s": served_s, "reference_s": reference_s}
        cases.append({
            "scheduler": scheduler, "height": height, "width": width, "strength": strength, "mask": masked, "psnr_db": round(psnr, 2),
            **seconds,
        })  # fmt: skip
        within = ", within a mask" if masked else ""
        say(f"{scheduler} {height}x{width}, strength {strength:g}{within}: {psnr:.1f} dB, {told(**seconds)}")
    return {"variant": variant.name, "psnr_db_min": min(case["psnr_db"] for case in cases), "cases": cases}


def measure_edits(variant: Variant, checkpoint: Path | None = None, placement: Placement = CPU) -> dict[str, Any]:
    """`edits_of` a server of its own."""
    from ..measure.oracle import load_oracle

    with serving(variant, placement, checkpoint, settings=PLAIN) as (server, pipe):

        def draw(prompt: str, **options: Any) -> Picture:
            return decoded(pipe(prompt, output_type="bytes", **options).images[0])

        return edits_of(load_oracle(variant, checkpoint), server.repository / PREPARE / "1", draw)


def measure_prompts(variant: Variant, checkpoint: Path | None = None, placement: Placement = CPU) -> dict[str, Any]:
    """`prompts_of` a server of its own."""
    from ..measure.oracle import load_oracle
    from .prompts import prompts_of

    with serving(variant, placement, checkpoint, settings=PLAIN) as (server, pipe):

        def draw(prompt: str, **options: Any) -> Picture:
            return decoded(pipe(prompt, output_type="bytes", **options).images[0])

        return prompts_of(load_oracle(variant, checkpoint), server.repository / PREPARE / "1", draw)


def measure_people(variant: Variant, checkpoint: Path | None = None, placement: Placement = CPU) -> dict[str, Any]:
    """`together_of` a server of its own."""
    from ..measure.oracle import load_oracle
    from .together import together_of

    with serving(variant, placement, checkpoint, settings=PLAIN) as (server, pipe):

        def draw(prompt: str, people: Any, **options: Any) -> Picture:
            return decoded(pipe(prompt, people=json.dumps(people), output_type="bytes", **options).images[0])

        schedulers = [name for name in SCHEDULERS if name in variant.schedulers][:2]
        return together_of(
            load_oracle(variant, checkpoint), server.repository / PREPARE / "1", draw, sizes(variant), schedulers
        )


def disc(height: int, width: int) -> Picture:
    """A mask, uint8 [height, width]: a disc in the middle."""
    y, x = np.mgrid[:height, :width]
    inside = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (0.35 * min(height, width)) ** 2
    return np.where(inside, 255, 0).astype(np.uint8)


KINDS = {"text": measure_parity, "edit": measure_edits, "prompt": measure_prompts, "people": measure_people}
"""What is compared: pictures from noise; from a picture, and within a mask; of weighted and long prompts; of several people."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    parser.add_argument(
        "--kind",
        choices=list(KINDS),
        default="text",
        help="pictures from noise (default), from a picture, of weighted and long prompts, or of several people",
    )
    add_placement(parser)
    add_checkpoint(parser, "folder of the official layout (default: the variant's own or seeded weights)")


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    placement = placement_of(variant, args.placement)
    name = result_name("parity", args.variant, placement.name) + ("" if args.kind == "text" else f"-{args.kind}")
    emit(name, {"placement": placement.name, **KINDS[args.kind](variant, args.checkpoint, placement)})
    return 0
