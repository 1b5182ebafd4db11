"""What a verifier says of pictures from anywhere: truthful, never a crash."""

import contextlib
import io
import zipfile

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from faceclip_serving.face.photos import encode_picture
from faceclip_serving.marking import authority
from faceclip_serving.marking.authority import make
from faceclip_serving.marking.credentials import Claim, Signer
from faceclip_serving.marking.verify import MAX_BYTES, UnreadablePicture, input_credentials, verify
from faceclip_serving.marking.watermark import Tiles

from .conftest import marked

FORMATS = ("PNG", "JPEG", "WEBP")


@pytest.fixture(scope="module")
def files(marker, portrait):
    return {output_format: marked(marker, portrait, output_format).file for output_format in FORMATS}


def read(marker, file):
    return verify(file, marker.signer.anchors, marker.watermark.read)


@pytest.mark.parametrize("output_format", FORMATS)
def test_an_unmarked_picture_has_nothing_and_that_means_nothing(marker, portrait, output_format):
    report = read(marker, encode_picture(portrait, output_format, {}))
    assert (report.credentials.state, report.label.state, report.mark.state) == ("none", "none", "none")
    assert not report.found and not report.doubtful and "does not mean" in report.conclusion


@pytest.mark.parametrize("output_format", FORMATS)
def test_saved_again_only_the_invisible_mark_is_left(marker, files, output_format):
    again = io.BytesIO()
    Image.open(io.BytesIO(files[output_format])).convert("RGB").save(again, output_format)
    report = read(marker, again.getvalue())
    assert (report.credentials.state, report.mark.state) == ("none", "found") and report.found


@pytest.mark.parametrize("output_format", FORMATS)
def test_without_key_and_anchor_it_says_so(files, output_format):
    report = verify(files[output_format])
    assert report.credentials.state == "valid" and "not among those that are trusted" in report.credentials.why
    assert report.mark.state == "not_read" and report.found


def test_a_changed_byte_breaks_the_credentials_alone(marker, files):
    changed = bytearray(files["JPEG"])
    changed[-1000] ^= 1
    report = read(marker, bytes(changed))
    assert report.credentials.state == "invalid" and "assertion.dataHash.mismatch" in report.credentials.why
    assert report.doubtful and report.label.state == "found"


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_file_is_told(marker, files, output_format, share):
    file = files[output_format][: int(len(files[output_format]) * share)]
    try:
        report = read(marker, file)
    except UnreadablePicture:
        return
    assert report.credentials.state in ("invalid", "none") and any("cut off" in warning for warning in report.warnings)
    assert report.mark.state == "not_read"


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_polyglot_is_told(marker, files, output_format):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("x.txt", "hello")
    report = read(marker, files[output_format] + archive.getvalue())
    assert report.credentials.state == "invalid", "the hash covers the whole file"
    assert any("bytes follow the end" in warning for warning in report.warnings)


def test_somebody_elses_manifest_is_told_as_such(marker, files, tmp_path):
    make(tmp_path, "Somebody else")
    other = Signer(tmp_path / authority.CERTIFICATE, str(tmp_path / authority.CERTIFICATE_KEY))
    file, manifest = other.sign(files["PNG"], "image/png", Claim("their tool", "9", None, False))
    report = read(marker, file)
    assert (report.credentials.state, report.credentials.signer) == ("valid", "Somebody else")
    assert report.credentials.manifest == manifest and report.mark.state == "found"


def test_credentials_of_another_picture_are_seen(marker, portrait):
    """A mark that was copied: the signature holds, and names another mark."""
    one, two = marked(marker, portrait), marked(marker, portrait)
    bare = io.BytesIO()
    Image.open(io.BytesIO(one.file)).save(bare, "PNG")
    file, _ = marker.signer.sign(
        bare.getvalue(), "image/png", Claim("system", "1", (Tiles.soft_binding, two.record["mark_id"]), False)
    )
    report = read(marker, file)
    assert report.credentials.state == "trusted" and report.doubtful
    assert any(two.record["mark_id"] in warning and one.record["mark_id"] in warning for warning in report.warnings)


def test_xmp_with_a_document_type_is_told(marker, portrait):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("XML:com.adobe.xmp", '<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>')
    file = io.BytesIO()
    Image.fromarray(portrait).save(file, "PNG", pnginfo=chunks)
    report = read(marker, file.getvalue())
    assert report.label.state == "unreadable" and "document type" in report.label.why and report.doubtful


@pytest.mark.parametrize(
    "file", [b"", b"hello", b"GIF89a" + bytes(100), b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP"]
)
def test_what_is_no_picture_is_refused(file):
    with pytest.raises(UnreadablePicture, match="expected a PNG, JPEG or WebP file"):
        verify(file)


def test_a_file_too_large_or_a_bomb_is_refused():
    with pytest.raises(UnreadablePicture, match="at most 32 MiB"):
        verify(bytes(MAX_BYTES + 1))
    bomb = io.BytesIO()
    Image.new("1", (12_000, 9_000)).save(bomb, "PNG")
    with pytest.raises(UnreadablePicture, match="at most 64 megapixels"):
        verify(bomb.getvalue())


def test_damage_anywhere_never_crashes(marker, files):
    rng = np.random.default_rng(6)
    for output_format in FORMATS:
        for _ in range(30):
            file = bytearray(files[output_format])
            for place in rng.integers(0, min(len(file), 12_000), 8):
                file[place] = rng.integers(0, 256)
            with contextlib.suppress(UnreadablePicture):
                verify(bytes(file), marker.signer.anchors).as_json()


def test_a_photographs_own_credentials_are_found_quickly(files, portrait):
    assert input_credentials(encode_picture(portrait, "JPEG", {})) is None
    for file in files.values():
        found = input_credentials(file)
        assert found is not None and found.manifest.startswith("urn:c2pa:") and found.generated
    assert input_credentials(b"jumb" + bytes(100)) is None and input_credentials(b"\xff\xd8\xffjumb") is None
