"""What a picture to change becomes: tensors for the sampler and for `finish`, sizes, strength; and that it is put back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.measure.pictures import png
from benchmarks.quality.parity import disc
from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.models import LATENT_MASK, ORIGINAL, SEAM, models
from faceclip_serving.contract.names import FINISH, PREPARE, SAMPLER
from faceclip_serving.contract.request import parse_request
from faceclip_serving.contract.variants.flux import TINY_FLUX
from faceclip_serving.contract.variants.sdxl import NANO, TINY_SDXL
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.models.edit import files_of, prepare_edit, put_back
from tests.serving.contract.test_parameters import raw

RNG = np.random.default_rng(0)


def edit(variant=TINY_SDXL, **values):
    arrays = raw(**values)
    return prepare_edit(variant, parse_request(variant, arrays), arrays, files_of(arrays), YuNet())


def noise(height, width):
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def test_a_request_without_a_picture_carries_nothing():
    assert edit() is None
    declared = [tensor for model in (PREPARE, SAMPLER, FINISH) for tensor in models(TINY_SDXL)[model].inputs]
    assert all(tensor.optional for tensor in declared if tensor.name in ("picture", "latent_mask", "original", "seam"))


@given(
    height=st.integers(20, 300), width=st.integers(20, 300), variant=st.sampled_from([TINY_SDXL, TINY_FLUX, NANO]), masked=st.booleans(),
    padding=st.none() | st.integers(0, 50), images=st.integers(1, 2),
)  # fmt: skip
@settings(max_examples=40)
def test_its_tensors_are_as_declared_and_come_back_in_its_size(height, width, variant, masked, padding, images):
    pixels, mask = noise(height, width), disc(height, width)
    values = {"mask_image": png(mask), **({} if padding is None else {"padding_mask_crop": padding})} if masked else {}
    made = edit(variant, image=png(pixels), num_inference_steps=5, strength=0.6, **values)
    assert set(made.tensors) == {"picture", *((LATENT_MASK.name, ORIGINAL.name, SEAM.name) if masked else ())}
    sizes = {}
    for tensor in models(variant)[PREPARE].outputs:
        if tensor.name in made.tensors:
            tensor.check(made.tensors[tensor.name], PREPARE, sizes)
    scale = variant.latent_scale
    assert (made.request.height, made.request.width) == (sizes["height"], sizes["width"])
    assert not masked or (sizes["latent_height"] * scale, sizes["latent_width"] * scale) == (sizes["height"], sizes["width"])
    drawn = noise(made.request.height, made.request.width)
    found = put_back(drawn, made.tensors, made.told)
    assert found.shape == pixels.shape
    if masked:
        np.testing.assert_array_equal(found[mask == 0], pixels[mask == 0])
        assert (made.tensors[ORIGINAL.name] == pixels).all(), "it is not written over: several pictures are put into it"


@pytest.mark.parametrize(
    ("variant", "strength", "steps", "begin"),
    [
        (TINY_SDXL, 0.7, 10, 3),
        (TINY_SDXL, 0.29, 100, 72),
        (TINY_SDXL, 0.3, 5, 4),
        (TINY_FLUX, 0.3, 5, 3),
        (TINY_FLUX, 0.1, 5, 4),
    ],
)
def test_a_strength_is_taken_as_it_was_written_not_as_the_fp32_next_to_it(variant, strength, steps, begin):
    made = edit(variant, image=png(noise(64, 64)), num_inference_steps=steps, strength=strength)
    assert made.begin == begin == variant.first_step(steps, strength) and made.request.strength == strength


@pytest.mark.parametrize(("variant", "plain", "masked"), [(TINY_SDXL, 0.3, 0.9999), (TINY_FLUX, 0.6, 0.6)])
def test_the_strength_is_diffusers_where_none_is_given(variant, plain, masked):
    image = png(noise(64, 64))
    assert edit(variant, image=image, num_inference_steps=10).request.strength == plain
    assert edit(variant, image=image, mask_image=png(disc(64, 64)), num_inference_steps=10).request.strength == masked


def test_the_size_is_the_nearest_or_the_one_asked_for_or_of_a_part_the_variants():
    image, mask = png(noise(101, 203)), png(disc(101, 203))

    def size(**values):
        made = edit(image=image, num_inference_steps=10, **values).request
        return made.height, made.width

    assert size() == (104, 200) and size(height=64) == (64, 200) and size(height=64, width=72) == (64, 72)
    assert size(mask_image=mask) == (104, 200)
    assert size(mask_image=mask, padding_mask_crop=4) == (TINY_SDXL.defaults.height, TINY_SDXL.defaults.width)
    assert size(mask_image=mask, padding_mask_crop=4, width=72) == (TINY_SDXL.defaults.height, 72)


def test_a_mask_that_no_cell_sees_is_refused_with_the_cure():
    mask = np.zeros((64, 64), np.uint8)
    mask[3:6, 3:6] = 255
    with pytest.raises(InvalidRequest, match=r"^mask_image: .* 64 x 64 pixels in cells of 8, .*; set padding_mask_crop"):
        edit(image=png(noise(64, 64)), mask_image=png(mask), num_inference_steps=10)
    made = edit(image=png(noise(64, 64)), mask_image=png(mask), padding_mask_crop=4, num_inference_steps=10)
    assert made.told["frame"]["box"][2] - made.told["frame"]["box"][0] < 20


DOTS = ([3, 30, 34, 60], [30, 3, 60, 34])
"""Far from each other, so that no part of the picture is much smaller than all of it."""


@pytest.mark.parametrize(
    ("values", "cure"),
    [
        ({"white": (slice(3, 6), slice(3, 6))}, "set padding_mask_crop, which draws a part of the picture at that size"),
        ({"white": (slice(3, 6), slice(3, 6)), "padding_mask_crop": 4096}, "make padding_mask_crop smaller than 4096"),
        ({"white": DOTS}, "make the white of it larger"),
        ({"white": DOTS, "padding_mask_crop": 0}, "make the white of it larger"),
        ({"white": DOTS, "padding_mask_crop": 4096}, "make the white of it larger"),
    ],
)
def test_the_cure_of_an_unseen_mask_is_one_that_the_caller_has_not_tried_and_helps(values, cure):
    mask = np.zeros((64, 64), np.uint8)
    mask[values.pop("white")] = 255
    asked = {"image": png(noise(64, 64)), "mask_image": png(mask), "num_inference_steps": 10, "height": 64, "width": 64}
    with pytest.raises(InvalidRequest, match=rf"^mask_image: expected a mask that is seen at 64 x 64 .*; {cure}"):
        edit(**asked, **values)
    if "padding_mask_crop" in cure:
        assert edit(**asked, padding_mask_crop=0).masked
    asked["mask_image"] = png(np.full((64, 64), 255, np.uint8))
    assert edit(**asked, **values).masked


@pytest.fixture(scope="module")
def one_far_away():
    """A file of a picture with a small face in a corner, which is found at the first look."""
    picture = Image.new("RGB", (1000, 1000), "#909090")
    picture.paste(Image.open("examples/astronaut.jpg").convert("RGB").resize((180, 180)), (760, 8))
    return png(np.asarray(picture))


@pytest.mark.parametrize(
    ("values", "cure"),
    [({}, "set padding_mask_crop, which draws"), ({"padding_mask_crop": 4096}, "make padding_mask_crop smaller than 4096")],
)
@pytest.mark.parametrize("kind", ["face", "head"])
def test_a_face_that_is_not_seen_is_no_mask_image(one_far_away, kind, values, cure):
    asked = {"image": one_far_away, "mask": kind, "face_box": [0.76, 0.0, 0.94, 0.19], "height": 64, "width": 64}
    with pytest.raises(
        InvalidRequest, match=rf"^mask: expected a {kind} that is seen at 64 x 64 pixels in cells of 8, .*; {cure}"
    ):
        edit(**asked, num_inference_steps=10, **values)
    assert edit(**asked, num_inference_steps=10, padding_mask_crop=0).masked


def test_a_picture_that_could_not_come_back_in_its_size_is_refused():
    with pytest.raises(InvalidRequest, match=r"^image: expected at most 4096 pixels a side, got 4097 x 20; make it smaller"):
        edit(image=png(noise(20, 4097)), num_inference_steps=10)
    with pytest.raises(InvalidRequest, match=r"^image: expected BYTES \[1\], got shape \[2\]"):
        files_of({"image": np.array([b"a", b"b"], object)})


def test_nothing_is_decoded_where_the_request_cannot_be_run():
    with pytest.raises(InvalidRequest, match=r"^strength: expected one of 4 num_inference_steps at least, got 0\.2 of them"):
        edit(image=b"\x89 no picture", num_inference_steps=4, strength=0.2)
