"""Every placement of every family runs every kind of request within its own bounds."""

import numpy as np
import pytest

from faceclip_serving.contract.components import bounds, components
from faceclip_serving.contract.job import Job
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.placements import placements
from faceclip_serving.contract.request import parse_request, request_tensors
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.models.prepare import plan_rows
from faceclip_serving.sampling.pictures import sample, start_pictures

KINDS = {
    "default": ({}, 1),
    "without a face": ({}, 0),
    "without guidance": ({"guidance_scale": 1.0}, 1),
    "split guidance": ({"text_guidance_scale": 4.0, "id_guidance_scale": 2.0}, 1),
    "blend": ({"blend_weight": 0.5}, 1),
    "four pictures": ({"num_images_per_prompt": 4}, 1),
    "four references": ({"text_guidance_scale": 4.0, "id_guidance_scale": 2.0}, 4),
    "largest": ({"height": "largest", "width": "largest"}, 1),
}
CASES = [(variant, placement) for variant in VARIANTS.values() for placement in placements(variant).values()]


def started(variant, kind):
    values, faces = KINDS[kind]
    sizes = {name: getattr(variant.limits, name)[values.get(name) == "largest"] for name in ("height", "width")}
    request = parse_request(variant, request_tensors(prompt="a", seed=1, num_inference_steps=2, **{**values, **sizes}))
    roles = [role for _, role, _ in plan_rows(request, faces)]
    rows = {role: [i for i, other in enumerate(roles) if other == role] for role in roles}
    job = Job(request, rows, [1 / faces] * faces if faces else [], "", None, "digest")
    rng = np.random.default_rng(0)
    sizes = {"rows": len(roles)}
    conditioning = {}
    for tensor in variant.conditioning:
        shape = tensor.shape(sizes)
        row = rng.standard_normal((len(roles), *(1 for _ in shape[1:]))).astype(np.float32)
        conditioning[tensor.name] = np.broadcast_to(row, shape)
    return start_pictures(variant, job, conditioning)


def denoise(inputs):
    """Depends on the conditioning, each row on its own."""
    rows = len(inputs["timestep"])
    told = sum(array.reshape(rows, -1).mean(axis=1) for name, array in inputs.items() if name != "latents")
    return (0.5 * inputs["latents"] + 0.1 * np.sin(told)[:, None, None, None]).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("variant", "placement"), CASES, ids=[f"{v.name}-{p.name}" for v, p in CASES])
def test_no_call_is_larger_than_the_placement_allows_and_pictures_are_those_of_one_call(variant, placement, kind):
    narrowed = placement.narrowed(variant)
    signature = components(narrowed)[DENOISER]
    limits = bounds(narrowed, placement.denoiser_rows, placement.vae_tile)[DENOISER]
    calls = []

    def within_bounds(inputs):
        signature.check_inputs(inputs, limits)  # what an engine of this placement would refuse
        calls.append(len(inputs["timestep"]))
        return denoise(inputs)

    found = sample(started(narrowed, kind), within_bounds, placement.denoiser_rows)
    assert max(calls) <= placement.denoiser_rows
    np.testing.assert_array_equal(found, sample(started(narrowed, kind), denoise, 10**6))
