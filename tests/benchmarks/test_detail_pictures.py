"""A face that is drawn again is diffusers' inpainting of the same cut: served functions, torch networks, a face where a test says it is."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.measure.example import PHOTO, PROMPT
from benchmarks.measure.oracle import load_oracle, reference_rows
from benchmarks.measure.pictures import decoded, picture_psnr_db
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.variants.flux import TINY_FLUX
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.face.frames import around
from faceclip_serving.face.masks import WHITE, mask_of, seam_of
from faceclip_serving.sampling.detail import MARGIN
from tests.benchmarks.in_torch import pipeline_of
from tests.serving.sampling.details import face

FACE, STEPS, HEIGHT, WIDTH = face(40.0, 50.0, 24.0), 6, 192, 128


@pytest.mark.proof
@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("variant", [TINY_SDXL, TINY_FLUX], ids=lambda variant: variant.name)
def test_a_face_that_is_drawn_again_is_diffusers_inpainting_of_the_cut(variant, strength, tmp_path):
    pipeline, oracle = pipeline_of(variant, tmp_path), load_oracle(variant)
    photo, scale = PHOTO.read_bytes(), variant.defaults.guidance_scale
    common = {
        "prompt": PROMPT,
        "face_images": [photo],
        "seed": 5,
        "num_inference_steps": STEPS,
        "height": HEIGHT,
        "width": WIDTH,
    }

    def drawn(**more):
        return decoded(pipeline(request_tensors(**common, **more))["images"][0])

    was = drawn()
    pipeline.search = lambda pixels: [FACE]
    found = drawn(face_detail=strength)

    mask = mask_of(FACE, "head", HEIGHT, WIDTH)
    inside, seam = mask >= WHITE, seam_of(mask >= WHITE)
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    of = variant.defaults
    frame = around(inside, round(MARGIN * max(len(rows), len(columns))), of.height, of.width)
    part = oracle.picture(
        *oracle.encode(*reference_rows(variant, tmp_path, photo, PROMPT)),
        scheduler=of.scheduler, guidance_scale=scale, seed=5, steps=STEPS, height=of.height, width=of.width, strength=strength,
        image=Image.fromarray(frame.seen(was)), mask_image=Image.fromarray(frame.seen(mask)),
    )  # fmt: skip
    left, top, right, bottom = frame.box
    expected = was.copy()
    expected[top:bottom, left:right] = frame.returned(part)
    np.testing.assert_array_equal(found[~inside], was[~inside])
    assert picture_psnr_db(found[seam == 255][None], expected[seam == 255][None]) >= 45
    assert np.abs(found[seam == 255].astype(int) - was[seam == 255]).mean() > 2
