"""A Chromium that is on this machine, and what a page did in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
"""Programs that are looked for on the path; Debian's package `chromium` brings the first."""
MISSING = "no Chromium was found: apt-get install chromium"
DESKTOP: dict[str, Any] = {"viewport": {"width": 1360, "height": 900}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
LANGUAGES = {"en": "en-US", "zh": "zh-CN"}
"""Of the page -> of the browser."""
ROOMS = ("create", "verify", "server")
SERIOUS = ("serious", "critical")
_PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
_BYTES = "() => performance.getEntries().reduce((sum, entry) => sum + (entry.encodedBodySize ?? 0), 0)"


def chromium() -> str | None:
    """Path of the program."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def browser() -> Generator[Browser]:
    """Without a window. Raises `FileNotFoundError` where there is no Chromium."""
    from playwright.sync_api import sync_playwright  # here: a package for development

    program = chromium()
    if program is None:
        raise FileNotFoundError(MISSING)
    with sync_playwright() as started:
        made = started.chromium.launch(executable_path=program, chromium_sandbox=os.getuid() != 0)
        try:
            yield made
        finally:
            made.close()


@dataclass
class Visit:
    """A page of its own, with whatever it complained of and asked elsewhere."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings of the console, and those that nobody caught."""
    elsewhere: list[str] = field(default_factory=list)
    """What was asked of another host."""

    def __post_init__(self) -> None:
        host = urlsplit(self.url).netloc
        self.page.on("console", lambda told: self.complaints.append(told.text) if told.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "request",
            lambda asked: self.elsewhere.append(asked.url) if urlsplit(asked.url).netloc not in (host, "") else None,
        )

    def open(self, room: str = "create") -> Page:
        """Loads the page, until it knows what the gateway offers."""
        self.page.goto(f"{self.url}/#{room}")
        self.page.wait_for_selector("#app main[aria-busy=false]")
        if room == "server":
            self.page.wait_for_selector(".server")
        return self.page

    @property
    def first_paint_ms(self) -> float:
        return float(self.page.evaluate(_PAINT))

    @property
    def bytes(self) -> int:
        """Of all files and answers that the page has loaded, as they were sent."""
        self.page.wait_for_load_state("networkidle")
        return int(self.page.evaluate(_BYTES))

    def findings(self) -> list[dict[str, Any]]:
        """What axe finds: {id, impact, nodes}."""
        from axe_playwright_python.sync_playwright import Axe  # here: a package for development

        told = Axe().run(self.page).response["violations"]
        return [
            {"id": each["id"], "impact": each["impact"], "nodes": [node["html"][:160] for node in each["nodes"]]}
            for each in told
        ]


@contextmanager
def visit(opened: Browser, url: str, **options: Any) -> Generator[Visit]:
    """`options`: of the browser's context: its size, `locale`, `color_scheme`."""
    context = opened.new_context(**options)
    try:
        yield Visit(context.new_page(), url)
    finally:
        context.close()
