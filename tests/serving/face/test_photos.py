"""Reading what callers upload, hostile files included, and writing what is answered."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.face import photos
from faceclip_serving.face.photos import Photo, count_jpeg_scans, decode_photo, encode_picture

ROOT = Path(__file__).resolve().parents[3]
ASTRONAUT = (ROOT / "examples" / "astronaut.jpg").read_bytes()
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")


def encoded(image: Any, file_format: str = "PNG", **options: Any) -> bytes:
    """`image`: an array or a Pillow image."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, file_format, **options)
    return file.getvalue()


def blocks(*colours: tuple[int, ...], side: int = 16) -> np.ndarray:
    """Squares of the given colours in a row: [side, side * n, channels]."""
    return np.array([colours], np.uint8).repeat(side, 0).repeat(side, 1)


def refusal(data: bytes, index: int = 0) -> str:
    with pytest.raises(InvalidRequest) as caught:
        decode_photo(data, index)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------------- good pictures
@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_gives_the_same_rgb(file_format):
    rgb = np.array(Image.open(io.BytesIO(ASTRONAUT)).convert("RGB").resize((160, 120)))
    photo = decode_photo(encoded(rgb, file_format))
    assert photo.pixels.dtype == np.uint8 and photo.pixels.shape == (120, 160, 3) and photo.pixels.flags.c_contiguous
    assert (photo.factor, photo.width, photo.height) == (1, 160, 120)
    error = np.abs(photo.pixels.astype(int) - rgb)
    assert error.mean() < {"JPEG": 8, "WEBP": 8, "GIF": 16}.get(file_format, 0.001)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_keeps_black_and_white(mode):
    picture = Image.fromarray(blocks((0, 0, 0), (255, 255, 255))).convert(mode)
    pixels = decode_photo(encoded(picture, "TIFF" if mode == "CMYK" else "PNG")).pixels
    assert pixels[8, 8].tolist() == [0, 0, 0] and pixels[8, 24].tolist() == [255, 255, 255]


def test_cmyk_jpeg_keeps_its_colours():
    pixels = decode_photo(encoded(Image.fromarray(blocks((200, 30, 30), (30, 200, 30))).convert("CMYK"), "JPEG")).pixels
    assert np.abs(pixels[8, [8, 24]].astype(int) - [[200, 30, 30], [30, 200, 30]]).max() < 12


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_deep_grey_is_scaled_not_clipped(file_format):
    deep = np.array([[0, 257, 128 * 257, 200 * 257 + 100, 65535]], np.uint16).repeat(8, 0)
    assert decode_photo(encoded(deep, file_format)).pixels[0, :, 1].tolist() == [0, 1, 128, 200, 255]


@pytest.mark.parametrize(
    ("dtype", "white"), [("float32", 1.0), ("float32", 255.0), ("float32", 65535.0), ("int32", 65535), ("int32", 255)]
)
def test_grey_of_32_bits_is_scaled_by_its_range(dtype, white):
    ramp = np.tile(np.linspace(0, white, 256), (8, 1)).astype(dtype)
    pixels = decode_photo(encoded(ramp, "TIFF")).pixels
    assert np.abs(pixels[0].astype(int) - np.arange(256)[:, None]).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_deep_rgb_is_scaled_not_clipped(suffix):
    values = np.array([[[10, 128, 250]]], np.uint16).repeat(8, 0).repeat(8, 1)
    ok, file = cv2.imencode(suffix, values[..., ::-1] * 257)
    assert ok
    assert decode_photo(file.tobytes()).pixels[4, 4].tolist() == [10, 128, 250]


def test_transparency_shows_white():
    rgba = blocks((255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128))
    pixels = decode_photo(encoded(rgba)).pixels
    assert pixels[8, [8, 24]].tolist() == [[255, 0, 0], [255, 255, 255]]
    assert np.abs(pixels[8, 40].astype(int) - 127).max() <= 1


