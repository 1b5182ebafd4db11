"""What the page says of photographs and pictures is what the gateway does with them."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

import gateway
from gateway.settings import Settings

WORDS = Path(gateway.__file__).parent / "studio" / "words"
A_DAY = {"en": "a day", "zh": "一天"}


@pytest.mark.parametrize("language", A_DAY)
def test_the_page_tells_that_pictures_are_kept_at_the_server_and_how_long(language):
    note = re.search(r"'empty\.note': '(.*)'", (WORDS / f"{language}.js").read_text())[1]
    (default,) = (field.default for field in fields(Settings) if field.name == "keep_results")
    assert default == 24 * 3600
    assert A_DAY[language] in note
