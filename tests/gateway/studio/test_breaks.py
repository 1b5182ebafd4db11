"""A job outlives whatever lies between it and the page: a gateway that is killed and started again, a proxy that has nobody behind it."""

from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from ..running import running
from .conftest import PATIENCE_MS, PROMPT, REFUSED, draw, wait_drawn

AWAY = "The gateway does not answer. Your picture is not lost; asking again…"
ASKED_AGAIN = 7
"""Times that the page asks, each after a longer pause, before the gateway is back."""
LONGEST_PAUSE_MS, LOOK_MS = 10_000, 100


@pytest.fixture
def broken(visitor):
    """A visitor whose clock can be put forward."""
    seen = visitor(expected=REFUSED)
    seen.page.clock.install()
    return seen


def ask_for(page, steps):
    page.fill("#prompt", PROMPT)
    page.locator("#slide-num_inference_steps").fill(str(steps))
    return draw(page)


def without_pauses(page, until):
    """Waits until something is so, with the page's own pauses left out."""
    for _ in range(PATIENCE_MS // LOOK_MS):
        if until():
            return
        page.clock.fast_forward(LONGEST_PAUSE_MS)
        page.wait_for_timeout(LOOK_MS)
    raise AssertionError("it did not come")


@pytest.mark.proof
def test_a_gateway_that_is_killed_and_started_again_brings_the_picture(broken, nano, tmp_path):
    page = broken.page
    with running(nano.url, tmp_path) as killed:
        page.goto(killed.url)
        ask_for(page, 100)
        expect(page.locator(".stage-bar")).to_contain_text("Step")
        broke = []
        page.on("requestfailed", lambda request: broke.append(request.url))
        killed.process.kill()
        without_pauses(page, lambda: len([url for url in broke if url.endswith("/events")]) >= ASKED_AGAIN)
        expect(page.locator(".stage-bar")).to_contain_text(AWAY)
        expect(page.locator("[role=status]")).to_have_text(AWAY)
    with running(nano.url, tmp_path, f"--port={urlsplit(killed.url).port}"):
        # Or no bar at all: it may be drawn before the page asks.
        without_pauses(page, lambda: page.locator(".stage-bar", has_text=AWAY).count() == 0)
        wait_drawn(page)
    broken.elsewhere[:] = [url for url in broken.elsewhere if not url.startswith(killed.url)]


@pytest.mark.proof
def test_what_answers_in_the_gateways_place_ends_nothing(broken):
    page = broken.open()
    left = {"events": [500, 502, 503, 504, 429], "files": [500, 502, 503, 504, 429]}

    def answer(route):
        statuses = left["events" if route.request.url.endswith("/events") else "files"]
        if statuses:
            route.fulfill(status=statuses.pop(), body="away")
        else:
            route.continue_()

    page.route("**/v1/jobs/*/events", answer)
    page.route("**/v1/files/**", answer)
    ask_for(page, 4)
    without_pauses(page, lambda: left == {"events": [], "files": []})
    wait_drawn(page)


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_the_gateway_refuses_is_told_at_once(broken, status):
    page = broken.open()
    error = {"message": "this job is not yours", "param": None, "code": "refused"}
    asked = []

    def refuse(route):
        asked.append(route.request.url)
        route.fulfill(status=status, json={"error": error})

    page.route("**/v1/jobs/*/events", refuse)
    ask_for(page, 4)
    expect(page.locator(".ended [role=alert]")).to_contain_text(error["message"])
    assert len(asked) == 1
