"""Each kind of value: what is kept, what is refused and in which words, and the range as people and programs are told it."""

import pytest

from faceclip_serving.contract.allowed import (
    Between,
    Box,
    File,
    Files,
    Flag,
    JsonObject,
    Moment,
    OneOf,
    Several,
    SomeOf,
    Text,
    nearest,
)
from faceclip_serving.contract.errors import InvalidRequest

COUNT, SHARE, SIDE = Between(1, 10), Between(0.0, 1.5), Between(8, 64, 8, "pixels")
EVEN = Between(2, 8, 2)
NAME = OneOf(("Euler", "UniPC"), {"fast": "UniPC"})
SCENE, WORDS = Text(20, "a beach"), Text(5)
OPTIONS = JsonObject({"karras": Flag(), "order": Between(1, 3)}, 100_000)


@pytest.mark.parametrize(
    ("allowed", "value", "kept"),
    [
        (COUNT, 1, 1),
        (COUNT, 10, 10),
        (SHARE, 0.0, 0.0),
        (SHARE, 1, 1),
        (SIDE, 8, 8),
        (SIDE, 64, 64),
        (EVEN, 4, 4),
        (NAME, "euler", "Euler"),
        (NAME, "UNIPC", "UniPC"),
        (NAME, "Fast", "UniPC"),
        (SCENE, "x" * 20, "x" * 20),
        (WORDS, "", ""),
        (WORDS, "hello", "hello"),
        (Flag(), True, True),
        (Flag(), False, False),
        (OPTIONS, "", {}),
        (OPTIONS, '{"order": 2, "karras": true}', {"order": 2, "karras": True}),
        (Files(2), [b"a", b"b"], [b"a", b"b"]),
    ],
)
def test_what_is_allowed_is_kept(allowed, value, kept):
    found = allowed.read("it", value)
    assert found == kept and type(found) is type(kept)


@pytest.mark.parametrize(
    ("allowed", "value", "message"),
    [
        (COUNT, 0, "it: expected a value from 1 to 10, got 0"),
        (COUNT, 11, "it: expected a value from 1 to 10, got 11"),
        (COUNT, 2.5, "it: expected a whole number from 1 to 10, got 2.5"),
        (COUNT, 2.0, "it: expected a whole number from 1 to 10, got 2.0; write 2"),
        (COUNT, "2", "it: expected a whole number from 1 to 10, got 2"),
        (COUNT, True, "it: expected a value from 1 to 10, got True"),
        (SHARE, 2.0, "it: expected a value from 0.0 to 1.5, got 2.0"),
        (SHARE, "much", "it: expected a value from 0.0 to 1.5, got much"),
        (SHARE, False, "it: expected a value from 0.0 to 1.5, got False"),
        (SHARE, float("nan"), "it: expected a value from 0.0 to 1.5, got nan"),
        (SIDE, 12, "it: expected a multiple of 8 from 8 to 64 pixels, got 12; try 16"),
        (SIDE, 1, "it: expected a multiple of 8 from 8 to 64 pixels, got 1; try 8"),
        (SIDE, 100, "it: expected a multiple of 8 from 8 to 64 pixels, got 100; try 64"),
        (SIDE, 12.5, "it: expected a multiple of 8 from 8 to 64 pixels, got 12.5"),
        (EVEN, 3, "it: expected a multiple of 2 from 2 to 8, got 3; try 4"),
        (NAME, "slow", "it: expected one of Euler, UniPC, got 'slow'"),
        (NAME, 1, "it: expected one of Euler, UniPC, got 1"),
        (SCENE, " ", "it: a text is required, got nothing; describe the scene, e.g. 'a beach'"),
        (WORDS, "xxxxxx", "it: at most 5 characters are read, got 6; shorten it"),
        (Flag(), 1, "it: expected true or false, got 1"),
        (OPTIONS, "[1]", 'it: expected a JSON object, got list; write e.g. {"karras": true}'),
        (
            OPTIONS,
            "[" * 100_000,
            'it: expected a JSON object of plain values, got one nested too deeply; write e.g. {"karras": true}',
        ),
        (OPTIONS, '{"kar": 1}', "it: expected some of karras, order, got 'kar'; did you mean 'karras'?"),
        (OPTIONS, '{"xyz": 1}', "it: expected some of karras, order, got 'xyz'"),
        (OPTIONS, '{"order": 4}', "it: order: expected a value from 1 to 3, got 4"),
        (Files(2), [b""] * 3, "it: at most 2 photographs are used together, got 3"),
    ],
)
def test_anything_else_is_refused_with_what_was_expected_what_came_and_the_cure(allowed, value, message):
    with pytest.raises(InvalidRequest) as caught:
        allowed.read("it", value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text",
    [
        "2027-01-31T12:00:00Z", "2027-01-31T12:00:00.5Z", "2027-01-31T12:00:00.123456+08:00", "2027-01-31 12:00:00-00:30",
        "2028-02-29T23:59:59Z",
    ],
)  # fmt: skip
def test_a_moment_of_rfc_3339_stays_its_text(text):
    assert Moment().read("it", text) == text


