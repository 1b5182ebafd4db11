"""A visit of the page from a photograph to a verified picture, with pictures of the page on the way."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from .browser import DESKTOP, PHONE, Visit, visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PORTRAIT = Path("examples/portrait.png")
SEED = 42
CHINESE = "穿红色西装的女人，在海滩上。"
GAP = 24
QUALITY = 82
"""Of WebP."""

Shot = tuple[str, list[bytes]]
"""Name of a file and what stands in it side by side, PNG files."""


def tour(opened: Browser, url: str) -> Iterator[Shot]:
    yield from _desktop(opened, url)
    yield from _phone(opened, url)


def save(folder: Path, name: str, screens: list[bytes]) -> Path:
    """Side by side, as WebP."""
    pictures = [Image.open(io.BytesIO(screen)).convert("RGB") for screen in screens]
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + GAP
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / f"{name}.webp", quality=QUALITY, method=6)
    return folder / f"{name}.webp"


def _desktop(opened: Browser, url: str) -> Iterator[Shot]:
    with visit(opened, url, locale="en-US", color_scheme="light", **DESKTOP) as seen:
        page = seen.open()
        add_photo(page)
        page.get_by_role("button", name="Travel").click()
        page.locator(".recipe-choices select").first.wait_for()
        page.fill("#seed", str(SEED))
        page.locator("input[name=count][value='4']").check()
        _draw(page)
        page.locator(".drawn").wait_for(timeout=120_000)
        page.evaluate("document.querySelector('.recipes').scrollIntoView({block: 'center'})")
        yield "studio", [page.screenshot()]
        page.get_by_role("button", name="Paint a mask").first.click()
        _paint(page)
        yield "studio-mask", [page.screenshot()]
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Verify").click()
        page.locator(".conclusion").wait_for()
        yield "studio-verify", [page.screenshot()]
        page.get_by_role("link", name="Server").click()
        page.locator(".figures").wait_for()
        yield "studio-server", [page.screenshot()]


def _phone(opened: Browser, url: str) -> Iterator[Shot]:
    with visit(opened, url, locale="zh-CN", color_scheme="dark", **(PHONE | {"device_scale_factor": 1.5})) as seen:
        page = seen.open()
        add_photo(page)
        screens = [page.screenshot()]
        page.fill("#prompt", CHINESE)
        page.locator(".english textarea").wait_for()
        page.locator("#prompt").evaluate("each => each.closest('.section').scrollIntoView()")
        screens.append(page.screenshot())
        page.fill("#seed", str(SEED))
        page.locator("#slide-num_inference_steps").fill("120")
        _draw(page)
        page.locator(".stage-bar").get_by_text(re.compile(r"[5-9]\d.*120")).wait_for(timeout=60_000)
        screens.append(page.screenshot())
        page.locator(".drawn").wait_for(timeout=120_000)
        page.locator(".shots").scroll_into_view_if_needed()
        screens.append(page.screenshot())
        yield "studio-phone", screens


def add_photo(page: Page, file: Any = PORTRAIT) -> None:
    """Adds a photograph, waits for its faces, and confirms the consent."""
    page.set_input_files("input[type=file][multiple]", file)
    page.locator(".photo.seen canvas").wait_for()
    page.locator(".tick input").check()


def _draw(page: Page) -> None:
    page.locator(".go button:not([aria-disabled=true])").click()


def _paint(page: Page) -> None:
    box = page.locator(".paint canvas").bounding_box()
    assert box is not None
    points = [(0.22, 0.86), (0.4, 0.78), (0.6, 0.78), (0.8, 0.88), (0.5, 0.92)]
    for i, (across, down) in enumerate(points):
        page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"], steps=4)
        if i == 0:
            page.mouse.down()
    page.mouse.up()


def used(seen: Visit) -> Page:
    """The page with a photograph, a recipe, two pictures."""
    page = seen.open()
    add_photo(page)
    page.locator(".recipe-card").first.click()
    page.locator(".recipe-choices select").first.wait_for()
    page.locator("input[name=count][value='2']").check()
    page.locator("#slide-num_inference_steps").fill("6")
    _draw(page)
    page.locator(".drawn").wait_for(timeout=120_000)
    return page
