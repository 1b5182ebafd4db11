"""Masks: what a file says, where a face and a head are, and the seam between old and new."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.face.choice import Choice, choose_face
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.face.masks import WHITE, blended, choose, mask_of, read_mask, seam_of
from faceclip_serving.face.photos import decode_photo
from faceclip_serving.face.search import find_faces
from tests.serving.face.test_photos import ASTRONAUT, encoded
from tests.serving.face.test_prepare import portrait

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


def group(*places: tuple[int, int, int], width: int = 1000, height: int = 520):
    """One portrait at (left, top, side) each, on grey; and where each is, as fractions."""
    picture = Image.new("RGB", (width, height), "#909090")
    for left, top, side in places:
        picture.paste(portrait().resize((side, side)), (left, top))
    ends = [(left / width, top / height, (left + side) / width, (top + side) / height) for left, top, side in places]
    return np.asarray(picture), [list(each) for each in ends]


def middle(face):
    return face.landmarks.mean(0)


def test_the_largest_face_is_meant_or_the_one_in_the_box():
    pixels, places = group((0, 0, 512), (560, 0, 400))
    largest, warnings = choose(pixels, None, YuNet())
    assert warnings == [] and middle(largest)[0] < 512
    assert choose(pixels, [0.0, 0.0, 1.0, 1.0], YuNet())[0].box == largest.box
    other, warnings = choose(pixels, places[1], YuNet())
    assert warnings == [] and middle(other)[0] > 560
    pixels, _ = group((0, 0, 500), (500, 0, 500))
    assert choose(pixels, None, YuNet())[1] == [
        "mask: 2 faces of similar size were found in image and the largest was used; choose by face_box"
    ]


def test_face_box_sees_what_face_boxes_sees():
    """Of a wide picture the smallest face is too small at the size at which the largest is found."""
    pixels, places = group((0, 0, 1600), (3600, 1200, 240), width=4000, height=1600)
    assert len(find_faces(pixels, YuNet())) == 1
    for place in places:
        by_mask, _ = choose(pixels, place, YuNet())
        (by_photo,) = [choose_face("face_images[0]", find_faces(pixels, YuNet()), Choice(box=place), pixels, YuNet()).face]
        assert by_mask.box == by_photo.box and by_mask.score == by_photo.score
        np.testing.assert_array_equal(by_mask.landmarks, by_photo.landmarks)
        x, y = middle(by_mask) / [4000, 1600]
        assert place[0] < x < place[2] and place[1] < y < place[3]


def test_where_all_of_a_picture_shows_no_face_the_box_is_looked_at():
    pixels, (place,) = group((5200, 700, 60), width=6000, height=1600)
    assert find_faces(pixels, YuNet()) == []
    chosen, _ = choose(pixels, place, YuNet())
    assert middle(chosen)[0] > 5200


def test_a_face_that_is_not_there_is_refused_with_what_is():
    pixels, places = group((0, 0, 512), (560, 0, 400))
    with pytest.raises(
        InvalidRequest, match=r"^face_box: expected a box about a face of image, .* faces are at 0\.\d\d, "
    ) as error:
        choose(pixels, [0.0, 0.8, 0.1, 1.0], YuNet())
    assert str(error.value).count("; ") == len(places)
    nobody = np.full((200, 300, 3), 128, np.uint8)
    for box in (None, [0.0, 0.0, 0.5, 0.5]):
        with pytest.raises(
            InvalidRequest, match=r"^mask: no face was found in the 300 x 200 pixels of image; send the mask as mask_image"
        ):
            choose(nobody, box, YuNet())
