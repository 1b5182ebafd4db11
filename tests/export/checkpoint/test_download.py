"""Downloads: licences before bytes, checksums after them, and the hub's own client against a hub on this machine."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from export.__main__ import main
from export.checkpoint import download as downloading
from export.checkpoint.download import DownloadError, LicenseNotAcceptedError, download, fetch_from_hub
from export.checkpoint.parts import MIT, NEEDED, OPTIONAL, PARTS, Digest, Part
from faceclip_serving.contract.variants.table import VARIANTS

CONTENT = b"a detector, say"
FILE = "detector.onnx"
OPEN = Part("opencv/detector", MIT, ((FILE,),), digest=Digest(len(CONTENT), hashlib.sha256(CONTENT).hexdigest()))
"""A part whose licence needs no consent and whose checksum is known."""


class Hub:
    """A `Fetch` that serves the same bytes for every file and remembers what it was asked."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content = content
        self.asked: list[tuple[str, str]] = []

    def __call__(self, repository: str, file: str, destination: Path) -> Path:
        self.asked.append((repository, file))
        path = destination / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.content)
        return path


@pytest.fixture
def open_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "PARTS", {**PARTS, "open": OPEN})


# ------------------------------------------------------------------------------------------------------------ licences
def test_nothing_is_fetched_before_licences_are_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub = Hub()
    with pytest.raises(LicenseNotAcceptedError, match=r"parts face_clip_encoder, unet, vae, .*--accept-license"):
        download(tmp_path, NEEDED["sdxl"], accept_license=False, fetch=hub)
    assert hub.asked == []
    printed = capsys.readouterr().out
    assert "face_clip_encoder, unet from ByteDance/FaceCLIP: CC BY-NC 4.0: no commercial use" in printed
    assert "vae, tokenizer, tokenizer_2 from stabilityai/stable-diffusion-xl-base-1.0: CreativeML Open RAIL++-M" in printed


@pytest.mark.usefixtures("open_part")
def test_accepted_parts_land_where_the_checkpoint_reader_looks(tmp_path: Path) -> None:
    hub = Hub()
    paths = download(tmp_path, NEEDED["sdxl"], accept_license=True, fetch=hub)
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "model/face_clip_encoder.pt",
        "model/unet.pt",
        "vae/diffusion_pytorch_model.safetensors",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "tokenizer_2/vocab.json",
        "tokenizer_2/merges.txt",
    ]
    assert hub.asked[0] == ("ByteDance/FaceCLIP", "model/face_clip_encoder.pt")
    assert all(path.is_file() for path in paths)


@pytest.mark.usefixtures("open_part")
def test_parts_of_two_families_do_not_overwrite_each_other(tmp_path: Path) -> None:
    hub, both = Hub(), dict.fromkeys((*NEEDED["sdxl"], *NEEDED["flux"]))
    paths = [str(path.relative_to(tmp_path)) for path in download(tmp_path, both, accept_license=True, fetch=hub)]
    assert len(set(paths)) == len(paths)
    assert "flux/vae/diffusion_pytorch_model.safetensors" in paths
    assert ("black-forest-labs/FLUX.1-dev", "vae/diffusion_pytorch_model.safetensors") in hub.asked


def test_every_part_is_needed_by_some_variant_or_optional_and_every_needed_one_is_known() -> None:
    assert {part for parts in NEEDED.values() for part in parts} | set(OPTIONAL) == set(PARTS)


@pytest.mark.usefixtures("open_part")
def test_a_part_of_an_open_licence_needs_no_consent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert download(tmp_path, ["open"], accept_license=False, fetch=Hub()) == [tmp_path / FILE]
    assert "MIT" in capsys.readouterr().out


def test_unknown_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"parts: expected some of face_clip_encoder, .*, got vit"):
        download(tmp_path, ["vit", "vae"], accept_license=True, fetch=Hub())


# ------------------------------------------------------------------------------------------------------------ checksums
@pytest.mark.usefixtures("open_part")
@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT[:-1] + b"?"])
def test_a_wrong_file_is_deleted(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DownloadError, match=rf"file '{FILE}': expected 15 bytes, SHA-256 .* it was deleted"):
        download(tmp_path, ["open"], accept_license=False, fetch=Hub(content))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("open_part")
def test_a_verified_file_is_not_fetched_again_and_a_damaged_one_is(tmp_path: Path) -> None:
    hub = Hub()
    for _ in range(2):
        download(tmp_path, ["open"], accept_license=False, fetch=hub)
    assert len(hub.asked) == 1
    (tmp_path / FILE).write_bytes(b"damaged")
    download(tmp_path, ["open"], accept_license=False, fetch=hub)
    assert len(hub.asked) == 2
    assert (tmp_path / FILE).read_bytes() == CONTENT


# ------------------------------------------------------------------------------------------------------ the hub's client
class HubRequest(BaseHTTPRequestHandler):
    """Answers as the hub does: metadata to HEAD, the file to GET; one part is open, the UNet gated, all else missing."""

    def do_HEAD(self) -> None:
        self.answer(body=b"")

    def do_GET(self) -> None:
        self.answer(body=CONTENT)

    def answer(self, body: bytes) -> None:
        known = self.path == f"/{OPEN.repository}/resolve/main/{FILE}"
        gated = self.path.endswith("/unet.pt")
        self.send_response(200 if known else 403 if gated else 404)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"1"')
        if not known:
            self.send_header("X-Error-Code", "GatedRepo" if gated else "EntryNotFound")
        self.send_header("Content-Length", str(len(CONTENT)) if known else "0")
        self.end_headers()
        if known:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubRequest)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("open_part")
def test_the_real_client_fetches_and_verifies(tmp_path: Path, hub_url: str) -> None:
    fetch = partial(fetch_from_hub, endpoint=hub_url)
    assert download(tmp_path, ["open"], accept_license=False, fetch=fetch) == [tmp_path / FILE]
    assert (tmp_path / FILE).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("unet", r"file 'model/unet\.pt' of ByteDance/FaceCLIP: its owners ask for a login; .* hf auth login"),
        ("vae", r"file 'vae/diffusion_pytorch_model\.safetensors' of .*: the hub has no such file"),
    ],
)
def test_files_that_the_hub_does_not_give(tmp_path: Path, hub_url: str, part: str, message: str) -> None:
    with pytest.raises(DownloadError, match=message):
        download(tmp_path, [part], accept_license=True, fetch=partial(fetch_from_hub, endpoint=hub_url))


# ------------------------------------------------------------------------------------------------------------ command
def test_offline_is_one_clear_line(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "export", "download", "--only", "vae", "--accept-license", "--to", str(tmp_path)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(
        "error: file 'vae/diffusion_pytorch_model.safetensors' of stabilityai/stable-diffusion-xl-base-1.0: could not"
    )
    assert "check the connection" in line


def test_command_refuses_without_consent(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["download", "--to", str(tmp_path)]) == 1
    assert "error: parts face_clip_encoder, unet" in capsys.readouterr().err


def test_a_variant_names_the_licences_that_its_weights_come_with() -> None:
    assert set(NEEDED) == {variant.name for variant in VARIANTS.values() if variant.weights == "checkpoint"}
    for variant in VARIANTS.values():
        licences = {PARTS[part].license for part in NEEDED.get(variant.name, ())}
        assert {each.name for each in licences} == set(variant.licence.names.values()) - {"Apache-2.0"}
        assert variant.licence.commercial == (not any("no commercial use" in each.terms for each in licences))
