"""The page in a real browser, before a real gateway and a real `nano`. Skipped, and said, where no Chromium is found."""

import io

import pytest
from PIL import Image
from playwright.sync_api import expect

from benchmarks.studio.browser import DESKTOP, MISSING, PHONE, browser, chromium, visit
from export.repository.from_nothing import build_repository
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.variants.sdxl import NANO
from server.process import Ports, TritonServer
from training.world.people import sample_identity, sample_scene
from training.world.render import render

from ..running import running

PATIENCE_MS = 120_000
"""A busy machine takes its time; what never comes is a failure all the same."""
expect.set_options(timeout=PATIENCE_MS)
PROMPT = "A woman wearing a red suit, on a beach."


@pytest.fixture(scope="package")
def opened():
    if chromium() is None:
        pytest.skip(MISSING)
    with browser() as started:
        yield started


@pytest.fixture(scope="package")
def nano(opened, monkeypatch_session, tmp_path_factory):
    repository = build_repository(NANO, CPU)
    with TritonServer(repository, Ports.free(), log=tmp_path_factory.mktemp("nano") / "server.log") as started:
        started.wait_ready()
        yield started
        started.stop(0)


@pytest.fixture(scope="package")
def gateway(nano, tmp_path_factory):
    """Open to this machine."""
    with running(
        nano.url, tmp_path_factory.mktemp("studio"), f"--server-metrics=http://127.0.0.1:{nano.ports.metrics}/metrics"
    ) as started:
        yield started


@pytest.fixture
def visitor(opened, gateway):
    """visitor(**options of the browser's context): a visit; at the end nothing may have gone elsewhere, and nothing complained, but
    of what begins with `expected`."""
    visits = []

    def come(url=gateway.url, expected=None, **options):
        made = visit(opened, url, **{"locale": "en-US", "reduced_motion": "reduce", **DESKTOP, **options})
        visits.append((made, made.__enter__(), expected))
        visits[-1][1].page.set_default_timeout(PATIENCE_MS)
        return visits[-1][1]

    yield come
    for made, seen, expected in visits:
        complaints, elsewhere = seen.complaints, seen.elsewhere
        if expected is not None:
            complaints = [told for told in complaints if not told.startswith(expected)]
        made.__exit__(None, None, None)
        assert (complaints, elsewhere) == ([], [])


@pytest.fixture(params=["desktop", "phone"])
def size(request):
    return {"desktop": DESKTOP, "phone": PHONE}[request.param]


REFUSED = "Failed to load resource"
"""How the browser by itself complains of requests that are refused or broken off."""


def photo(*people, side=320, name="photo.png"):
    """A photograph of people of the drawn world beside each other, as the page's chooser takes it."""
    parts = [
        Image.fromarray(render(sample_identity(who), sample_scene("studio", who, pose=0.3), side).image.astype("uint8"))
        for who in people
    ]
    sheet = Image.new("RGB", (side * max(len(parts), 1), side), "grey")
    for i, part in enumerate(parts):
        sheet.paste(part, (i * side, 0))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": file.getvalue()}


def add_photos(page, *files):
    before = page.locator(".photo").count()
    page.set_input_files("input[type=file][multiple]", list(files))
    page.locator(".photo").nth(before + len(files) - 1).wait_for()
    expect(page.locator(".photo.looking")).to_have_count(0)


def press_draw(page):
    """Also while something is missing, which the button then says."""
    page.locator(".go button").click(force=True)


def draw(page):
    """Presses Draw; returns what was sent."""
    with page.expect_request(lambda asked: asked.url.endswith("/v1/jobs") and asked.method == "POST") as sent:
        press_draw(page)
    return sent.value.post_data_json


def wait_drawn(page):
    expect(page.locator(".drawn, .ended")).to_be_visible()
    assert page.locator(".drawn").count() == 1, page.locator(".ended").inner_text()
