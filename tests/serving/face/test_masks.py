"""Masks: what a file says, where a face and a head are, and the seam between old and new."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.face.choice import fractions_of
from faceclip_serving.face.detectors import Box, Face, YuNet
from faceclip_serving.face.masks import WHITE, blended, choose, mask_of, read_mask, seam_of
from faceclip_serving.face.photos import decode_photo
from faceclip_serving.face.search import find_faces
from tests.serving.face.test_photos import ASTRONAUT, encoded

HALF = np.zeros((40, 60), np.uint8)
HALF[:, 30:] = 255


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_a_mask_of_any_mode_is_white_where_it_is(mode, file_format):
    found = read_mask(encoded(Image.fromarray(HALF).convert(mode), file_format), "mask_image", 40, 60)
    np.testing.assert_array_equal(found >= WHITE, HALF >= WHITE)


def test_a_mask_may_be_compressed_and_lie_on_its_side():
    found = read_mask(encoded(HALF, "JPEG"), "mask_image", 40, 60)
    np.testing.assert_array_equal(found >= WHITE, HALF >= WHITE)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(np.rot90(HALF), "JPEG", exif=exif)
    np.testing.assert_array_equal(read_mask(turned, "mask_image", 40, 60) >= WHITE, HALF >= WHITE)


CLEAR = np.dstack([HALF, HALF, HALF, HALF])
RED = np.dstack([HALF, 0 * HALF, 0 * HALF])


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (encoded(HALF[:20]), r"expected the size of image, 60 x 40 pixels, got 60 x 20; make it"),
        (encoded(0 * HALF), r"expected white where image is to be drawn anew, got at most 0 of 255"),
        (encoded(HALF // 255), r"got at most 1 of 255"),
        (encoded(CLEAR), r"got transparent pixels; save it as a black and white picture"),
        (encoded(RED), r"got colours; save it as a black and white picture"),
        (b"hello", r"expected a photograph .*, got 5 bytes that do not begin as one"),
        (b"", r"got 0 bytes"),
    ],
)
def test_what_is_no_mask_is_refused_in_words(file, words):
    with pytest.raises(InvalidRequest, match=f"^mask_image: .*{words}"):
        read_mask(file, "mask_image", 40, 60)


@given(box=st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 40), st.integers(1, 40)), other=st.booleans())
@settings(deadline=None)
def test_the_seam_rises_within_the_mask_and_nothing_reaches_out_of_it(box, other):
    mask = np.zeros((80, 90), bool)
    x, y, width, height = box
    mask[y : y + height, x : x + width] = True
    if other:
        mask[70:, :10] = True
    seam = seam_of(mask)
    assert (seam[~mask] == 0).all() and (seam[mask] > 0).all() and seam.max() == 255
    rng = np.random.default_rng(0)
    original, drawn = rng.integers(0, 256, (2, 80, 90, 3), np.uint8)
    found = blended(original, drawn, seam)
    np.testing.assert_array_equal(found[~mask], original[~mask])
    np.testing.assert_array_equal(found[seam == 255], drawn[seam == 255])
    low, high = np.minimum(original, drawn), np.maximum(original, drawn)
    assert (found >= low).all() and (found <= high).all()


def test_a_mask_of_everything_has_no_seam():
    assert (seam_of(np.ones((8, 9), bool)) == 255).all()


@pytest.fixture(scope="module")
def astronaut():
    pixels = decode_photo(ASTRONAUT).pixels
    return pixels, find_faces(pixels, YuNet())


def test_a_face_lies_in_its_mask_and_in_its_head(astronaut):
    pixels, faces = astronaut
    height, width = pixels.shape[:2]
    face, head = (mask_of(faces[0], kind, height, width) >= WHITE for kind in ("face", "head"))
    for x, y in faces[0].landmarks:
        assert face[round(y), round(x)]
    assert (head | face).sum() == head.sum() and face.sum() < head.sum() < 0.1 * head.size
    rows, columns = np.nonzero(face)
    x, y, across, down = faces[0].box
    assert abs(columns.mean() - (x + across / 2)) < 0.1 * across and abs(rows.mean() - (y + down / 2)) < 0.15 * down
    assert 0.8 * across < np.ptp(columns) < 1.4 * across and 0.8 * down < np.ptp(rows) < 1.4 * down


def test_a_mask_follows_a_face_that_lies_on_its_side(astronaut):
    pixels, faces = astronaut
    turned = np.ascontiguousarray(np.rot90(pixels))
    upright = np.rot90(mask_of(faces[0], "head", *pixels.shape[:2]))
    found = mask_of(find_faces(turned, YuNet())[0], "head", *turned.shape[:2])
    both, either = (found & upright) >= WHITE, (found | upright) >= WHITE
    assert both.sum() > 0.9 * either.sum()


def face(x, y, side):
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]) * side + [x, y]
    return Face(Box(x, y, side, side), points, 0.9)


def test_the_largest_face_is_meant_or_the_one_in_the_box():
    small, large, alike = face(10, 10, 20), face(100, 40, 50), face(30, 120, 45)
    assert choose([large, small], None, 200, 200) == (large, [])
    chosen, warnings = choose([large, alike, small], None, 200, 200)
    assert chosen is large and warnings == [
        "mask: 2 faces of similar size were found in image and the largest was used; choose by face_box"
    ]
    assert choose([large, alike, small], [0.0, 0.0, 0.2, 0.2], 200, 200) == (small, [])
    assert choose([large, alike, small], fractions_of(alike, 200, 200), 200, 200) == (alike, [])
    assert choose([large, small], [0.0, 0.0, 1.0, 1.0], 200, 200) == (large, [])
    with pytest.raises(InvalidRequest, match=r"^face_box: .* faces are at 0\.50, 0\.20, 0\.75, 0\.45$"):
        choose([large], [0.0, 0.0, 0.2, 0.2], 200, 200)
    with pytest.raises(
        InvalidRequest, match=r"^mask: no face was found in the 300 x 200 pixels of image; send the mask as mask_image"
    ):
        choose([], None, 200, 300)
