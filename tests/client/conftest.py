"""A server in the test's process, and a pipeline that is connected to it."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceclip import FaceCLIPPipeline
from faceclip.address import ENVIRONMENT_VARIABLE

from .triton_double import TritonDouble


@pytest.fixture(autouse=True)
def _no_server_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


@pytest.fixture
def server() -> Iterator[TritonDouble]:
    double = TritonDouble()
    yield double
    double.stop()


@pytest.fixture
def unary_server() -> Iterator[TritonDouble]:
    """Without the streaming model."""
    double = TritonDouble(stream=False)
    yield double
    double.stop()


@pytest.fixture
def pipe(server: TritonDouble) -> Iterator[FaceCLIPPipeline]:
    with FaceCLIPPipeline.from_pretrained(server.address, timeout_s=20) as pipeline:
        yield pipeline


@pytest.fixture
def tls_files(tmp_path: Path) -> tuple[Path, Path]:
    """A private key and a certificate for `localhost`, signed by itself, in PEM."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate of this test")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = f"{openssl} req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([*command.split(), "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return key, certificate


@pytest.fixture
def pixels() -> np.ndarray:
    """[40, 30, 3] uint8: every pixel differs from its neighbours, so that a changed one shows."""
    return np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)


@pytest.fixture
def photo(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
