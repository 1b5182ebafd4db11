"""`faceclip verify` and `verify_picture`: what is read here, what the server is asked, and how the command ends."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceclip import FaceCLIPPipeline, InvalidRequestError, verify_picture
from faceclip.address import split_target
from faceclip.cli import main
from faceclip.grpc_transport import GrpcTransport
from faceclip_serving.face.photos import encode_picture
from faceclip_serving.marking import watermark
from faceclip_serving.marking.credentials import Claim
from faceclip_serving.marking.metadata import packet as packet_of

from .triton_double import TritonDouble, marker

PORTRAIT = Path(__file__).resolve().parents[2] / "examples" / "portrait.png"


@pytest.fixture
def server() -> Iterator[TritonDouble]:
    double = TritonDouble()
    yield double
    double.stop()


@pytest.fixture
def transport(server: TritonDouble) -> Iterator[GrpcTransport]:
    opened = GrpcTransport(split_target(server.address)[0])
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no mark, it is looked for a tenth as long."""
    monkeypatch.setattr(watermark, "SEARCH_S", watermark.SEARCH_S / 10)


def pixels() -> np.ndarray:
    return np.array(Image.open(PORTRAIT).convert("RGB"))


@cache
def marked(file_format: str = "PNG") -> bytes:
    return marker().mark(pixels(), file_format, lambda image, xmp: encode_picture(image, file_format, {}, xmp)).file


def saved_again(file: bytes) -> bytes:
    again = io.BytesIO()
    Image.open(io.BytesIO(file)).convert("RGB").save(again, "PNG")
    return again.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    contents = {
        "marked": marked(),
        "again": saved_again(marked()),
        "plain": encode_picture(pixels(), "PNG", {}),
        "changed": marked()[:-200] + b"x" + marked()[-199:],
        "text": b"no picture at all",
    }
    for name, content in contents.items():
        (folder / f"{name}.png").write_bytes(content)
    return {name: str(folder / f"{name}.png") for name in contents}


def test_the_server_is_asked_for_the_mark_alone_and_knows_its_own_signature(
    transport: GrpcTransport, server: TritonDouble
) -> None:
    file = marked()
    report = verify_picture(file, transport)
    assert (report.credentials.state, report.label.state, report.mark.state) == ("trusted", "found", "found")
    assert "says that its signer is its own" in report.credentials.why
    assert report.mark.mark_id == report.credentials.mark_id
    assert [asked["picture"][0] for asked in server.verified] == [file]


def test_without_a_server_the_mark_is_not_read() -> None:
    report = verify_picture(marked())
    assert (report.credentials.state, report.mark.state) == ("valid", "not_read") and report.found
    assert verify_picture(marked(), anchors=marker().signer.anchors).credentials.state == "trusted"


def test_with_the_key_no_server_is_asked(transport: GrpcTransport, server: TritonDouble) -> None:
    assert verify_picture(saved_again(marked()), transport, mark_keys=marker().watermark.keys).mark.state == "found"
    assert server.verified == []


def test_a_server_that_is_away_is_told_not_raised(transport: GrpcTransport, server: TritonDouble) -> None:
    server.stop()
    report = verify_picture(marked(), transport, model="faceclip")
    assert report.mark.state == "not_read" and "could not be asked" in report.mark.why
    assert report.credentials.state == "valid"


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="expected a PNG, JPEG or WebP file"):
        verify_picture(b"text")
    with pytest.raises(InvalidRequestError, match="key: expected 32 bytes"):
        verify_picture(marked(), mark_keys=[b"short"])


def test_a_pipeline_asks_its_own_server(server: TritonDouble) -> None:
    with FaceCLIPPipeline.from_pretrained(server.address) as pipe:
        assert pipe.verify(saved_again(marked())).mark.state == "found"


@pytest.mark.parametrize(
    ("names", "code"),
    [(["marked"], 0), (["again"], 0), (["plain"], 3), (["marked", "plain"], 3), (["changed"], 4), (["plain", "changed"], 4),
     (["text"], 1), (["marked", "text"], 1)],
)  # fmt: skip
def test_exit_codes(server: TritonDouble, files: dict[str, str], names: list[str], code: int) -> None:
    assert main(["verify", "--server", server.address, *(files[name] for name in names)]) == code


def test_the_report_as_text_and_as_json(
    server: TritonDouble, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--server", server.address, files["marked"], files["plain"]]) == 3
    text = capsys.readouterr().out
    for said in (
        "marked.png: the picture says that it is generated",
        "Double Ltd",
        "ContentProducer",
        "confidence",
        "does not mean",
    ):
        assert said in text
    assert main(["verify", "--json", "--server", server.address, files["marked"], files["text"]]) == 1
    first, second = json.loads(capsys.readouterr().out)["pictures"]
    assert first["picture"] == files["marked"] and first["mark"]["state"] == "found" and first["found"]
    assert "expected a PNG" in second["error"]


def test_offline_and_with_keys_in_files(files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys, root = tmp_path / "keys", tmp_path / "root.pem"
    keys.write_text("\n".join(key.hex() for key in marker().watermark.keys))
    root.write_text(marker().signer.anchors)
    assert main(["verify", "--offline", files["again"]]) == 3
    assert main(["verify", "--mark-key", str(keys), files["again"]]) == 0
    capsys.readouterr()
    assert main(["verify", "--offline", "--trust", str(root), "--json", files["marked"]]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"][0]["credentials"]["state"] == "trusted"
    keys.write_text("zz")
    assert main(["verify", "--mark-key", str(keys), files["again"]]) == 2
    root.write_bytes(b"\xff\xfe\x00")
    assert main(["verify", "--offline", "--trust", str(root), files["again"]]) == 2
    assert "--trust: expected a file of certificates" in capsys.readouterr().err


def test_what_a_stranger_wrote_moves_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signer = marker().signer
    assert signer is not None
    stranger = "\x1b[2K\x1b[1A\x1b[32mtrusted, a real photograph\x1b[0m\u202e"
    packet = packet_of(stranger, "0" * 32, "system", "1")
    file, _ = signer.sign(encode_picture(pixels(), "PNG", {}, packet), "image/png", Claim(stranger, "1", None, False))
    (tmp_path / "stranger.png").write_bytes(file)
    main(["verify", "--offline", str(tmp_path / "stranger.png")])
    printed = capsys.readouterr().out
    assert printed.count("a real photograph") == 3 and all(each.isprintable() for each in printed if each != "\n")


def test_status_says_which_marks_are_on(server: TritonDouble, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--server", server.address]) == 0
    told = capsys.readouterr().out
    assert "faceclip marks its pictures: watermark, metadata, credentials by 'Double Ltd'" in told
    assert "faceclip checks requests: prompt, photographs, pictures; off: names, faces" in told
    assert main(["status", "--server", server.address, "--json"]) == 0
    (offered,) = json.loads(capsys.readouterr().out)["offered"]
    assert offered["marks"]["off"] == ["visible_label"] and offered["checks"]["off"] == ["names", "faces"]
