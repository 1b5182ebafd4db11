"""Which part of a picture is drawn, at which size, and that it comes back where it was."""

import numpy as np
import pytest
from diffusers.image_processor import VaeImageProcessor
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.face.frames import Frame, around, nearest_size, whole

SIDES = st.integers(20, 200)
RNG = np.random.default_rng(0)


@given(height=st.integers(1, 5000), width=st.integers(1, 5000), name=st.sampled_from(sorted(VARIANTS)))
def test_the_nearest_size_is_allowed_and_one_that_fits_stays(height, width, name):
    limits = VARIANTS[name].limits
    ranges = (limits.height, limits.width)
    found = nearest_size(height, width, limits)
    assert all(
        low <= side <= high and side % limits.size_multiple == 0 for side, (low, high) in zip(found, ranges, strict=True)
    )
    if all(low <= side <= high for side, (low, high) in zip((height, width), ranges, strict=True)):
        assert all(abs(a - b) <= limits.size_multiple / 2 for a, b in zip(found, (height, width), strict=True))
    assert nearest_size(*found, limits) == found
    (low, high), (narrow, wide) = ranges
    if low / wide <= height / width <= high / narrow:
        a, b = found
        assert abs(a / b - height / width) <= 2 * limits.size_multiple / min(found) * max(1, height / width), "its shape stays"


@st.composite
def masked(draw):
    height, width = draw(SIDES), draw(SIDES)
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    bottom, right = draw(st.integers(top + 1, height)), draw(st.integers(left + 1, width))
    return height, width, slice(top, bottom), slice(left, right)


def mask_of(case):
    height, width, rows, columns = case
    mask = np.zeros((height, width), bool)
    mask[rows, columns] = True
    return mask


@given(case=masked(), margin=st.integers(0, 300), height=st.sampled_from([64, 96, 128]), width=st.sampled_from([64, 128, 192]))
@settings(max_examples=200)
def test_a_part_is_cut_and_filled_as_diffusers_does(case, margin, height, width):
    mask = mask_of(case)
    processor = VaeImageProcessor(do_normalize=False)
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    frame = around(mask, margin, height, width)
    assert frame.box == processor.get_crop_region(grey, width, height, pad=margin)
    pixels = RNG.integers(0, 256, (*mask.shape, 3), np.uint8)
    found = frame.seen(pixels)
    assert found.shape == (height, width, 3)
    part = Image.fromarray(pixels).crop(frame.box)
    across, down = (part.width * height // part.height, part.height * width // part.width)
    if across == 0 or down == 0:
        return  # diffusers fails
    theirs = np.asarray(processor.resize(part, height, width, resize_mode="fill"))
    left, top, right, bottom = frame.place
    np.testing.assert_array_equal(found[top:bottom, left:right], theirs[top:bottom, left:right])
    assert (found[: top + 1] == found[top]).all() and (found[:, : left + 1] == found[:, left : left + 1]).all()


@given(case=masked(), margin=st.integers(0, 300), height=st.sampled_from([64, 128]), width=st.sampled_from([64, 192]))
def test_the_box_holds_the_mask_and_what_is_seen_comes_back_there(case, margin, height, width):
    mask = mask_of(case)
    frame = around(mask, margin, height, width)
    left, top, right, bottom = frame.box
    assert 0 <= left < right <= mask.shape[1] and 0 <= top < bottom <= mask.shape[0]
    assert mask.sum() == mask[top:bottom, left:right].sum()
    flat = np.full((*mask.shape, 3), (10, 120, 250), np.uint8)
    returned = frame.returned(frame.seen(flat))
    assert returned.shape == (bottom - top, right - left, 3) and (returned == (10, 120, 250)).all()


def test_a_picture_of_the_drawn_size_is_seen_and_comes_back_to_the_bit():
    pixels = RNG.integers(0, 256, (64, 96, 3), np.uint8)
    frame = whole((64, 96), 64, 96)
    np.testing.assert_array_equal(frame.seen(pixels), pixels)
    np.testing.assert_array_equal(frame.returned(pixels), pixels)
    assert Frame.from_json(frame.as_json()) == frame


@pytest.mark.parametrize("size", [(33, 200), (64, 64), (500, 64)])
def test_a_whole_picture_is_stretched_as_diffusers_stretches_it(size):
    pixels = RNG.integers(0, 256, (*size, 3), np.uint8)
    frame = whole(size, 64, 128)
    theirs = VaeImageProcessor(do_normalize=False).preprocess(Image.fromarray(pixels), height=64, width=128)
    np.testing.assert_array_equal(frame.seen(pixels), np.rint(theirs[0].numpy().transpose(1, 2, 0) * 255))
    assert frame.returned(frame.seen(pixels)).shape == pixels.shape
