"""All marks of a picture together: what is on, what is off, in which order, and that a failure delivers nothing."""

import io

import c2pa
import numpy as np
import pytest
from PIL import Image

from faceclip_serving.marking.authority import KeysError
from faceclip_serving.marking.verify import verify
from faceclip_serving.marking.watermark import Tiles

from .conftest import marked

pytestmark = pytest.mark.usefixtures("short_search")
FORMATS = ("PNG", "JPEG", "WEBP")


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_picture_has_all_marks_in_every_format(marker, portrait, output_format):
    made = marked(marker, portrait, output_format)
    report = verify(made.file, marker.signer.anchors, marker.watermark.read)
    assert report.format == output_format and report.found and not report.doubtful and not report.warnings
    assert report.credentials.state == "trusted" and report.credentials.manifest == made.record["manifest"]
    assert report.label.aigc["ProduceID"] == made.record["id"] and report.label.aigc["ContentProducer"] == "Bildwerk GmbH"
    assert report.mark.mark_id == report.credentials.mark_id == made.record["mark_id"] == made.record["id"][:16]
    assert abs(made.record["mark_psnr_db"] - 43) < 0.6 and made.seconds > 0


def test_each_picture_has_an_id_of_its_own(marker, portrait):
    assert len({marked(marker, portrait).record["id"] for _ in range(4)}) == 4


@pytest.mark.parametrize(
    ("marks", "on"), [("all", {"mark", "label", "credentials"}), ("none", set()), ("watermark", {"mark"}), ("metadata", {"label"}),
                      ("credentials", {"credentials"}), ("watermark,metadata", {"mark", "label"})],
)  # fmt: skip
def test_each_mark_can_be_off_and_that_is_told(marker_of, marker, portrait, marks, on):
    one = marker_of(marks=marks)
    made = marked(one, portrait)
    report = verify(made.file, marker.signer.anchors, marker.watermark.read)
    found = {name for name in ("mark", "label", "credentials") if getattr(report, name).state in ("found", "trusted")}
    assert found == on
    told = one.told()
    assert {*told["on"], *told["off"]} == {"watermark", "metadata", "credentials", "visible_label"}
    assert len(told["on"]) == len(on) and (made.record["mark_id"] is not None) == ("mark" in on)
    assert (told["credentials"] is not None) == (made.record["manifest"] is not None) == ("credentials" in on)


def test_without_marks_no_pixel_changes(marker_of, portrait):
    made = marked(marker_of(marks="none"), portrait)
    assert np.array_equal(np.array(Image.open(io.BytesIO(made.file))), portrait)


def test_a_label_is_drawn_first_and_told(marker, marker_of, portrait):
    for one, wanted, shown in ((marker, "en", "en"), (marker_of(visible_label="zh"), "none", "zh")):
        made = marked(one, portrait, wanted_label=wanted)
        report = verify(made.file, one.signer.anchors, one.watermark.read)
        assert made.record["visible_label"] == shown
        assert report.credentials.actions == ["c2pa.created", "c2pa.edited", "c2pa.watermarked.bound"]
        assert report.mark.state == "found", "the mark covers the label"


def test_a_photographs_own_credentials_are_named(marker, portrait):
    made = marked(marker, portrait, inputs=[{"manifest": "urn:c2pa:abc"}])
    with c2pa.Reader("image/png", io.BytesIO(made.file)) as reader:
        assert reader.get_active_manifest()["ingredients"][0]["instance_id"] == "urn:c2pa:abc"


def test_a_picture_too_small_for_a_mark_has_the_others(marker):
    made = marked(marker, np.zeros((64, 64, 3), np.uint8))
    report = verify(made.file, marker.signer.anchors, marker.watermark.read)
    assert made.record["mark_id"] is None and made.record["mark_psnr_db"] is None
    assert report.credentials.state == "trusted" and report.label.state == "found" and not report.credentials.mark_id


def test_a_small_pictures_id_is_shorter(marker, portrait):
    made = marked(marker, np.array(Image.fromarray(portrait).resize((128, 128))))
    assert made.record["mark_id"] == made.record["id"][:8]


def test_what_cannot_be_signed_is_not_delivered(marker, portrait, monkeypatch):
    def fail(*_):
        raise c2pa.C2paError("the key is gone")

    monkeypatch.setattr(marker.signer, "sign", fail)
    with pytest.raises(c2pa.C2paError):
        marked(marker, portrait)


def test_old_keys_are_read_and_the_first_marks(marker_of, marker, portrait, tmp_path):
    old, new = "11" * 32, "22" * 32
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text(old)
    before = marked(marker_of(watermark_key=str(path)), portrait)
    path.write_text(f"{new}\n{old}\n")
    after = marker_of(watermark_key=str(path))
    assert verify(before.file, read_mark=after.watermark.read).mark.mark_id == before.record["mark_id"]
    assert verify(before.file, read_mark=Tiles(after.watermark.keys[:1]).read).mark.state == "none"
    assert verify(marked(after, portrait).file, read_mark=Tiles(after.watermark.keys[:1]).read).mark.state == "found"


def test_a_provider_is_named_and_printable(marker_of, portrait):
    report = verify(marked(marker_of(provider="91110000XYZ"), portrait).file)
    assert report.label.aigc["ContentProducer"] == "91110000XYZ"
    with pytest.raises(KeysError, match="provider: expected printable"):
        marker_of(provider="a\x01b")