@pytest.mark.parametrize(
    "text",
    [
        "2027-W05-1T12:00:00Z", "2027-031T12:00:00Z", "20270131T120000Z", "2027-01-31T12Z", "2027-01-31T12:00Z", "2027-01-31",
        "2027-01-31T12:00:00", "2027-01-31T12:00:00+08", "2027-01-31T12:00:00+0800", "2027-01-31T12:00:00,5Z", "2027-02-29T12:00:00Z",
        "2027-01-31T25:00:00Z", "2027-01-31T12:00:00+25:00", "２０２７-01-31T12:00:00Z", "2027-01-31T12:00:00Z\n", "", "soon", None, 7,
    ],
)  # fmt: skip
def test_what_is_no_moment_of_rfc_3339_is_refused(text):
    with pytest.raises(InvalidRequest, match=r"^it: expected a time such as 2027-01-31T12:00:00Z, got "):
        Moment().read("it", text)


def test_text_that_is_no_json_is_refused_with_the_place_and_an_example():
    with pytest.raises(InvalidRequest, match=r'^it: expected JSON, .*\(.*line 1 column 2.*\); write e.g. {"karras": true}$'):
        OPTIONS.read("it", "{")


@pytest.mark.parametrize(
    ("allowed", "words", "told"),
    [
        (COUNT, "1 to 10", {"min": 1, "max": 10}),
        (SHARE, "0 to 1.5", {"min": 0.0, "max": 1.5}),
        (SIDE, "8 to 64 pixels, multiples of 8", {"min": 8, "max": 64, "multiple": 8}),
        (EVEN, "2 to 8, multiples of 2", {"min": 2, "max": 8, "multiple": 2}),
        (Between(1, 2**32 - 1), "1 to 2^32-1", {"min": 1, "max": 2**32 - 1}),
        (Between(1, 2**31 - 1), "1 to 2147483647", {"min": 1, "max": 2**31 - 1}),
        (Between(1, 2**32), "1 to 4294967296", {"min": 1, "max": 2**32}),
        (NAME, "`Euler`, `UniPC`", {"choices": ["Euler", "UniPC"]}),
        (WORDS, "at most 5 characters", {"max_characters": 5}),
        (Flag(), "true, false", {}),
        (OPTIONS, "a JSON object, at most 100000 characters, of `karras`: true, false; `order`: 1 to 3",
         {"max_characters": 100_000, "entries": {"karras": {}, "order": {"min": 1, "max": 3}}}),
        (Files(2), "at most 2 files", {"max_items": 2}),
        (File(), "a file", {}),
        (Box(), "left, top, right, bottom from 0 to 1", {"count": 4, "items": {"min": 0.0, "max": 1.0}}),
    ],
)  # fmt: skip
def test_people_and_programs_are_told_the_range(allowed, words, told):
    assert allowed.describe() == words
    assert allowed.as_json() == told


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ((0.0, 0.0, 1.1, 1.0), "from 0 to 1, got 0, 0, 1.1, 1; divide pixels by its sides"),
        ((-0.5, 0.0, 1.0, 1.0), "from 0 to 1, got -0.5, 0, 1, 1"),
        ((0.0, float("nan"), 1.0, 1.0), "from 0 to 1, got 0, nan, 1, 1"),
        ((0.5, 0.0, 0.5, 1.0), "left < right and top < bottom, got 0.5 to 0.5 and 0 to 1"),
        ((0.0, 0.75, 1.0, 0.5), "left < right and top < bottom, got 0 to 1 and 0.75 to 0.5"),
    ],
)
def test_a_box_lies_within_the_picture(value, words):
    with pytest.raises(InvalidRequest) as refused:
        Box().read("box", value)
    assert str(refused.value).startswith("box: expected ") and words in str(refused.value)
    assert Box().read("box", (0, 0.25, 1, 0.5)) == [0.0, 0.25, 1.0, 0.5]


@pytest.mark.parametrize(("name", "meant"), [("karas", "karras"), ("A-B", "a_b"), ("unipc", "UniPC"), ("xyzzy", None)])
def test_the_nearest_name_is_proposed_or_none(name, meant):
    assert nearest(name, ["ab", "a_b", "karras", "UniPC"]) == (f"; did you mean '{meant}'?" if meant else "")


def test_some_of_names_are_read_in_their_own_order_and_stand_for_names():
    marks = SomeOf(("watermark", "metadata", "credentials"))
    assert marks.read("marks", " Credentials, watermark ") == "watermark,credentials"
    for told, names in (("all", marks.names), ("none", ()), ("watermark,credentials", ("watermark", "credentials"))):
        assert marks.names_in(marks.read("marks", told)) == names
    with pytest.raises(
        InvalidRequest,
        match=r"marks: expected all, none, or some of watermark, metadata, credentials, got 'metdata'.*'metadata'",
    ):
        marks.read("marks", "metdata")


@pytest.mark.parametrize(
    ("value", "got"), [([], "0 of them"), ([1, 2, 3, 4], "4 of them"), ("x" * 100, "'" + "x" * 79), (None, "None")]
)
def test_a_list_of_another_length_or_none_is_refused(value, got):
    with pytest.raises(InvalidRequest) as refused:
        Several(COUNT, 3).read("items", value)
    assert str(refused.value) == f"items: expected a list of 1 to 3, got {got}"
    assert Several(COUNT, 3).read("items", [1, 2]) == [1, 2]


def test_what_is_wrong_in_a_list_is_named_by_its_place():
    with pytest.raises(InvalidRequest, match=r"^items\[1\]: "):
        Several(COUNT, 3).read("items", [1, 11])
