"""Chinese in English: a table of phrases, phrases that were held out, and prompts that the checks refuse."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.checks.command import HELD_OUT, OK, PROMPTS, Case, cases
from faceclip.language import chinese as chinese_translator
from faceclip.language import translate
from faceclip.language.chinese.dictionary import Dictionary
from faceclip.language.chinese.word import Word, lexicon
from faceclip.language.chinese.words import vocabulary
from faceclip.recipes import Choice, Option, load
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
        ("（女人：1.2），海边", ["(woman:1.2), by the sea"]),
        ("（女人:1.2)，（帽子：１．３）", ["(woman:1.2), ", "(hat:1.3)"]),
        ("（（红帽子：1.3），微笑：0.8）", ["((red hat:1.3), smiling:0.8)"]),
        ("女人（微笑），(帽子）", ["woman, smiling, ", "hat"]),
        ("女人BREAK海边", ["woman BREAK by the sea"]),
        ("女人，BREAK，BREAKFAST", [" BREAK", "BREAKFAST"]),
        ("女人<lora:film:0.8>", ["<lora:film:0.8>"]),
        ("(女人", ["(", "woman"]),
        ("女人]", ["woman", "]"]),
        ("a red dress, 海边", ["a red dress", "sea"]),
    ],
)
def test_notation_and_english_survive(prompt: str, kept: list[str]) -> None:
    english = translate(prompt).prompt
    assert [each for each in kept if each not in english] == []


WORDS = [*lexicon()]


def test_each_word_of_the_lexicon_stands_there_once() -> None:
    assert [name for name, times in Counter(name for name, _ in WORDS).items() if times > 1] == []


def test_each_word_of_the_lexicon_is_read_as_that_word() -> None:
    assert [(name, read) for name, word in WORDS if (read := vocabulary().parted(name)) != [word]] == []


def test_each_word_of_the_lexicon_alone_comes_out_as_its_english() -> None:
    said = ((name, word.english.removesuffix(","), *chinese_translator.translate(name)) for name, word in WORDS if word.english)
    assert [each for each in said if each[1] not in each[2] or each[3]] == []


MIXED = [(name, word) for name, word in WORDS if re.search("[A-Za-z0-9]", name)]


@pytest.mark.parametrize("around", ["红色{}，女人", "穿红色{}的女人", "穿着{}", "女人和{}", "oversize {}", "{}，海边"])
@pytest.mark.parametrize(("name", "word"), MIXED, ids=[name for name, _ in MIXED])
def test_words_of_chinese_and_other_letters_are_words(name: str, word: Word, around: str) -> None:
    done, _ = chinese_translator.translate(around.format(name))
    assert word.english in done and not re.search("[\u3400-\u9fff]|anxiety", done), done


def test_simplified_script_stays_as_it_is() -> None:
    """Some of its characters are rare traditional ones as well: 么, 什, 宁."""
    made = Dictionary()
    titles = [title for recipe in load().values() for choice in recipe.choices for title in _titles(choice)]
    common = "么什宁后里发面松谷准系云台只干了钟余胡佩卷据采注占适胜听号虫"
    assert [each for each in (*common, *titles, *(name for name, _ in WORDS)) if made.simplified(each) != each] == []


def _titles(choice: Choice) -> list[str]:
    return [choice.title["zh"], *(option.title["zh"] for option in choice.options)]


OPTIONS = [option for recipe in load().values() for choice in recipe.choices for option in choice.options]
SAID_OTHERWISE = {"书架前": "bookshelf", "金色": "golden", "阴天": "cloudy", "法师": "wizard"}
"""Titles that say the same in other words than their text."""


@pytest.mark.parametrize("option", OPTIONS, ids=[option.title["zh"] for option in OPTIONS])
def test_what_a_recipe_offers_in_chinese_means_in_english_what_it_offers_there(option: Option) -> None:
    done = translate(option.title["zh"])
    assert not done.warnings
    offered = f"{option.text} {option.title['en']} {SAID_OTHERWISE.get(option.title['zh'], '')}"
    assert _content(done.prompt) & _content(offered), (done.prompt, offered)


def _content(text: str) -> set[str]:
    """Its words, without those of a grammar, one or several."""
    words = {*re.findall("[a-z0-9]+", text.lower().replace("grey", "gray"))} - {
        "a",
        "an",
        "the",
        "in",
        "on",
        "of",
        "at",
        "by",
        "and",
        "with",
    }
    return {re.sub("(ies|es|s|y)$", "", each) for each in words}


NEGATIONS = ["不要", "别", "勿", "请勿", "没有", "没", "无", "不要有", "不能有", "不许", "不准", "不含", "不带", "不是", "不"]


@pytest.mark.parametrize("negation", NEGATIONS)
@pytest.mark.parametrize(
    ("chinese", "english"),
    [
        ("戴帽子", "hat"),
        ("戴绿帽子", "green hat"),
        ("戴眼镜", "glasses"),
        ("微笑", "smiling"),
        ("穿T恤", "t-shirt"),
        ("抽烟", "smoking"),
    ],
)
@pytest.mark.parametrize("before", ["女人，", "女人", ""])
def test_what_is_not_to_be_seen_is_not_asked_for(negation: str, chinese: str, english: str, before: str) -> None:
    assert re.search(rf"\b(without|not)\b.* {english}$", f" {chinese_translator.translate(before + negation + chinese)[0]}")


@pytest.mark.parametrize("negation", [each for each in NEGATIONS if each != "不"])
@pytest.mark.parametrize(("chinese", "english"), [("眼镜", "glasses"), ("帽子", "hat"), ("胡子", "beard"), ("文字", "text")])
def test_things_that_are_not_to_be_seen_are_not_asked_for(negation: str, chinese: str, english: str) -> None:
    assert re.fullmatch(
        rf"woman, (without|not)( an?)? {english}", chinese_translator.translate(f"女人，{negation}{chinese}")[0]
    )


@pytest.mark.parametrize("chinese", ["别墅", "别人", "别针", "区别", "性别", "个别", "特别", "无人机", "没落"])
def test_words_with_a_negation_in_them_are_words(chinese: str) -> None:
    assert not re.search(r"\b(without|not)\b", chinese_translator.translate(chinese)[0])


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
