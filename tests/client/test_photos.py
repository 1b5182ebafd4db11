from __future__ import annotations

import io
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from faceclip import InvalidRequestError
from faceclip.photos import collect_photos, encode_mask, encode_photo


def _pixels(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)))


def test_files_and_bytes_travel_unchanged(tmp_path: Path, photo: bytes) -> None:
    path = tmp_path / "me.png"
    path.write_bytes(photo)
    assert encode_photo("face_image", photo) == photo
    assert encode_photo("face_image", bytearray(photo)) == photo
    assert encode_photo("face_image", path) == photo
    assert encode_photo("face_image", str(path)) == photo
    assert encode_photo("face_image", io.BytesIO(photo)) == photo
    with path.open("rb") as file:
        assert encode_photo("face_image", file) == photo


def test_pixels_travel_losslessly(pixels: np.ndarray) -> None:
    for form in (
        Image.fromarray(pixels),
        pixels,
        pixels / 255.0,
        (pixels / 255.0).astype(np.float32),
        pixels[:, ::-1][:, ::-1],
    ):
        np.testing.assert_array_equal(_pixels(encode_photo("face_image", form)), pixels)


def test_modes_that_png_lacks_become_rgb(pixels: np.ndarray) -> None:
    cmyk = Image.fromarray(pixels).convert("CMYK")
    np.testing.assert_array_equal(_pixels(encode_photo("face_image", cmyk)), np.asarray(cmyk.convert("RGB")))


def _deep(mode: str, grey: np.ndarray) -> Image.Image:
    match mode:
        case "F":
            return Image.fromarray(grey.astype(np.float32) / 255)
        case "F to 255":
            return Image.fromarray(grey.astype(np.float32))
        case "I to 255":
            return Image.fromarray(grey.astype(np.int32))
        case "I":
            return Image.fromarray(grey.astype(np.int32) * 257)
    return Image.fromarray(grey.astype("<u2" if mode == "I;16" else ">u2") * 257)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "I to 255", "F", "F to 255"])
def test_deep_grey_pictures_are_scaled_by_their_range(pixels: np.ndarray, mode: str) -> None:
    grey = pixels[:, :, 0].copy()
    grey[0, :2] = 0, 255
    np.testing.assert_array_equal(_pixels(encode_photo("face_image", _deep(mode, grey))), grey)


def test_alpha_of_every_kind_travels(pixels: np.ndarray) -> None:
    palette = Image.fromarray(pixels).quantize(8)
    palette.putalpha(Image.fromarray(pixels[:, :, 0]))
    assert palette.mode == "PA"
    np.testing.assert_array_equal(_pixels(encode_photo("face_image", palette))[:, :, 3], pixels[:, :, 0])
    with_alpha = np.dstack([pixels, pixels[:, :, :1]])
    np.testing.assert_array_equal(_pixels(encode_photo("face_image", with_alpha)), with_alpha)


def test_grey_and_deep_arrays(pixels: np.ndarray) -> None:
    grey = pixels[:, :, 0]
    for form in (grey, grey[:, :, None], grey.astype(np.uint16) * 257, grey / 255.0):
        np.testing.assert_array_equal(_pixels(encode_photo("face_image", form)), grey)
    np.testing.assert_array_equal(_pixels(encode_photo("face_image", pixels.astype(np.uint16) * 257)), pixels)


def test_pictures_that_cannot_be_sent_are_refused_with_a_cure() -> None:
    with pytest.raises(InvalidRequestError, match=r"from -5 to -5; scale them"):
        encode_photo("face_image", Image.fromarray(np.full((8, 8), -5, np.int32)))
    with pytest.raises(InvalidRequestError, match="0 x 3 pixels"):
        encode_photo("face_image", Image.new("RGB", (0, 3)))


def test_an_open_file_is_read_from_its_beginning_however_often(photo: bytes, tmp_path: Path) -> None:
    path = tmp_path / "me.png"
    path.write_bytes(photo)
    with path.open("rb") as file:
        assert encode_photo("face_image", file) == photo
        assert encode_photo("face_image", file) == photo
    with path.open() as text, pytest.raises(TypeError, match="opened as text; open it with 'rb'"):
        encode_photo("face_image", text)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="empty or at its end"):
        encode_photo("face_image", io.BytesIO())


def test_a_pil_image_is_turned_upright_and_loses_its_exif(pixels: np.ndarray) -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    exif[0x010F] = "a camera's maker"
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    sent = encode_photo("face_image", Image.open(io.BytesIO(file.getvalue())))
    np.testing.assert_array_equal(_pixels(sent), np.rot90(pixels, -1))
    assert not Image.open(io.BytesIO(sent)).getexif()
    assert b"maker" not in sent


