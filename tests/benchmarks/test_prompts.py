"""Weighted and long prompts from request to picture in one process, on the torch components, against diffusers' pipelines."""

from functools import partial

import numpy as np
import pytest

from benchmarks.measure.oracle import load_oracle
from benchmarks.measure.pictures import decoded
from benchmarks.quality.prompts import prompts_of, written
from export.checkpoint.committed import weights_folder
from faceclip_serving.contract.components import components
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.variants.table import VARIANTS

from .in_torch import pipeline_of

SMALL = [VARIANTS[name] for name in ("tiny-sdxl", "tiny-flux", "nano")]


@pytest.fixture(scope="module", params=SMALL, ids=lambda variant: variant.name)
def drawn(request, tmp_path_factory):
    """A variant, the folder of its tokenizers, its functions and (prompt, options) -> picture."""
    variant, folder = request.param, tmp_path_factory.mktemp("prepare")
    pipeline = pipeline_of(variant, folder, weights_folder(variant, None))

    def draw(prompt, face_image=None, **options):
        photos = {"face_images": [face_image]} if face_image else {}
        return decoded(pipeline(request_tensors(prompt=prompt, **photos, **options))["images"][0])

    return variant, folder, pipeline, draw


@pytest.mark.proof
def test_pictures_are_those_of_diffusers_pipeline_given_weighted_embeddings_of_all_chunks(drawn):
    variant, folder, _, draw = drawn
    found = prompts_of(load_oracle(variant), folder, draw, steps=1)
    cases, psnr_db = (12, 75) if variant.limits.chunks == 3 else (2, 45)
    assert len(found["cases"]) == cases and found["psnr_db_min"] >= psnr_db


@pytest.mark.proof
def test_weights_of_one_and_what_is_switched_off_change_no_bit(drawn):
    *_, draw = drawn
    draw = partial(draw, seed=2, num_inference_steps=2, guidance_scale=3.0)
    plain = draw("a person in a red hat", negative_prompt="fog")
    for prompt in ("a person in a (red hat:1)", "a (person:1) in (a (red:1.0) hat:1)"):
        np.testing.assert_array_equal(draw(prompt, negative_prompt="(fog:1.0)"), plain)
    np.testing.assert_array_equal(
        draw("a person in a red hat", negative_prompt="fog", prompt_weighting=False, long_prompts=False), plain
    )
    assert (draw("a person in a (red hat:1.5)", negative_prompt="fog") != plain).any()


def test_a_text_repeated_as_a_whole_is_the_text(drawn):
    """So the short prompt of a request loses nothing beside a long one."""
    variant, _, pipeline, _ = drawn
    if variant.limits.chunks == 1:
        pytest.skip("reads one chunk")
    rng = np.random.default_rng(8)
    sizes = {"rows": 2, "text_tokens": variant.text_tokens.max_tokens, "latent_height": 16, "latent_width": 16}
    inputs = {t.name: rng.standard_normal(t.shape(sizes)).astype(np.float32) for t in components(variant)[DENOISER].inputs}
    once = pipeline.stages[DENOISER](inputs)["noise_pred"]
    for times in (2, 3, 6):
        longer = {**inputs, "embeddings": np.tile(inputs["embeddings"], (1, times, 1))}
        np.testing.assert_allclose(pipeline.stages[DENOISER](longer)["noise_pred"], once, atol=2e-5 * np.abs(once).max())


def test_the_notation_is_written_as_it_is_read():
    assert written(((("a", 1.0), ("red hat", 1.3)), (("b", 0.5),))) == "a (red hat:1.3) BREAK (b:0.5)"
