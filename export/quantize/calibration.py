"""Whole pictures from prompts and a photograph, through functions that may watch what passes: the inputs that networks meet in use.

Ranges are measured, and quantised networks calibrated, on these: prompts as people write them, a real face, and for the denoiser every
timestep of a guided sampling run. Knows the order of the components; not what runs them or what is watched.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from faceclip_serving.contract.components import components
from faceclip_serving.contract.job import Job
from faceclip_serving.contract.models import FACE_CROPS
from faceclip_serving.contract.names import DENOISER, FACE_ENCODER, TEXT_ENCODER, VAE_DECODER
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.tensors import Array
from faceclip_serving.contract.variants.variant import Variant
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.models.prepare import prepare
from faceclip_serving.models.prompts import load_tokenizer
from faceclip_serving.sampling.networks import of_crops
from faceclip_serving.sampling.pictures import sample, start_pictures

from ..checkpoint.tokenizers import write_tokenizers
from ..onnx.draw import Open, Run
from .sitting import Sitting


def draw_all(variant: Variant, sitting: Sitting, open_component: Open) -> list[Array]:
    """A picture for each prompt, FP32 [1, 3, height, width] in [0, 1]; seeds are the prompts' numbers.

    One component is open at a time, and sees all prompts before the next.
    """
    prepared = list(_prepared(variant, sitting))
    nets = components(variant)

    def through(component: str, known: Sequence[Mapping[str, Array]]) -> list[Mapping[str, Array]]:
        names = [tensor.name for tensor in nets[component].inputs]
        with open_component(component) as run:
            return [run({name: each[name] for name in names}) for each in known]

    with open_component(FACE_ENCODER) as run:
        encode = of_crops(run)
        faces = [encode({FACE_CROPS.name: each[FACE_CROPS.name]}) for each in prepared]
    conditioning = through(TEXT_ENCODER, [{**one, **found} for one, found in zip(prepared, faces, strict=True)])
    finished = []
    with open_component(DENOISER) as run:
        for one, conditions in zip(prepared, conditioning, strict=True):
            pictures = start_pictures(variant, Job.decode(one["job"], ""), conditions)
            finished.append({"latents": sample(pictures, lambda inputs: run(inputs)["noise_pred"], max_rows=2)})
    return [outputs["image"] for outputs in through(VAE_DECODER, finished)]


def _prepared(variant: Variant, sitting: Sitting) -> Iterator[Mapping[str, Array]]:
    height, width = sitting.size or (variant.defaults.height, variant.defaults.width)
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizers(variant, sitting.checkpoint, Path(folder))
        tokenizers = [load_tokenizer(Path(folder) / tokens.tokenizer) for tokens in variant.tokens]
    photograph = sitting.photograph.read_bytes()
    detect = YuNet()
    for number, prompt in enumerate(sitting.prompts):
        request = request_tensors(
            prompt=prompt,
            face_images=[photograph],
            seed=number,
            num_inference_steps=sitting.steps,
            height=height,
            width=width,
        )
        yield prepare(variant, tokenizers, detect, "", request)


def recorded(run: Run, kept: list[Mapping[str, Array]]) -> Run:
    """The function, which also keeps a copy of what it was given."""

    def watch(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        kept.append({name: array.copy() for name, array in arrays.items()})
        return run(arrays)

    return watch