def test_transparent_palette_colour_shows_white():
    palette = Image.fromarray(np.array([[0, 1]], np.uint8).repeat(16, 0).repeat(16, 1), "P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    assert decode_photo(encoded(palette, "PNG", transparency=0)).pixels[8, [8, 24]].tolist() == [
        [255, 255, 255],
        [200, 100, 50],
    ]


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "TIFF"])
def test_the_first_frame_counts(file_format):
    first, second = (Image.new("RGB", (32, 32), colour) for colour in ("#ff0000", "#0000ff"))
    data = encoded(
        first, file_format, save_all=True, append_images=[second], **({"lossless": True} if file_format == "WEBP" else {})
    )
    assert decode_photo(data).pixels[16, 16].tolist() == [255, 0, 0]


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed(orientation, file_format):
    upright = Image.fromarray(np.concatenate([blocks((250, 0, 0), (0, 250, 0)), blocks((0, 0, 250), (250, 250, 250)),
                                              blocks((0, 0, 0), (120, 120, 120))]))  # fmt: skip
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    stored = upright.transpose(photos._UPRIGHT[inverse]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = decode_photo(encoded(stored, file_format, exif=exif))
    assert (photo.width, photo.height) == (32, 48) == photo.pixels.shape[1::-1]
    assert np.abs(photo.pixels[8::16, 8::16].astype(int) - np.array(upright)[8::16, 8::16]).max() < 30


def test_a_colour_profile_is_converted_and_a_broken_one_ignored():
    """The profile is sRGB with the red and green primaries exchanged, so red pixels mean green."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exchanged = srgb.replace(b"rXYZ", b"swap", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"swap", b"gXYZ", 1)
    red = blocks((255, 0, 0))
    assert decode_photo(encoded(red, icc_profile=srgb)).pixels[8, 8].tolist() == pytest.approx([255, 0, 0], abs=2)
    assert decode_photo(encoded(red, icc_profile=exchanged)).pixels[8, 8].tolist() == pytest.approx([0, 255, 0], abs=2)
    assert decode_photo(encoded(red, icc_profile=b"no profile at all")).pixels[8, 8].tolist() == [255, 0, 0]
    grey = blocks((128, 128, 128))[..., 0]
    assert decode_photo(encoded(grey, icc_profile=srgb)).pixels[8, 8].tolist() == [128, 128, 128]


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("width", [4096, 4097, 8200, 12300])
def test_large_photographs_are_reduced_by_a_known_factor(file_format, width):
    pixels = np.zeros((96, width, 3), np.uint8)
    pixels[24:72, width // 2 : width // 2 + 120] = 255
    photo = decode_photo(encoded(pixels, file_format))
    assert (photo.width, photo.height) == (width, 96)
    assert max(photo.pixels.shape) <= photos.MAX_SIDE and (photo.factor == 1) == (width <= photos.MAX_SIDE)
    rows, columns = (np.flatnonzero(photo.pixels[..., 1].max(axis=axis) > 128) for axis in (1, 0))
    found = np.array([columns[0], columns[-1] + 1, rows[0], rows[-1] + 1]) * photo.factor
    assert np.abs(found - [width // 2, width // 2 + 120, 24, 72]).max() <= photo.factor


# ----------------------------------------------------------------------------------------------------------- bad pictures
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 bytes"),
        (b"hello, I am not a picture", "25 bytes that do not begin as one"),
        (b"%PDF-1.7 nothing", "HEIC"),
        (b"\0\0\0\x18ftypheic" + bytes(99), "got HEIC, which is not read here; save it as JPEG"),
        (b"\0\0\0\x18ftypmif1" + bytes(99), "got HEIC, which is not read here"),
        (encoded(blocks((64, 64, 3)), "AVIF"), "`pip install faceclip-client[heif]`"),
        (ASTRONAUT[:5000], "damaged or incomplete"),
        (ASTRONAUT[: len(ASTRONAUT) // 2], "damaged or incomplete"),
        (encoded(blocks((1, 2, 3)))[:60], "damaged or incomplete"),
        (encoded(np.full((8, 8), -7e6, np.float32), "TIFF"), "32 bits from -7e+06 to -7e+06"),
        (encoded(np.full((8, 8), np.nan, np.float32), "TIFF"), "32 bits from nan to nan"),
        (encoded(np.full((8, 8), 70_000, np.int32), "TIFF"), "from 70000 to 70000"),
        (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "a TIFF whose kind of pixels is not read"),
        (b"\xff\xd8" + bytes(photos.MAX_BYTES), "at most 32 MiB, got 32.0 MiB"),
    ],
)
def test_bad_files_are_refused_with_the_parameter_and_a_cure(data, said):
    message = refusal(data, index=3)
    assert message.startswith("face_images[3]: ") and said in message and ";" in message
    assert "0x" not in message and "BytesIO" not in message


def png_header(width: int, height: int) -> bytes:
    """A PNG that only claims its size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_no_pixels_and_too_many_are_refused():
    for size in ((0, 0), (0, 7), (7, 0)):
        assert "expected a photograph" in refusal(png_header(*size))
    assert "9000 x 9000 = 81" in refusal(png_header(9000, 9000))
    assert "megapixels" in refusal(png_header(20000, 20000))


def test_a_decompression_bomb_is_refused_before_memory_is_taken():
    """In a process that may take 150 MB more than it has: decoding would take 202 and 1,200 MB."""
    code = (
        "import resource, sys; from faceclip_serving.face.photos import decode_photo;"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize();"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 150_000_000,) * 2);"
        "decode_photo(sys.stdin.buffer.read())"
    )
    for size in ((8200, 8200), (20000, 20000)):
        ran = subprocess.run([sys.executable, "-c", code], input=png_header(*size), capture_output=True, cwd=ROOT, check=False)
        assert b"megapixels" in ran.stderr and b"InvalidRequest" in ran.stderr


def test_a_jpeg_of_endless_scans_is_refused():
    progressive = encoded(blocks((10, 20, 30), (200, 20, 30), side=64), "JPEG", progressive=True)
    assert 2 < count_jpeg_scans(progressive) <= 12 and decode_photo(progressive).factor == 1
    last = progressive[progressive.rindex(b"\xff\xda") : -2]
    assert "got 1" in refusal(progressive[:-2] + 100 * last + b"\xff\xd9")


def test_scans_are_counted_outside_of_segments_and_before_the_end():
    baseline = encoded(blocks((10, 20, 30)), "JPEG", comment=b"\xff\xda" * 500)
    assert count_jpeg_scans(baseline + b"\xff\xda" * 500) == 1 and count_jpeg_scans(ASTRONAUT) == 1


@pytest.mark.parametrize("file_format", FORMATS)
def test_damaged_files_never_raise_anything_else(file_format, capfd):
    rng = np.random.default_rng(20)
    small = Image.open(io.BytesIO(ASTRONAUT)).resize((48, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if file_format in ("BMP", "GIF") else {"exif": exif}
    whole = np.frombuffer(encoded(small, file_format, **options), np.uint8)
    refused = read = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for trial in range(150):
            data = whole.copy()
            head = len(data) if trial % 2 else min(len(data), 120)  # headers matter most
            places = rng.integers(0, head, rng.integers(1, 12))
            data[places] = rng.integers(0, 256, len(places))
            cut = len(data) if trial % 3 else int(rng.integers(1, len(data)))
            try:
                photo = decode_photo(data[:cut].tobytes())
            except InvalidRequest:
                refused += 1
            else:
                assert isinstance(photo, Photo) and photo.pixels.ndim == 3
                read += 1
    assert refused and read
    assert capfd.readouterr() == ("", "")


def test_random_bytes_after_a_true_beginning_never_raise_anything_else():
    rng = np.random.default_rng(21)
    small = Image.open(io.BytesIO(ASTRONAUT)).resize((48, 40))
    for file_format in FORMATS:
        beginning = encoded(small, file_format)
        for keep in (2, 8, 12, 30, 60):
            for _ in range(6):
                data = beginning[:keep] + rng.bytes(int(rng.integers(0, 400)))
                try:
                    decode_photo(data)
                except InvalidRequest as error:
                    assert str(error).startswith("face_images[0]: ")


# ---------------------------------------------------------------------------------------------------------------- writing
METADATA = {"Software": "faceclip", "Prompt": "宇航员 in a café, studio light", "Seed": "7"}


def picture() -> np.ndarray:
    return np.array(Image.open(io.BytesIO(ASTRONAUT)).resize((120, 88)))


def test_png_is_exact_and_holds_the_texts():
    image = picture()
    written = Image.open(io.BytesIO(encode_picture(image, "PNG", METADATA)))
    assert written.format == "PNG" and (np.array(written) == image).all()
    assert isinstance(written, PngImagePlugin.PngImageFile) and dict(written.text) == METADATA


@pytest.mark.parametrize("output_format", ["JPEG", "WEBP"])
@pytest.mark.parametrize("metadata", [METADATA, {"Seed": "7"}, {"Prompt": "😀" * 3000}])
def test_jpeg_and_webp_are_close_and_hold_the_texts(output_format, metadata):
    image = picture()
    written = Image.open(io.BytesIO(encode_picture(image, output_format, metadata)))
    assert written.format == output_format
    assert np.abs(np.array(written.convert("RGB")).astype(int) - image).mean() < 4
    comment = written.getexif().get_ifd(0x8769)[0x9286]
    text = comment[8:].decode({b"ASCII\0\0\0": "ascii", b"UNICODE\0": "utf-16-be"}[comment[:8]])
    assert json.loads(text) == metadata


def test_what_cannot_be_written_is_refused():
    image = picture()
    with pytest.raises(ValueError, match="output_format: expected one of PNG, JPEG, WEBP, got 'GIF'"):
        encode_picture(image, "GIF", {})
    with pytest.raises(ValueError, match=r"image: expected uint8 \[height, width, 3\], got float32"):
        encode_picture(image.astype(np.float32), "PNG", {})
    with pytest.raises(ValueError, match="metadata: expected keys"):
        encode_picture(image, "PNG", {"提示": "x"})
    with pytest.raises(ValueError, match="metadata: expected at most 65000 bytes"):
        encode_picture(image, "JPEG", {"Prompt": "é" * 40000})
    assert len(Image.open(io.BytesIO(encode_picture(image, "PNG", {"Prompt": "é" * 40000}))).text["Prompt"]) == 40000  # type: ignore[attr-defined]
