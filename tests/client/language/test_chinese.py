"""Chinese in English: a table of phrases, phrases that were held out, and prompts that the checks refuse."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.checks.command import HELD_OUT, OK, PROMPTS, Case, cases
from faceclip.language import translate
from faceclip_serving.checks import policy
from faceclip_serving.checks.checks import Checks
from faceclip_serving.checks.lexicon import FILE, Lexicon
from faceclip_serving.contract.errors import Refused

FOLDER = Path(__file__).parent
HELD_OUT_RIGHT = {"held_out.txt": 0.88, "held_out_2.txt": 0.98}
"""Shares that docs/languages.md states; more is welcome."""


def _rows(name: str) -> list[tuple[str, str]]:
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return [(left, right) for left, bar, right in (line.partition(" | ") for line in lines if not line.startswith("#")) if bar]


PHRASES = _rows("phrases.txt")


@pytest.mark.parametrize(("chinese", "english"), PHRASES, ids=[chinese for chinese, _ in PHRASES])
def test_phrases_have_a_sensible_english_form(chinese: str, english: str) -> None:
    done = translate(chinese)
    assert done.prompt == english
    assert (done.language, done.translated, done.unknown, done.warnings) == ("zh", True, (), ())


def is_right(words: str, english: str) -> bool:
    """All content words are there, those without ~ in this order, and nothing stayed Chinese."""
    text, at = english.lower(), 0
    for word in words.split():
        places = [
            found.end()
            for each in word.lstrip("~").split("/")
            for found in re.finditer(rf"(?<![a-z]){re.escape(each)}(?![a-z])", text)
            if word.startswith("~") or found.start() >= at
        ]
        if not places:
            return False
        at = at if word.startswith("~") else min(places)
    return not re.search("[\u3400-\u9fff]", english)


@pytest.mark.parametrize(("table", "share"), HELD_OUT_RIGHT.items())
def test_phrases_that_were_held_out_are_as_good_as_the_docs_say(table: str, share: float) -> None:
    right = [is_right(words, translate(chinese).prompt) for chinese, words in _rows(table)]
    assert len(right) == 50
    assert sum(right) / len(right) >= share


@pytest.mark.parametrize(
    ("chinese", "english"),
    [
        ("帮我画一个女孩", "girl"),
        ("被雪覆盖的森林", "forest covered by the snow"),
        ("城堡被森林包围", "castle surrounded by a forest"),
        ("五十年代的上海", "1950s Shanghai"),
        ("1970年代的警察", "1970s police officer"),
        ("一位戴眼镜的程序员", "programmer wearing glasses"),
        ("短发女杀手", "short-haired female assassin"),
        ("消防员从房子里走出来", "firefighter walking from a house"),
        ("护士给病人量血压", "nurse measuring blood pressure for a patient"),
        ("奶奶在织毛衣", "grandmother knitting a sweater"),
    ],
)
def test_rules_that_the_second_table_asked_for(chinese: str, english: str) -> None:
    done = translate(chinese)
    assert english in done.prompt and not done.unknown


@pytest.mark.parametrize(
    ("prompt", "kept"),
    [
        ("一个戴着(红帽子:1.3)的女人 BREAK 蓝色天空", ["(red hat:1.3)", " BREAK "]),
        ("((红色))连衣裙，[微笑]", ["((red))", "[smiling]"]),
        (r"女人\(油画\)", [r"\(oil painting\)"]),
        ("(女人：1.2)", ["(woman:1.2)"]),
        ("女人<lora:film:0.8>", ["<lora:film:0.8>"]),
        ("(女人", ["(", "woman"]),
        ("女人]", ["woman", "]"]),
        ("a red dress, 海边", ["a red dress", "sea"]),
    ],
)
def test_notation_and_english_survive(prompt: str, kept: list[str]) -> None:
    english = translate(prompt).prompt
    assert [each for each in kept if each not in english] == []


def test_what_nobody_knows_stays_and_is_told() -> None:
    done = translate("穿着𠮷𠮷䶮䶮的女人", name="negative_prompt")
    assert done.translated
    assert done.unknown
    assert all(word in done.prompt for word in done.unknown)
    assert done.warnings == (f"negative_prompt: not translated, and left as they are: {', '.join(done.unknown)}",)


@pytest.mark.parametrize(
    "prompt", ["女" * 10_000, "的" * 10_000, "(" * 5_000 + "女" * 5_000, "穿着的女人" * 2_000, "一" * 10_000, "，" * 10_000]
)
def test_the_longest_prompts_are_read_in_a_time_that_is_linear(prompt: str) -> None:
    translate("女人")
    spent: list[float] = []
    for part in (prompt[: len(prompt) // 4], prompt):
        begun = time.process_time()
        translate(part)
        spent.append(time.process_time() - begun)
    assert spent[1] < 12 * spent[0] + 1.0


CHINESE = [case for file in (PROMPTS, *HELD_OUT) for case in cases(file) if case.language == "zh"]


def _translated(case: Case) -> Case:
    negative = translate(case.negative_prompt).prompt if case.negative_prompt else ""
    return replace(case, prompt=translate(case.prompt).prompt, negative_prompt=negative)


def _refused(checks: Checks, case: Case, *further: str) -> str:
    try:
        checks.prompt(case.prompt, case.negative_prompt, case.faces, further)
    except Refused as error:
        return error.code.removeprefix("policy.")
    return OK


def test_what_is_refused_in_chinese_is_refused_after_translation_and_nothing_else() -> None:
    """The original goes with it, as `original_prompt`; see docs/languages.md for what English alone would lose."""
    checks = Checks(policy.read(None), ("prompt",))
    before = [_refused(checks, case) for case in CHINESE]
    after = [_refused(checks, _translated(case), case.prompt) for case in CHINESE]
    alone = [_refused(checks, _translated(case)) for case in CHINESE]
    assert len(CHINESE) == 185
    assert [case.prompt for case, was, now in zip(CHINESE, before, after, strict=True) if was != OK and now == OK] == []
    new = [case.prompt for case, was, now in zip(CHINESE, before, after, strict=True) if was == OK and now != OK]
    assert len(new) <= 1, new
    assert sum(was != OK and now == OK for was, now in zip(before, alone, strict=True)) <= 2


def test_negative_prompts_that_ask_for_their_opposite_do_so_in_english_too() -> None:
    lexicon = Lexicon()
    import tomllib

    told = tomllib.loads(FILE.read_text(encoding="utf-8"))["negative"]
    terms = [
        (concept, term.strip())
        for concept, languages in told.items()
        for term in languages.get("zh", "").split(",")
        if term.strip()
    ]
    assert terms
    lost = [term for concept, term in terms if concept not in lexicon.concepts_of("a woman", translate(term).prompt)]
    assert lost == []
