"""What a verifier says of pictures from anywhere: truthful, never a crash."""

import contextlib
import io
import json
import struct
import time
import zipfile
import zlib

import c2pa
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from faceclip_serving.face.photos import encode_picture
from faceclip_serving.marking import authority, metadata
from faceclip_serving.marking.authority import make
from faceclip_serving.marking.credentials import Claim, Signer
from faceclip_serving.marking.metadata import GENERATED
from faceclip_serving.marking.verify import (
    MAX_BLOCKS,
    MAX_BYTES,
    UnreadablePicture,
    has_many_blocks,
    input_credentials,
    verify,
)
from faceclip_serving.marking.watermark import Tiles

from .conftest import marked

pytestmark = pytest.mark.usefixtures("short_search")
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


def chunk(kind, data=b""):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(file, *chunks):
    """A PNG with more chunks behind its header."""
    return file[:33] + b"".join(chunks) + file[33:]


@pytest.mark.parametrize("between", ["", "<!-- -->"])
def test_xmp_in_a_million_pieces_is_read_at_once(marker, portrait, between):
    """Text comes from the parser in pieces; to put each behind the last took half a minute."""
    text = "".join(f"a\n{between}" for _ in range(900_000 // (2 + len(between))))
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description><a>'
        f"{text}</a></rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    began = time.process_time()
    assert metadata.read(packet.encode()).state == "none"
    assert time.process_time() - began < 5, "it takes a part of a second"


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_file_of_countless_blocks_is_refused_before_anything_reads_it(files, output_format):
    file = files[output_format]
    many = {
        "PNG": lambda count: with_chunks(file, chunk(b"tEXt", b"x\0jumb"), chunk(b"aaAa") * count),
        "JPEG": lambda count: file[:2] + b"\xff\xfe\x00\x06jumb" * count + file[2:],
        "WEBP": lambda count: file[:12] + b"jumb\0\0\0\0" * count + file[12:],
    }[output_format]
    assert not has_many_blocks(file) and not has_many_blocks(many(500))
    hostile = many(MAX_BLOCKS)
    assert has_many_blocks(hostile) and input_credentials(hostile) is None
    with pytest.raises(UnreadablePicture, match="at most 10000 chunks or segments"):
        verify(hostile)


def test_bytes_behind_a_jpeg_are_told_whatever_they_end_with(files):
    for behind in (b"PK\x03\x04 an archive", b"PK\x03\x04 an archive\xff\xd9"):
        assert any("bytes follow the end" in warning for warning in verify(files["JPEG"] + behind).warnings)
    assert not verify(files["JPEG"]).warnings


def test_several_pictures_in_one_jpeg_are_a_jpeg(portrait):
    """As phones write them."""
    file = io.BytesIO()
    Image.fromarray(portrait).save(file, "MPO", save_all=True, append_images=[Image.fromarray(portrait)])
    report = verify(file.getvalue())
    assert report.format == "JPEG" and report.credentials.state == "none"


# ----------------------------------------------------------------------------------------------- techniques that disagree
def claimed(marker, file, actions, parent=None):
    """A PNG's file, signed with these actions; `parent`: the picture that it was edited from."""
    said = [{"label": "c2pa.actions.v2", "data": {"actions": actions}}]
    builder = c2pa.Builder(
        json.dumps({"claim_generator_info": [{"name": "x", "version": "1"}], "assertions": said}), marker.signer._context
    )
    if parent is not None:
        told = {"title": "parent", "relationship": "parentOf", "instance_id": "parent", "label": "parent"}
        builder.add_ingredient(json.dumps(told), "image/png", io.BytesIO(parent))
    signed = io.BytesIO()
    builder.sign("image/png", io.BytesIO(file), signed)
    return signed.getvalue()


def test_a_label_of_another_picture_is_seen(marker, portrait):
    one, two = marked(marker, portrait), marked(marker, portrait)
    pixels = np.asarray(Image.open(io.BytesIO(one.file)).convert("RGB"))
    packet = Image.open(io.BytesIO(two.file)).info["XML:com.adobe.xmp"].encode()
    report = read(marker, encode_picture(pixels, "PNG", {}, packet))
    assert report.label.state == "found" and report.doubtful
    assert two.record["id"] in report.conflict() and one.record["mark_id"] in report.conflict()
    blank = encode_picture(np.full((64, 64, 3), 90, np.uint8), "PNG", {}, packet)
    mark = (Tiles.soft_binding, one.record["mark_id"])
    file, _ = marker.signer.sign(blank, "image/png", Claim("system", "1", mark, False))
    assert "the credentials name the mark" in read(marker, file).conflict()


def test_a_camera_that_took_a_marked_picture_is_doubtful(marker, files):
    pixels = np.asarray(Image.open(io.BytesIO(files["PNG"])).convert("RGB"))
    capture = {"action": "c2pa.created", "digitalSourceType": GENERATED.replace("trainedAlgorithmicMedia", "digitalCapture")}
    report = read(marker, claimed(marker, encode_picture(pixels, "PNG", {}), [capture]))
    assert report.credentials.state == "trusted" and report.mark.state == "found"
    assert report.doubtful and "a camera took the picture" in report.conflict()


def test_what_was_edited_from_a_generated_picture_is_generated(marker, files):
    small = encode_picture(np.full((64, 64, 3), 90, np.uint8), "PNG", {})
    actions = [{"action": "c2pa.opened", "parameters": {"ingredientIds": ["parent"]}}, {"action": "c2pa.resized"}]
    report = read(marker, claimed(marker, small, actions, files["PNG"]))
    assert report.credentials.generated and report.found and report.credentials.actions == ["c2pa.opened", "c2pa.resized"]
