"""Weights and breaks in prompts: what is read, what is refused, and that what is left is the text."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.models.notation import MAX_WEIGHT, as_it_is, read_words


def words(prompt, weighting=True, chunks=True):
    return read_words("prompt", prompt, weighting, chunks)


def weights(prompt):
    """Weight of each word."""
    found = words(prompt)
    return {match[0]: round(found.weights[match.start()], 4) for match in re.finditer(r"\w+", found.text)}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a (red hat:1.3), b", {"a": 1, "red": 1.3, "hat": 1.3, "b": 1}),
        ("(hat)", {"hat": 1.1}),
        ("((hat))", {"hat": 1.21}),
        ("[hat] a", {"hat": 0.9091, "a": 1}),
        ("[[hat]]", {"hat": 0.8264}),
        ("((red:1.2) hat:1.5)", {"red": 1.8, "hat": 1.5}),
        ("([hat]:1.1)", {"hat": 1}),
        ("(hat : 0)", {"hat": 0}),
        ("(hat:+1.)", {"hat": 1}),
        ("(hat:.5) (coat:5e-1)", {"hat": 0.5, "coat": 0.5}),
        ("(10:30 clock:2)", {"10": 2, "30": 2, "clock": 2}),
        ("(a BREAK b:1.2) c", {"a": 1.2, "b": 1.2, "c": 1}),
    ],
)
def test_words_have_the_weights_that_the_notation_gives_them(prompt, expected):
    assert weights(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (r"a \(red\) hat", "a (red) hat"),
        (r"\[x\] \\ \n", r"[x] \ \n"),
        ("(nu:1.1)de", "nude"),
        ("n<lora:x:1>ude", "nude"),
        ("(hat:)", "hat:"),
        ("(a:b) at 10:30", "a:b at 10:30"),
        ("()", ""),
    ],
)
def test_what_is_left_is_the_text(prompt, text):
    assert words(prompt).text == text


@given(st.text(string.ascii_letters + " ,.:;-!?é", max_size=60).filter(lambda text: "BREAK" not in text))
def test_a_text_without_notation_is_itself_whatever_is_switched_on(text):
    assert words(text) == words(text, False, False) == as_it_is(text)
    assert not words(text).weighted


@given(st.text("ab ()[]\\:1.<>|", max_size=30))
def test_any_text_is_read_or_refused_and_every_character_has_a_weight_in_range(text):
    try:
        found = words(text)
    except InvalidRequest as error:
        assert str(error).startswith("prompt: expected")
    else:
        assert len(found.weights) == len(found.text)
        assert all(0 <= weight <= MAX_WEIGHT for weight in found.weights)


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("a (red hat", "expected a ')' for it, got '(' alone at character 3"),
        ("a red) hat", "expected its opening bracket before it, got ')' alone at character 6"),
        ("a [red) hat", "got ')' alone at character 7"),
        ("a (red] hat", "got ']' alone at character 7"),
        ("[(hat)", "got '[' alone at character 1"),
        ("a (hat:-1)", "expected weights from 0 to 5, got -1 at character 3: '(hat:-1)'"),
        ("(hat:1e9)", "got 1e9 at character 1"),
        ("(hat:NaN)", "got NaN"),
        ("(hat:-inf)", "got -inf"),
        ("((hat:4):4)", "expected weights from 0 to 5, got 16: 'hat'"),
        (" ".join(f"(a:1.{i})" for i in range(1, 10)), "expected at most 8 different weights besides 1, got 9"),
        ("a [red:blue:0.5] hat", "words that change between steps are not known here"),
        ("a [red|blue] hat", "'[red|blue]' at character 3"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place_and_a_cure(prompt, told):
    with pytest.raises(InvalidRequest, match=r"^prompt: ") as error:
        words(prompt)
    assert told in str(error.value)
    assert words(prompt, weighting=False).text == prompt, "switched off, it is text"


@pytest.mark.parametrize(
    ("prompt", "text", "breaks"),
    [
        ("red hat BREAK blue coat", "red hat blue coat", (8,)),
        ("BREAK a  BREAK BREAK\nb BREAK", "a b", (2,)),
        ("a BREAK b BREAK c", "a b c", (2, 4)),
        ("a break, BREAKFAST", "a break, BREAKFAST", ()),
        ("BREAK", "", ()),
    ],
)
def test_break_ends_a_chunk(prompt, text, breaks):
    found = words(prompt)
    assert (found.text, found.breaks, len(found.weights)) == (text, breaks, len(text))


def test_what_is_not_read_is_told():
    assert "'<lora:film:0.8>' is no part of a prompt" in words("a coat <lora:film:0.8>").warnings[0]
    (warning,) = words("a coat BREAK a hat", chunks=False).warnings
    assert "'BREAK' is read as plain text" in warning
    for prompt, found in (("a (red:1.3) coat", "(red:1.3)"), ("((best)), a coat", "((best))"), ("a <lora:x:1>", "<lora:x:1>")):
        (warning,) = words(f"{prompt}, and {prompt}", weighting=False).warnings
        assert f"'{found}' is read as plain text" in warning
    for plain in ("a woman (smiling), in a library", "ratio 3:4", "a break, 1 < 2 > 0", "a clock (noon) at 10:30"):
        assert words(plain, weighting=False).warnings == ()
