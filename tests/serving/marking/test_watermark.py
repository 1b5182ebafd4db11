"""The invisible mark: what it survives, what it costs, and that it is never found where it is not."""

import hashlib
import io
import time

import numpy as np
import pytest
from PIL import Image

from faceclip_serving.marking import watermark
from faceclip_serving.marking.watermark import LARGE, LAYOUTS, SMALL, embed, layout_of, psnr, read

from .conftest import DATA, KEY, ROOT

OTHER_KEY = bytes(32)
NUMBER = 0x0123456789ABCDEF


@pytest.fixture(scope="module")
def photograph():
    return np.array(Image.open(ROOT / "examples" / "astronaut.jpg").convert("RGB"))


def resaved(picture, file_format, **options):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, file_format, **options)
    return np.array(Image.open(file).convert("RGB"))


def resized(picture, scale):
    size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def cropped(picture, share):
    height, width = picture.shape[:2]
    top, left = int(height * share * 0.6), int(width * share * 0.3)
    return picture[top : top + int(height * (1 - share)), left : left + int(width * (1 - share))].copy()


def on_a_page(picture):
    small = resized(picture, 0.8)
    page = np.full((small.shape[0] + 80, small.shape[1] + 120, 3), 240, np.uint8)
    page[40:-40, 60:-60] = small
    return resaved(page, "JPEG", quality=85)


ATTACKS = {
    "none": lambda picture: picture,
    "JPEG 70": lambda picture: resaved(picture, "JPEG", quality=70),
    "JPEG 50": lambda picture: resaved(picture, "JPEG", quality=50),
    "WebP 80": lambda picture: resaved(picture, "WEBP", quality=80),
    "half the size": lambda picture: resized(picture, 0.5),
    "half as large again": lambda picture: resized(picture, 1.5),
    "a tenth cut off": lambda picture: cropped(picture, 0.1),
    "a quarter cut off": lambda picture: cropped(picture, 0.25),
    "a quarter cut off, JPEG 70": lambda picture: resaved(cropped(picture, 0.25), "JPEG", quality=70),
    "brighter": lambda picture: np.clip(picture * 1.2, 0, 255).astype(np.uint8),
    "screenshot": on_a_page,
    "mirrored": lambda picture: picture[:, ::-1].copy(),
    "mirrored, a tenth cut off": lambda picture: cropped(picture[:, ::-1].copy(), 0.1),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_photographs_mark_survives(photograph, attack):
    marked, _ = embed(photograph, NUMBER, KEY, 43.0)
    found = read(ATTACKS[attack](marked), KEY, search_s=30)
    assert found is not None and found.mark_id == "0123456789abcdef"
    assert found.mirrored == attack.startswith("mirrored")
    assert found.confidence > 6


@pytest.mark.parametrize("attack", ["none", "WebP 80", "a tenth cut off", "mirrored"])
def test_a_small_pictures_mark_survives(portrait, attack):
    marked, _ = embed(np.array(Image.fromarray(portrait).resize((128, 128))), 0x89ABCDEF, KEY, 43.0)
    found = read(ATTACKS[attack](marked), KEY, search_s=30)
    assert found is not None and found.mark_id == "89abcdef"


@pytest.mark.parametrize(("name", "mark_id"), [("marked_large.jpg", "0123456789abcdef"), ("marked_small.jpg", "89abcdef")])
def test_pictures_that_were_marked_before_are_read(name, mark_id):
    found = read(np.array(Image.open(DATA / name).convert("RGB")), KEY)
    assert found is not None and found.mark_id == mark_id


@pytest.mark.parametrize(
    ("layout", "digest"),
    [
        (LARGE, "3a3282a145eebc86cbc30aa05de8f0b863b63be7850bf70d0a7088b67078a623"),
        (SMALL, "0534bab77f0056f39a6ca3c4715d25fc1eb6acc7704a9cb557b1d4fdc5e06128"),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_what_follows_from_a_key_never_changes(layout, digest):
    bins, found = watermark._bins(KEY, layout), hashlib.sha256()
    for array in (*bins.pilot, *bins.data, bins.bit, bins.sign.astype(int)):
        found.update(np.ascontiguousarray(array, "<i8").tobytes())
    assert found.hexdigest() == digest


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_coded_bit_is_carried_as_often_as_any_other(layout):
    bit = watermark._bins(KEY, layout).bit
    counts = np.bincount(bit[bit >= 0], minlength=layout.payload.coded_bits)
    assert counts.min() == counts.max() >= 4


@pytest.mark.parametrize("wanted", [38.0, 43.0, 48.0])
def test_the_psnr_is_as_asked(photograph, wanted):
    marked, told = embed(photograph, NUMBER, KEY, wanted)
    assert told == pytest.approx(psnr(photograph, marked)) and abs(told - wanted) < 0.5
    assert marked.dtype == np.uint8 and marked.shape == photograph.shape


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_picture_of_one_colour_is_marked_too(value):
    marked, _ = embed(np.full((512, 640, 3), value, np.uint8), NUMBER, KEY, 43.0)
    found = read(marked, KEY)
    assert found is not None and int(found.mark_id, 16) == NUMBER


def test_another_key_finds_nothing(photograph):
    marked, _ = embed(photograph, NUMBER, KEY, 43.0)
    assert read(marked, OTHER_KEY, search_s=1) is None


def test_unmarked_pictures_have_no_mark(photograph, portrait):
    rng = np.random.default_rng(3)
    for picture in (
        photograph,
        portrait,
        rng.integers(0, 256, (300, 400, 3), dtype=np.uint8),
        np.zeros((200, 200, 3), np.uint8),
    ):
        assert read(picture, KEY, search_s=1) is None


def test_two_marks_read_as_one_of_them(photograph):
    once, _ = embed(photograph, 1, KEY, 43.0)
    twice, _ = embed(once, 2, KEY, 43.0)
    found = read(twice, KEY, search_s=2)
    assert found is None or int(found.mark_id, 16) in (1, 2)


def test_a_search_ends_in_time():
    noise = np.random.default_rng(4).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    begun = time.process_time()
    assert read(noise, KEY, search_s=0.5) is None
    assert time.process_time() - begun < 8


@pytest.mark.parametrize(
    ("size", "layout"), [((95, 400), None), ((96, 96), SMALL), ((400, 319), SMALL), ((320, 320), LARGE), ((2048, 1024), LARGE)]
)
def test_the_size_chooses_the_layout(size, layout):
    assert layout_of(*size) is layout


def test_a_picture_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="at least 96 pixels, got 80"):
        embed(np.zeros((80, 200, 3), np.uint8), 1, KEY, 43.0)


def test_a_key_of_another_length_is_refused(portrait):
    with pytest.raises(ValueError, match="key: expected 32 bytes, got 5"):
        embed(portrait, 1, b"short", 43.0)


@pytest.mark.parametrize(
    "shape", [(1, 1, 3), (48, 40_000, 3), (3, 900, 3), (900, 3, 3), (50, 50, 3), (100, 2000, 3), (2000, 97, 3)]
)
def test_pictures_of_any_shape_are_read_without_an_error(shape):
    picture = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    assert read(picture, KEY, search_s=0.2) is None
