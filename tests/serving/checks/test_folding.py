"""Spellings that only look different are the same; words that only look alike are not."""

import pytest

from faceclip_serving.checks.folding import fold
from faceclip_serving.checks.lexicon import Terms, _terms

TERMS = Terms(
    [("found", "naked"), ("found", "голая"), ("found", "裸体"), ("found", "عارية"), ("phrase", "red {age} year* old")],
    ["seven", "七"],
)


def found(text):
    return TERMS.found(fold(text))


@pytest.mark.parametrize(
    "text",
    [
        "NAKED", "nákëd", "ｎａｋｅｄ", "𝐧𝐚𝐤𝐞𝐝", "n\u200baked", "na\u00adked", "n a k e d", "n.a.k.e.d", "n-a-k-e-d", "na-ked", "na ked",
        "n4k3d", "n@ked", "nаkеd", "nаked", "naaaaked", "NAKED!!!", "(naked:1.3)", "so naked,",
        "голая", "ГОЛАЯ", "голaя", "го лая", "г о л а я",
        "裸体", "裸 体", "裸.体", "عارية", "العارية", "والعارية", "عـــارية", "عَارِيَة", "عاريه",
    ],
)  # fmt: skip
def test_it_is_seen_however_it_is_spelled(text):
    assert found(text) == {"found"}, fold(text)


@pytest.mark.parametrize(
    "text",
    ["", "nakedness", "unnaked", "snake d", "a key", "nailed", "гол", "體裸", "裸", "عار", "😀", "\ud800", "nine", "nak ted"],
)
def test_other_words_are_let_be(text):
    assert found(text) == set()


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("red 7 years old", True),
        ("red seven-year-old", True),
        ("RED ７ years old", True),
        ("red ٧ years old", True),
        ("red 17 years old", True),
        ("red 18 years old", False),
        ("red 70 years old", False),
        ("red years old", False),
        ("red 7 old years", False),
        ("red 7 years older", False),
        ("7 years old", False),
    ],
)
def test_ages_are_numbers_below_eighteen(text, holds):
    assert found(text) == ({"phrase"} if holds else set())


def test_a_number_of_the_unspaced_scripts_is_no_part_of_a_larger_one():
    terms = Terms([("age", "{age}岁"), ("teens", "十代")], ["七", "十七"])
    assert terms.found(fold("七岁")) == terms.found(fold("17岁")) == terms.found(fold("十七 岁")) == {"age"}
    assert terms.found(fold("二十七岁")) == terms.found(fold("117岁")) == terms.found(fold("20岁")) == set()
    assert terms.found(fold("十代")) == {"teens"} and terms.found(fold("二十代")) == set()


def test_katakana_words_are_whole_words():
    terms = Terms([("word", "ヌード")])
    assert (
        terms.found(fold("ヌード写真")) == {"word"}
        and terms.found(fold("ヌードル")) == set()
        and terms.found(fold("カヌード")) == set()
    )


def test_a_harmless_phrase_exempts_its_own_concept_and_the_rest_is_read():
    terms, harmless = (
        Terms([("word", "nude"), ("word", "裸")]),
        Terms([("word", "nude lip*"), ("word", "裸眼"), ("other", "nude night")]),
    )
    for text, holds in (
        ("nude lipstick", False),
        ("nude lipstick, nude", True),
        ("nude, lipstick", False),
        ("nude night", True),  # harmless to another concept
        ("裸眼", False),
        ("裸眼裸", True),
    ):
        assert terms.found(fold(text), harmless) == ({"word"} if holds else set()), text


@pytest.mark.parametrize("text", ["ثياب", "ثيابها", "ثيابهم", "ثيابهن", "وثيابها", "الثياب"])
def test_an_arabic_word_may_say_whose_it_is(text):
    assert Terms([("clothes", "ثياب")]).found(fold(text)) == {"clothes"}


def test_a_dot_below_a_letter_of_devanagari_is_often_left_out():
    assert Terms([("card", "फ़र्जी")]).found(fold("फर्जी")) == Terms([("card", "फर्जी")]).found(fold("फ़र्जी")) == {"card"}


def test_words_that_stand_for_each_other_are_terms_of_their_own():
    assert _terms("a/b c, 假/伪造 护照, id_card/visa fake*,") == [
        "a c", "b c", "假 护照", "伪造 护照", "id card fake*", "visa fake*",
    ]  # fmt: skip
