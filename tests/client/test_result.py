from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from faceclip import FaceCLIPOutput, InvalidRequestError, ProtocolError
from faceclip.result import format_of, numbered, read_output, read_progress
from faceclip_serving.face.photos import encode_picture
from faceclip_serving.marking.metadata import packet, read


def _objects(*items: bytes) -> np.ndarray:
    array = np.empty(len(items), np.object_)
    array[:] = items
    return array


def _arrays(*files: bytes, **replaced: Any) -> dict[str, Any]:
    details = {"warnings": ["a long prompt"], "timings_s": {"total": 1.5}}
    arrays = {
        "images": _objects(*files),
        "seeds": np.arange(7, 7 + len(files)),
        "details": _objects(json.dumps(details).encode()),
    }
    return {name: array for name, array in {**arrays, **replaced}.items() if array is not None}


def _read(arrays: dict[str, Any], output_type: str = "pil") -> FaceCLIPOutput:
    return read_output(arrays, output_type, "faceclip", "tiny-sdxl", "box:1")


def test_a_result_in_every_form(photo: bytes, pixels: np.ndarray) -> None:
    pil, array, files = (_read(_arrays(photo, photo), form) for form in ("pil", "np", "bytes"))
    np.testing.assert_array_equal(np.asarray(pil.images[1]), pixels)
    assert array.images.shape == (2, 40, 30, 3) and array.images.dtype == np.float32
    np.testing.assert_allclose(array.images[0] * 255, pixels, atol=1e-4)
    assert files.images == files.files == pil.files == [photo, photo]
    for result in (pil, array, files):
        assert (result.seed, result.seeds, result.warnings) == (7, [7, 8], ["a long prompt"])
        assert result.details["timings_s"] == {"total": 1.5}


def test_every_picture_has_its_provenance(photo: bytes) -> None:
    first, second = _read(_arrays(photo, photo)).provenance
    assert (first.seed, second.seed) == (7, 8)
    assert (first.model, first.variant, first.server) == ("faceclip", "tiny-sdxl", "box:1")
    assert (first.format, first.width, first.height) == ("PNG", 30, 40)
    assert first.sha256 == hashlib.sha256(photo).hexdigest()


@pytest.mark.parametrize(
    ("replaced", "says"),
    [
        ({"seeds": None}, "missing: seeds"),
        ({"seeds": np.array([1, 2])}, "1 pictures, 2 seeds"),
        ({"images": _objects(), "seeds": np.array([], np.int64)}, "0 pictures"),
        ({"images": _objects(b"sorry")}, r"images\[0\].*5 bytes"),
        ({"details": _objects(b"{")}, "'details': expected a JSON document"),
        ({"details": _objects(b"[]")}, "'details': expected a JSON object"),
        ({"details": _objects()}, "'details'"),
    ],
)
def test_an_answer_that_breaks_the_protocol_is_named(photo: bytes, replaced: dict[str, Any], says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        _read(_arrays(photo, **replaced))


def test_a_torn_picture_is_a_protocol_error(photo: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"images\[0\]"):
        _read(_arrays(photo[: len(photo) // 2]))


def test_saving_keeps_the_servers_bytes(tmp_path: Path, photo: bytes) -> None:
    assert _read(_arrays(photo)).save(tmp_path / "out.png") == [tmp_path / "out.png"]
    assert (tmp_path / "out.png").read_bytes() == photo
    several = _read(_arrays(photo, photo), "np").save(str(tmp_path / "out.png"))
    assert [path.name for path in several] == ["out-0.png", "out-1.png"]
    assert several[1].read_bytes() == photo


def test_saving_under_another_format_is_refused(tmp_path: Path, photo: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="the picture is PNG; call with output_format='JPEG'"):
        _read(_arrays(photo)).save(tmp_path / "out.jpg")
    assert not list(tmp_path.iterdir())


def test_formats_by_extension() -> None:
    assert [format_of(name) for name in ("a.PNG", "a.jpg", "a.jpeg", "a.webp")] == ["PNG", "JPEG", "JPEG", "WEBP"]
    with pytest.raises(InvalidRequestError, match=r"got '.gif'"):
        format_of("a.gif")
    assert numbered(Path("d/x.y.png"), 2) == [Path("d/x.y-0.png"), Path("d/x.y-1.png")]


def test_progress() -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 4)).save(file, "PNG")
    full = read_progress(
        {"progress": _objects(b'{"step": 3, "total": 8, "timestep": 601.0}'), "preview_image": _objects(file.getvalue())}
    )
    assert full is not None and full.preview is not None
    assert (full.step, full.total, full.timestep, full.preview.size) == (3, 8, 601.0, (8, 4))
    bare = read_progress({"progress": _objects(b'{"step": 1, "total": 8}')})
    assert bare is not None and (bare.timestep, bare.preview) == (None, None)
    assert read_progress({"images": _objects()}) is None
    with pytest.raises(ProtocolError, match="step and total"):
        read_progress({"progress": _objects(b'{"step": 1}')})


@pytest.mark.parametrize("encoding", ["PNG", "JPEG", "WEBP"])
def test_a_picture_that_is_saved_by_itself_keeps_the_servers_marks(encoding: str, pixels: np.ndarray, tmp_path: Path) -> None:
    marks = {"Source": "AI generated", "Seed": "7"}
    file = encode_picture(pixels, encoding, marks, packet("Bildwerk GmbH", "abc", "system", "1"))
    image = _read(_arrays(file)).images[0]
    for ending in ("png", "jpg", "webp"):
        image.save(tmp_path / f"out.{ending}")
        saved = Image.open(tmp_path / f"out.{ending}")
        assert ((tmp_path / f"out.{ending}").read_bytes() == file) == (saved.format == encoding)
        assert read(saved.info["xmp"]).aigc["ProduceID"] == "abc"
        if (saved.format, encoding) == ("PNG", "PNG"):
            assert saved.info["Source"] == "AI generated"
        else:
            comment = saved.getexif().get_ifd(0x8769)[0x9286]
            assert comment.startswith(b"ASCII") and json.loads(comment[8:]) == marks
    image.save(tmp_path / "bare.png", pnginfo=None, exif=b"")
    assert "Source" not in Image.open(tmp_path / "bare.png").info
    image.putpixel((0, 0), (1, 2, 3))
    image.save(tmp_path / "changed.png")
    assert Image.open(tmp_path / "changed.png").getpixel((0, 0)) == (1, 2, 3)


def test_an_unchanged_picture_is_the_servers_file_wherever_it_is_written(pixels: np.ndarray) -> None:
    file = encode_picture(pixels, "WEBP", {})
    image, written = _read(_arrays(file)).images[0], io.BytesIO()
    image.save(written, "WEBP")
    assert written.getvalue() == file
    image.save(written := io.BytesIO(), "WEBP", quality=10)
    assert written.getvalue() != file
