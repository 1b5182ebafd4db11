"""A picture through whatever runs the components, always from the same request and noise, and how far two pictures are apart.

Each component alone may be within its tolerance while the steps between noise and picture add their errors up; a picture drawn
twice shows it. Knows the order of the components; not what runs them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import numpy as np

from faceclip_serving.contract.components import FACE_INDEX, components
from faceclip_serving.contract.job import Job
from faceclip_serving.contract.names import DENOISER, FACE_ENCODER, TEXT_ENCODER, VAE_DECODER
from faceclip_serving.contract.request import parse_request, request_tensors
from faceclip_serving.contract.tensors import Array
from faceclip_serving.contract.variants.variant import Variant
from faceclip_serving.sampling.guidance import IDENTITY, UNCONDITIONAL

from .example_inputs import example_inputs

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]
Open = Callable[[str], AbstractContextManager[Run]]
"""Component -> its function, held only while it is needed: not all of them fit a small card at once."""

SMALLEST_PSNR_DB = 35.0
"""Below this it is another picture."""


def draw(variant: Variant, height: int, width: int, steps: int, open_component: Open) -> Array:
    """A guided picture with a face, FP32 [1, 3, height, width] in [0, 1]; face, prompts and noise are always the same."""
    from faceclip_serving.sampling.pictures import sample, start_pictures  # here, since torch takes seconds to import

    nets = components(variant)
    asked = request_tensors(prompt="verify", seed=0, height=height, width=width, num_inference_steps=steps)
    job = Job(parse_request(variant, asked), {UNCONDITIONAL: [0], IDENTITY: [1]}, [1.0], place="", deadline=None, digest="")

    def once(component: str, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        with open_component(component) as run:
            return run(arrays)

    def sampled(conditioning: Mapping[str, Array]) -> Array:
        with open_component(DENOISER) as run:
            return sample(start_pictures(variant, job, conditioning), lambda inputs: run(inputs)["noise_pred"], max_rows=2)

    features = once(FACE_ENCODER, example_inputs(variant, nets[FACE_ENCODER], {"faces": 1}, "picture"))
    texts = example_inputs(variant, nets[TEXT_ENCODER], {"faces": 1, "rows": 2}, "picture")
    conditioning = once(TEXT_ENCODER, {**texts, **features, FACE_INDEX.name: np.array([[-1], [0]], np.int64)})
    return once(VAE_DECODER, {"latents": sampled(conditioning)})["image"]


def psnr_db(picture: Array, reference: Array) -> float:
    """Peak signal to noise ratio of two pictures of values in [0, 1] and of one shape, dB; infinite for equal ones."""
    squared = float(np.square(picture.astype(np.float64) - reference.astype(np.float64)).mean())
    return math.inf if squared == 0 else -10 * math.log10(squared)
