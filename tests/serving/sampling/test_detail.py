"""Small faces of drawn pictures, where a test says that they are: which are drawn again, as what, and what stays."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.measure.pictures import png
from faceclip_serving.contract.models import LATENT_MASK
from faceclip_serving.contract.request import parse_request
from faceclip_serving.contract.variants.flux import FLUX, TINY_FLUX
from faceclip_serving.contract.variants.sdxl import NANO, SDXL, TINY_SDXL
from faceclip_serving.face.alignment import as_pixels, as_planes
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.face.masks import mask_of
from faceclip_serving.models.edit import prepare_edit, put_back
from faceclip_serving.sampling.detail import MARGIN, MOST, Detail, small_face
from faceclip_serving.sampling.edit import Source
from faceclip_serving.sampling.loop import Finished, Usage
from faceclip_serving.sampling.networks import decoded, encode_picture
from faceclip_serving.sampling.pictures import sample, start_pictures
from tests.serving.contract.test_parameters import raw

from .details import NETWORKS, decoder, face
from .test_pictures import conditioning, denoise, job

SIDE = 160
SMALL = small_face(TINY_SDXL)


def picture(seed=0, images=1):
    """Decoded pictures, exactly 8 bits a channel."""
    pixels = np.random.default_rng(seed).integers(0, 256, (images, SIDE, SIDE, 3), np.uint8)
    return np.stack([as_planes(each) for each in pixels])


def finished(images=1):
    return Finished(np.zeros((images, 4, SIDE // 8, SIDE // 8), np.float32), Usage())


def looked(faces, image=None, mask=None, **values):
    """The work that follows, and the job; `faces` of each picture, in order."""
    image = picture() if image is None else image
    one = job(num_inference_steps=6, height=SIDE, width=SIDE, **{"seed": 3, "face_detail": 0.5, **values})
    found = iter(faces)
    detail = Detail(TINY_SDXL, one, conditioning(3), NETWORKS, lambda pixels: next(found), mask)
    return detail.look(image, finished(len(image))), one


def drawn(work):
    """The pictures, once all parts are drawn and put back."""
    latents = sample(work.pictures, denoise, 8)
    return decoded(decoder, Finished(latents, Usage(), into=work.into))


@pytest.mark.parametrize(
    ("faces", "words"),
    [
        ([], "face_detail: no face was found in picture 0; it is as it was drawn"),
        ([face(10, 10, SMALL)], f"face_detail: picture 0 has no face that was drawn narrower than {SMALL} pixels"),
        ([face(0, 0, 400)], f"face_detail: picture 0 has no face that was drawn narrower than {SMALL} pixels"),
    ],
)
def test_without_a_small_face_nothing_is_drawn_again_and_a_warning_says_why(faces, words):
    work, one = looked([faces])
    assert work is None and len(one.warnings) == 1 and one.warnings[0].startswith(words)
    told = one.face_detail
    assert told["strength"] == 0.5 and told["steps"] == 3 and told["small"] == SMALL
    assert [each["left"] is None for each in told["pictures"][0]] == [False] * len(faces)


LEFT_HALF = np.zeros((1, 1, SIDE // 8, SIDE // 8), np.float32)
LEFT_HALF[..., :10] = 1


@pytest.mark.parametrize(
    ("faces", "reasons"),
    [
        ([face(110, 60, 24)], "1 since it is outside of the mask"),
        ([face(110, 60, 24), face(110, 10, 20)], "2 since it is outside of the mask"),
        (
            [face(20, 60, SMALL), face(110, 10, 20)],
            f"1 since it is at least {SMALL} pixels wide, 1 since it is outside of the mask",
        ),
        ([face(20, 60, SMALL)], None),
    ],
)
def test_the_warning_names_the_reasons_that_the_job_tells(faces, reasons):
    work, one = looked([faces], mask=LEFT_HALF)
    assert work is None
    told = one.face_detail["pictures"][0]
    if reasons is None:
        assert all("pixels wide" in each["left"] for each in told) and "drawn narrower than" in one.warnings[0]
    else:
        assert one.warnings == [f"face_detail: no face of picture 0 is drawn again: {reasons}; it is as it was drawn"]
        assert all(each["left"] in reasons for each in told)


def test_the_largest_of_the_small_faces_are_drawn_again_and_the_job_tells_of_all():
    faces = [face(60, 60, 40), *(face(4 + 24 * i, 4, 20 - i) for i in range(6))]
    work, one = looked([faces])
    told = one.face_detail["pictures"][0]
    assert [each["left"] is None for each in told] == [False, *[True] * MOST, False, False]
    assert [each["width"] for each in told] == [40, 20, 19, 18, 17, 16, 15] and len(work.pictures) == MOST
    for each in told:
        assert (each["frame"] is None) == (each["left"] is not None) and all(0 <= end <= 1 for end in each["box"])
    assert one.warnings == [
        f"face_detail: picture 0 has more than {MOST} small faces; the {MOST} largest of them were drawn again"
    ]


def test_a_face_that_is_the_pictures_own_and_was_not_drawn_is_left():
    mask = np.zeros((1, 1, SIDE // 8, SIDE // 8), np.float32)
    mask[..., :10] = 1
    work, one = looked([[face(20, 60, 24), face(110, 60, 24)]], mask=mask)
    assert [each["left"] for each in one.face_detail["pictures"][0]] == [None, "it is outside of the mask"]
    assert len(work.pictures) == 1 and not one.warnings


def test_pictures_that_are_no_numbers_are_left_to_who_says_so():
    work, _ = looked([], image=np.full((1, 3, SIDE, SIDE), np.nan, np.float32))
    assert work is None


@given(
    x=st.floats(-20, SIDE), y=st.floats(-20, SIDE), width=st.floats(4, SMALL - 1), strength=st.sampled_from([0.2, 0.5, 1.0]),
    number=st.integers(0, 1),
)  # fmt: skip
@settings(max_examples=40)
def test_a_face_is_inpainted_as_a_request_of_its_own_would_and_all_else_is_as_it_was(x, y, width, strength, number):
    """The same as `image`, the head as `mask_image`, and `padding_mask_crop`, with the seed of the picture."""
    image, one = picture(5, images=2), face(x, y, width)
    faces = [[], []]
    faces[number] = [one]
    work, asked = looked(faces, image, face_detail=strength, num_images_per_prompt=2)
    pixels = as_pixels(image[number])
    mask = mask_of(one, "head", SIDE, SIDE)
    if not mask.any():
        assert work is None
        return
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    arrays = raw(
        image=png(pixels), mask_image=png(mask), padding_mask_crop=round(MARGIN * max(len(rows), len(columns))),
        strength=strength, num_inference_steps=6, seed=3 + number,
    )  # fmt: skip
    files = {name: arrays[name].item() for name in ("image", "mask_image")}
    edit = prepare_edit(TINY_SDXL, parse_request(TINY_SDXL, arrays), arrays, files, YuNet())
    mean, std = encode_picture(NETWORKS, edit.tensors["picture"])
    source = Source(mean, std, edit.tensors[LATENT_MASK.name], strength == 1.0)
    own = start_pictures(TINY_SDXL, replace(asked, request=edit.request, begin=edit.begin), conditioning(3), source)
    expected = put_back(as_pixels(decoder({"latents": sample(own, denoise, 8)})["image"][0]), edit.tensors, edit.told)
    found = drawn(work)
    np.testing.assert_array_equal(as_pixels(found[number]), expected)
    np.testing.assert_array_equal(found[1 - number], image[1 - number])
    assert (expected[mask == 0] == pixels[mask == 0]).all()


def test_each_picture_has_its_own_faces_and_seed():
    image = np.concatenate([picture(1)] * 2)
    faces = [[face(20, 20, 24)], [face(20, 20, 24), face(100, 90, 20)]]
    work, one = looked(faces, image, num_images_per_prompt=2)
    assert [len(each) for each in one.face_detail["pictures"]] == [1, 2]
    both = drawn(work)
    second, _ = looked([faces[1]], image[1:], seed=4)
    np.testing.assert_array_equal(both[1:], drawn(second))
    assert (both[0] != both[1]).any()


def test_previews_of_this_stage_show_the_whole_first_picture():
    work, one = looked([[face(20, 20, 24), face(100, 90, 20)]])
    before = work.shown()
    sample(work.pictures, denoise, 8)
    after = work.shown()
    assert before.shape == after.shape == (1, 4, SIDE // 8, SIDE // 8)
    outside = np.ones((SIDE // 8, SIDE // 8), bool)
    for each in one.face_detail["pictures"][0]:
        left, top, right, bottom = each["frame"]
        outside[top // 8 : -(-bottom // 8), left // 8 : -(-right // 8)] = False
    assert outside.any() and (after[:, :, outside] == 0).all(), "as it was"
    assert (after[:, :, ~outside] != before[:, :, ~outside]).mean() > 0.5


@pytest.mark.parametrize("variant", [SDXL, FLUX, TINY_SDXL, TINY_FLUX, NANO], ids=lambda variant: variant.name)
def test_a_face_as_large_as_in_a_portrait_is_never_small(variant):
    """In what is cut a face has about 0.4 of the width: were that small, it would be drawn again for nothing."""
    of = variant.defaults
    assert 0 < small_face(variant) < 0.4 * min(of.height, of.width)
