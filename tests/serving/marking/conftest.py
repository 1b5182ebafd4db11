"""Keys of an installation, a marker with them, and a picture."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.settings import VARIABLE, resolve
from faceclip_serving.face.photos import encode_picture
from faceclip_serving.marking import watermark
from faceclip_serving.marking.authority import make
from faceclip_serving.marking.marker import Marker

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "tests" / "data"
KEY = bytes(range(32))


@pytest.fixture(scope="session")
def portrait():
    """Drawn, [448, 448, 3]."""
    return np.array(Image.open(ROOT / "examples" / "portrait.png").convert("RGB"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("marks")
    make(found, "Bildwerk GmbH")
    return found


@pytest.fixture(scope="session")
def marker_of(folder):
    """Settings -> a marker."""

    def made(**settings):
        told = {"": {"marks_folder": str(folder), **settings}}
        resolved = resolve(CPU, "faceclip", environment={VARIABLE: json.dumps(told)})
        return Marker.from_settings(resolved, "faceclip-triton test", "1.2.3")

    return made


@pytest.fixture(scope="session")
def marker(marker_of):
    return marker_of()


@pytest.fixture
def short_search(monkeypatch):
    """Where there is no mark, it is looked for a tenth as long: how long a server looks makes nobody find one."""
    monkeypatch.setattr(watermark, "SEARCH_S", watermark.SEARCH_S / 10)


def marked(marker, picture, output_format="PNG", **options):
    return marker.mark(picture, output_format, lambda image, xmp: encode_picture(image, output_format, {}, xmp), **options)
