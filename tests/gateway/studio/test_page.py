"""The page as a whole: what it weighs, where it asks, whom it lets in, who can use it."""

import hashlib
import re

import numpy as np
import pytest
from playwright.sync_api import expect

from benchmarks.studio.browser import LANGUAGES, ROOMS, SERIOUS
from faceclip_serving.face import alignment, judgement
from faceclip_serving.face.detectors import Box, Face
from tests.rooms import ROOT

from .conftest import PROMPT, add_photos, draw, photo, wait_drawn

STUDIO = ROOT / "gateway" / "studio"
MOST_BYTES = 300_000


def test_all_files_of_the_page_are_small_together():
    assert sum(path.stat().st_size for path in STUDIO.rglob("*") if path.is_file()) <= MOST_BYTES


def test_every_module_is_asked_for_at_once_and_not_one_after_the_other():
    told = set(re.findall(r'<link rel="modulepreload" href="([^"]+)">', (STUDIO / "index.html").read_text()))
    assert told | {"app/main.js"} == {path.relative_to(STUDIO).as_posix() for path in STUDIO.rglob("*.js")}


def test_the_library_is_the_one_that_is_named():
    (told,) = re.findall(r"sha256 of `htm-preact.js`: `([0-9a-f]{64})`", (STUDIO / "vendor" / "README.md").read_text())
    assert hashlib.sha256((STUDIO / "vendor" / "htm-preact.js").read_bytes()).hexdigest() == told


def test_the_crop_is_the_servers():
    code = (STUDIO / "app" / "crop.js").read_text()
    (points,) = re.findall(r"const TEMPLATE = (\[\[.*?\]\])\.map", code)
    (factor,) = re.findall(r"end \* (\d+)\)", code)
    assert np.allclose(np.array(eval(points)) * int(factor), alignment.TEMPLATE)
    assert re.findall(r"SIDE = (\d+)", code) == [str(alignment.FACE_SIZE)]


def test_every_doubt_of_the_server_has_a_text_of_the_page():
    """Which also takes care that the page judges nothing by itself."""
    bad = Face(Box(0, 0, 9, 9), np.array([[0, 0], [9, 0], [9, 3], [0, 9], [9, 9]], float), score=0.0)
    doubts = judgement.doubts_of_face(bad, np.zeros((9, 9, 3), np.uint8)) | judgement.doubts_of_sharpness(0.0)
    for language in LANGUAGES:
        texts = (STUDIO / "words" / f"{language}.js").read_text(encoding="utf-8")
        assert set(re.findall(r"^  'photos\.doubt\.(\w+)'", texts, re.MULTILINE)) == set(doubts)


def test_a_photograph_shows_the_servers_doubts(visitor, gateway):
    page = visitor().open()
    small, good = photo(1, side=140), photo(2)
    add_photos(page, small, good)
    for told, shown in zip((small, good), page.locator(".photo").all(), strict=True):
        (face,) = gateway.http.post("/v1/faces", files={"image": ("a.png", told["buffer"])}).json()["data"]
        expect(shown.locator(".notice")).to_have_count(len(face["doubts"]))
    assert page.locator(".photo .notice").count() > 0


def test_what_is_loaded_is_small_and_scripts_and_styles_are_files(visitor, gateway):
    seen = visitor()
    seen.open()
    assert 0 < seen.bytes <= MOST_BYTES
    policy = gateway.http.get("/").headers["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'self'" in policy
    html = (STUDIO / "index.html").read_text()
    assert "style=" not in html and not re.search(r"<script>|<style>| on\w+=", html)


@pytest.mark.proof
@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_serious(visitor, size, room, colours):
    seen = visitor(**size, color_scheme=colours)
    seen.open(room)
    assert [each for each in seen.findings() if each["impact"] in SERIOUS] == []


@pytest.mark.proof
@pytest.mark.parametrize("language", LANGUAGES)
def test_axe_finds_nothing_serious_in_a_page_that_was_used(visitor, size, language):
    seen = visitor(**size, locale=LANGUAGES[language])
    page = seen.open()
    add_photos(page, photo(1, 2), photo(3), photo())
    page.locator("input[name=together][value=several]").check()
    assert [each for each in seen.findings() if each["impact"] in SERIOUS] == []
    page.locator(".photo.failed button").click()
    page.locator(".tick input").check()
    page.fill("#prompt", PROMPT)
    page.locator("input[name=count][value='2']").check()
    draw(page)
    wait_drawn(page)
    page.locator(".acts .button").nth(2).click()
    page.locator(".paint canvas").wait_for()
    assert [each for each in seen.findings() if each["impact"] in SERIOUS] == []
    page.keyboard.press("Escape")
    assert [each for each in seen.findings() if each["impact"] in SERIOUS] == []
    page.locator(".acts .button").nth(4).click()
    page.locator(".conclusion").wait_for()
    assert [each for each in seen.findings() if each["impact"] in SERIOUS] == []


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_stands_out_at_the_side_of_a_phone(visitor, room):
    page = visitor(viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True).open(room)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
