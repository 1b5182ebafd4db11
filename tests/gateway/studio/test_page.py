"""The page as a whole: what it weighs, where it asks, whom it lets in, who can use it."""

import hashlib
import re

import numpy as np
import pytest

from benchmarks.studio.browser import LANGUAGES, ROOMS, SERIOUS
from faceclip_serving.face import alignment, judgement
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


def test_photographs_are_doubted_as_the_server_doubts_them():
    code = (STUDIO / "app" / "photos.js").read_text()
    found = {
        name: float(value)
        for name, value in re.findall(r"(\w+): ([\d.]+)[,\s]", re.findall(r"const GOOD = (\{.*?\});", code)[0])
    }
    assert found == {
        "eye_distance": judgement.GOOD_EYE_DISTANCE,
        "score": judgement.LOW_SCORE,
        "frontality": judgement.LOW_FRONTALITY,
        "sharpness": judgement.LOW_SHARPNESS,
    }
    assert re.findall(r"MAX_OUTSIDE = ([\d.]+)", code) == [str(judgement.MAX_OUTSIDE)]


def test_what_is_loaded_is_small_and_scripts_and_styles_are_files(visitor, gateway):
    seen = visitor()
    seen.open()
    assert 0 < seen.bytes <= MOST_BYTES
    policy = gateway.http.get("/").headers["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'self'" in policy
    html = (STUDIO / "index.html").read_text()
    assert "style=" not in html and not re.search(r"<script>|<style>| on\w+=", html)


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_serious(visitor, size, room, colours):
    seen = visitor(**size, color_scheme=colours)
    seen.open(room)
    assert [each for each in seen.findings() if each["impact"] in SERIOUS] == []


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