def test_the_callers_image_is_not_altered(pixels: np.ndarray) -> None:
    image = Image.fromarray(pixels)
    image.info["comment"] = "mine"
    encode_photo("face_image", image)
    assert image.info == {"comment": "mine"}


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((3, 8, 8), np.uint8), "channels last"),
        (np.zeros((2, 8, 8, 3), np.uint8), "face_images"),
        (np.zeros((8, 8, 2), np.uint8), r"got shape \[8, 8, 2\]"),
        (np.zeros((8, 8, 3), np.int64), r"got int64; .*astype"),
        (np.full((8, 8, 3), 200.0), "from 200 to 200; divide it by 255"),
        (np.zeros((0, 0, 3), np.uint8), r"empty array of shape \[0, 0, 3\]"),
        (np.full((8, 8, 3), -0.1), "from -0.1"),
        (np.full((8, 8, 3), np.nan), "nan"),
    ],
)
def test_other_arrays_are_refused_with_the_reason(array: np.ndarray, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        encode_photo("face_image", array)


def test_what_is_no_photograph_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="face_image: expected a path"):
        encode_photo("face_image", 7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'rb'"):
        encode_photo("face_image", io.StringIO("text"))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="URL"):
        encode_photo("face_image", "https://example.org/me.jpg")
    with pytest.raises(InvalidRequestError, match=r"data URL; pass base64\.b64decode"):
        encode_photo("face_image", "data:image/png;base64,iVBO")
    with pytest.raises(InvalidRequestError, match="text of 20000 characters; if it is base64"):
        encode_photo("face_image", "iVBO" * 5000)
    with pytest.raises(FileNotFoundError, match=r"nobody.jpg"):
        encode_photo("face_image", "nobody.jpg")


def test_one_or_several_photographs(photo: bytes, pixels: np.ndarray) -> None:
    assert collect_photos(None, None) == []
    assert collect_photos(photo, None) == [photo]
    assert collect_photos(None, [photo, photo + b" "]) == [photo, photo + b" "]
    assert collect_photos(None, (p for p in [photo])) == [photo]
    batch = np.stack([pixels, pixels[::-1]])
    np.testing.assert_array_equal(_pixels(collect_photos(None, batch)[1]), pixels[::-1])


def test_ambiguous_photographs_are_refused(photo: bytes) -> None:
    with pytest.raises(TypeError, match="not both"):
        collect_photos(photo, [photo])
    with pytest.raises(TypeError, match="pass it as face_image"):
        collect_photos(None, "me.jpg")
    with pytest.raises(TypeError, match="pass it as face_image"):
        collect_photos(None, io.BytesIO(photo))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="at least one"):
        collect_photos(None, [])
    with pytest.raises(TypeError, match=r"face_images\[1\]"):
        collect_photos(None, [photo, 7])  # type: ignore[list-item]


def test_avif_is_converted_upright_since_the_server_does_not_read_it(pixels: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(pixels).resize((60, 80)).save(file, "AVIF", quality=90, exif=exif)
    path = tmp_path / "me.avif"
    path.write_bytes(file.getvalue())
    for form in (path, file.getvalue(), file):
        sent = Image.open(io.BytesIO(encode_photo("face_image", form)))
        assert sent.format == "PNG" and sent.size == (80, 60)
    whole = Image.open(path)
    np.testing.assert_array_equal(_pixels(encode_photo("face_image", path)), np.asarray(ImageOps.exif_transpose(whole)))
    with pytest.raises(InvalidRequestError, match=r"face_image: .* got AVIF, .* unless it is damaged"):
        encode_photo("face_image", file.getvalue()[:-300])


def test_heic_needs_its_reader_and_the_message_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    heic = b"\0\0\0\x18ftypheic" + bytes(200)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InvalidRequestError, match=r"face_image: .* got HEIC, .*`pip install faceclip-client\[heif\]`"):
        encode_photo("face_image", heic)


def test_heic_is_converted_by_its_reader_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, pixels: np.ndarray) -> None:
    """The reader is a package that is not installed here; in its place Pillow learns a format of the same first bytes."""

    class Reader(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self) -> None:
            self._size, self._mode, self.tile = (30, 40), "RGB", []

        def load(self) -> object:
            self.im = Image.fromarray(pixels).im
            return None

    module = types.ModuleType("pillow_heif")
    module.register_heif_opener = lambda: Image.register_open("HEIF", Reader, lambda head: head[4:12] == b"ftypheic")
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    np.testing.assert_array_equal(_pixels(encode_photo("face_image", b"\0\0\0\x18ftypheic" + bytes(200))), pixels)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1)])
def test_a_mask_may_be_an_array_of_bool_and_a_photograph_may_not(shape):
    array = np.arange(24).reshape(shape) % 5 == 0
    sent = np.asarray(Image.open(io.BytesIO(encode_mask("mask_image", array))).convert("L"))
    np.testing.assert_array_equal(sent, array.reshape(4, 6) * np.uint8(255))
    for other in (array.astype(np.float32), array * np.uint8(255), Image.fromarray(array.reshape(4, 6))):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_mask("mask_image", other))).convert("L")), sent)
    with pytest.raises(InvalidRequestError, match=r"^image: expected pixels \[height, width, 3\], .*, got bool"):
        encode_photo("image", array)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 6), np.int64), np.zeros((4, 6, 2)), np.zeros((0, 6), bool), np.full((4, 6), 7.0)]
)
def test_what_is_no_mask_is_told_the_shape_of_one(array):
    with pytest.raises(InvalidRequestError, match=r"^mask_image: expected pixels \[height, width\], of bool, uint8, "):
        encode_mask("mask_image", array)
