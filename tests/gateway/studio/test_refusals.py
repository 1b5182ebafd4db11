"""What goes wrong is told where it belongs, in the server's words."""

import re

import pytest
from playwright.sync_api import expect

from ..running import command, running
from .conftest import PROMPT, REFUSED, add_photos, draw, photo, wait_drawn


@pytest.fixture
def quiet(visitor):
    return visitor(expected=REFUSED)


def test_a_photograph_without_a_face_is_told_beside_it_and_nothing_is_drawn(quiet):
    page = quiet.open()
    add_photos(page, photo())
    expect(page.locator(".photo.failed [role=alert]")).to_contain_text("No face was found")
    page.fill("#prompt", PROMPT)
    expect(page.locator("#go-why")).to_have_text("One photograph cannot be used: remove it first.")


def test_what_is_no_photograph_is_told_in_the_servers_words(quiet):
    page = quiet.open()
    add_photos(page, {"name": "photo.png", "mimeType": "image/png", "buffer": b"this is no picture"})
    expect(page.locator(".photo.failed [data-told]").last).to_contain_text("image")
    page.locator("nav a").nth(1).click()
    page.set_input_files(
        ".verify input[type=file]", {"name": "x.png", "mimeType": "image/png", "buffer": b"this is no picture"}
    )
    expect(page.locator(".report [role=alert]")).to_contain_text("expected a PNG, JPEG or WebP file")


def test_a_prompt_that_is_too_long_is_told_below_it(quiet):
    page = quiet.open()
    page.fill("#prompt", "x" * 10_001)
    draw(page)
    expect(page.locator("section[aria-labelledby=title-scene] [role=alert]")).to_contain_text("prompt")
    expect(page.locator(".empty")).to_be_visible()


def test_a_picture_that_the_policy_refuses_is_told_in_its_place(quiet):
    page = quiet.open()
    add_photos(page, photo(3))
    page.locator(".tick input").check()
    page.fill("#prompt", "a naked woman")
    draw(page)
    expect(page.locator(".ended [role=alert], section[aria-labelledby=title-scene] [role=alert]")).to_contain_text("prompt")


def test_a_photograph_with_a_doubtful_face_says_what_helps(quiet):
    page = quiet.open()
    add_photos(page, photo(3, side=130))
    expect(page.locator(".photo.seen .notice.warn").first).to_contain_text("The face is small")


@pytest.mark.proof
def test_the_key_is_asked_for_kept_in_the_tab_and_refused_if_it_is_wrong(quiet, nano, tmp_path, opened):
    made = command("keys", "add", "anna", "--data", str(tmp_path))
    key = re.search(r"\bfc[\w-]{20,}", made.stdout + made.stderr)[0]
    with running(nano.url, tmp_path) as closed:
        quiet.url = closed.url
        page = quiet.page
        page.goto(closed.url)
        expect(page.get_by_role("heading", name="This gateway asks for a key")).to_be_visible()
        page.get_by_label("Key").fill("fc-wrong")
        page.keyboard.press("Enter")
        expect(page.locator(".lonely [role=alert]")).to_be_visible()
        page.get_by_label("Key").fill(key)
        page.keyboard.press("Enter")
        page.fill("#prompt", PROMPT)
        page.locator("#slide-num_inference_steps").fill("4")
        draw(page)
        wait_drawn(page)
        page.reload()
        expect(page.locator(".go button")).to_be_visible()
        assert page.evaluate("[sessionStorage.getItem('key'), JSON.stringify(localStorage).includes('fc')]") == [key, False]
        quiet.elsewhere[:] = [url for url in quiet.elsewhere if not url.startswith(closed.url)]


@pytest.mark.proof
def test_a_gateway_that_is_gone_is_told_and_the_form_stays(quiet, nano, tmp_path):
    with running(nano.url, tmp_path) as started:
        page = quiet.page
        page.goto(started.url)
        page.fill("#prompt", PROMPT)
        expect(page.locator("#go-why")).to_contain_text("Ctrl")
        started.end()
        draw(page)
        expect(page.locator(".go [role=alert]")).to_contain_text("The gateway does not answer")
        expect(page.locator("#prompt")).to_have_value(PROMPT)
        quiet.elsewhere[:] = [url for url in quiet.elsewhere if not url.startswith(started.url)]
