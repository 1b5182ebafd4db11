"""Every text is in both tables, and nothing that is seen is outside of them."""

import re

import pytest
from playwright.sync_api import expect

from benchmarks.studio.browser import LANGUAGES, ROOMS
from tests.rooms import ROOT

from .conftest import PROMPT, add_photos, draw, photo, wait_drawn

STUDIO = ROOT / "gateway" / "studio"
_ENTRY = re.compile(r"^  '([\w.]+)': '((?:[^'\\]|\\.)*)',$", re.MULTILINE)
SEEN = """() => {
  const found = [];
  const told = (node) => node.closest('[data-told]');
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const inside = node.parentElement;
    if (!['SCRIPT', 'STYLE', 'NOSCRIPT', 'TEXTAREA'].includes(inside.tagName) && !told(inside)) found.push(node.data);
  }
  for (const node of document.querySelectorAll('*'))
    for (const name of ['aria-label', 'title', 'placeholder', 'alt'])
      if (node.getAttribute(name) && !told(node)) found.push(node.getAttribute(name));
  return [...found, document.title].map((text) => text.trim()).filter(Boolean);
}"""
"""Every text of the page that is not the server's or the visitor's own."""


def table(language):
    return dict(_ENTRY.findall((STUDIO / "words" / f"{language}.js").read_text(encoding="utf-8")))


def test_both_tables_have_the_same_keys_in_the_same_order_and_name_the_same_values():
    english, chinese = table("en"), table("zh")
    assert len(english) > 150
    assert list(english) == list(chinese)
    for key in english:
        assert set(re.findall(r"\{\w+\}", english[key])) == set(re.findall(r"\{\w+\}", chinese[key])), key
        assert english[key].strip() and chinese[key].strip()


def test_every_line_of_a_table_is_a_text_that_these_tests_read():
    for language in LANGUAGES:
        lines = [
            line
            for line in (STUDIO / "words" / f"{language}.js").read_text(encoding="utf-8").splitlines()
            if line.startswith("  '")
        ]
        assert len(lines) == len(table(language))


def test_every_text_is_used_and_every_text_that_is_used_is_there():
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted((STUDIO / "app").glob("*.js")))
    named = set(re.findall(r"\bt\('([\w.]+)'", code)) | set(re.findall(r"\? '([a-z]\w*\.[\w.]+)' : '", code))
    named |= set(re.findall(r" : '([a-z]\w*\.[\w.]+)'", code))
    built = [re.compile(re.sub(r"\\\$\\\{[^}]*\\\}", "[^ ]+", re.escape(text))) for text in re.findall(r"\bt\(`([^`]+)`", code)]
    keys = set(table("en"))
    assert named - keys == set()
    unused = {key for key in keys - named if not any(pattern.fullmatch(key) for pattern in built)}
    assert unused == set()


def _outside(texts, language):
    patterns = [
        re.compile(re.sub(r"\\\{\w+\\\}", ".*", re.escape(text.replace("\\'", "'")))) for text in table(language).values()
    ]
    plain = re.compile(r"[\d\s.,:×x%/–~-]*|English|中文|[\w-]+-[\w-]+, [\w-]+|[a-z-]+, [a-z0-9-]+", re.ASCII)
    return [text for text in texts if not plain.fullmatch(text) and not any(pattern.fullmatch(text) for pattern in patterns)]


@pytest.mark.proof
@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_that_is_seen_is_outside_of_the_tables(visitor, language):
    seen = visitor(locale=LANGUAGES[language])
    for room in ROOMS:
        page = seen.open(room)
        assert page.locator("html").get_attribute("lang").startswith(language)
        assert _outside(page.evaluate(SEEN), language) == []
    page.locator("nav a").first.click()
    add_photos(page, photo(1, 2), photo(3), photo())  # two faces, one, none
    page.locator("input[name=together][value=several]").check()
    page.locator("details").first.evaluate("each => each.open = true")
    assert _outside(page.evaluate(SEEN), language) == []
    page.locator(".photo.failed button").click()
    page.locator("input[name=together][value=one]").check()
    page.locator(".tick input").check()
    page.fill("#prompt", PROMPT)
    draw(page)
    assert _outside(page.evaluate(SEEN), language) == []
    wait_drawn(page)
    page.locator(".acts .button").nth(2).click()  # paints
    page.locator(".paint canvas").wait_for()
    assert _outside(page.evaluate(SEEN), language) == []
    page.keyboard.press("Escape")
    page.locator(".acts .button").nth(4).click()  # verifies
    page.locator(".conclusion").wait_for()
    assert _outside(page.evaluate(SEEN), language) == []
    expect(page.locator(".conclusion.good")).to_have_count(1)


def test_the_language_is_changed_and_kept(visitor):
    page = visitor().open()
    page.get_by_role("button", name="中文").click()
    expect(page.locator(".go button")).to_have_text(table("zh")["draw"])
    page.reload()
    page.locator(".go button").wait_for()
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
    page.get_by_role("button", name="English").click()
    expect(page.locator(".go button")).to_have_text(table("en")["draw"])
