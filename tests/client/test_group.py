"""People as a call gives them, and as the command does: what is sent of them."""

import argparse
import io
import json

import numpy as np
import pytest
from PIL import Image

from faceclip import InvalidRequestError, Person
from faceclip.cli_group import FORM, placed
from faceclip.group import encode_people
from faceclip_serving.contract.people import People

LEFT, RIGHT = (0, 0, 0.5, 1), (0.5, 0, 1, 1)


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


A, B, C = (png(colour) for colour in ("red", "green", "blue"))


def test_files_are_numbered_in_the_order_of_people_and_the_server_reads_the_text():
    group = encode_people([
        Person([A, B], LEFT, prompt="a hat"),
        Person(identity=b"sealed", mask=C, weight=0.5),
        Person(C, RIGHT, face_index=2),
    ])  # fmt: skip
    assert group.files == {"face_images": [A, B, C], "identity": [b"sealed"], "people_masks": [C]}
    assert group.chosen == {"face_index": [0, 0, 2]}
    assert json.loads(group.text) == [
        {"prompt": "a hat", "faces": [0, 1], "box": [0, 0, 0.5, 1]},
        {"weight": 0.5, "identity": 0, "mask": 0},
        {"faces": [2], "box": [0.5, 0, 1, 1]},
    ]
    assert len(People(4, 100).read("people", group.text)) == 3
    assert encode_people([Person(A, LEFT)]).chosen == {}


@pytest.mark.parametrize("people", [Person(A, LEFT), {"box": LEFT}, [{"box": LEFT}], [A]])
def test_what_is_no_list_of_people_is_a_type_error(people):
    with pytest.raises(TypeError, match="people: expected a list of Person"):
        encode_people(people)


def test_a_face_is_chosen_for_each_photograph():
    with pytest.raises(TypeError, match=r"people\[0\]: face_index: expected a number for each of 2 photographs"):
        encode_people([Person([A, B], LEFT, face_index=[0])])


def test_a_record_of_consent_may_be_its_text_or_what_it_says():
    for consent in ('{"id": "c"}', {"id": "c"}):
        assert json.loads(encode_people([Person(A, LEFT, consent=consent)]).text)[0]["consent"] == {"id": "c"}


BOX = (0.5, 0.1, 0.75, 0.5)


@pytest.mark.parametrize("given", [1, np.int64(1), np.array(1), [1], (np.int32(1),), np.array([1])])
def test_a_number_of_a_face_may_be_any_integer(given):
    assert encode_people([Person(A, LEFT, face_index=given), Person(B, RIGHT)]).chosen == {"face_index": [1, 0]}


@pytest.mark.parametrize("given", [BOX, list(BOX), [BOX], np.array(BOX), np.array([BOX])])
def test_a_person_may_choose_a_face_by_its_place(given):
    group = encode_people([Person([A, B], LEFT), Person(C, RIGHT, face_boxes=given), Person(identity=b"sealed", mask=C)])
    assert group.chosen == {"face_boxes": [0, 0, 1, 1, 0, 0, 1, 1, *BOX]}
    both = encode_people([Person([A, B], LEFT, face_boxes=[BOX, (0, 0, 1, 1)])])
    assert both.chosen == {"face_boxes": [*BOX, 0, 0, 1, 1]}


@pytest.mark.parametrize(
    ("person", "words"),
    [
        (Person(A, LEFT, face_index=1.5), "face_index: expected a number for each of 1 photographs, got 1.5"),
        (Person(A, LEFT, face_index=True), "face_index: expected a number for each of 1 photographs, got True"),
        (Person(A, LEFT, face_index="1"), "face_index: expected a number for each of 1 photographs, got '1'"),
        (Person(A, LEFT, face_index=[[1], [1, 2]]), "face_index: expected a number for each of 1 photographs"),
        (Person([A, B], LEFT, face_boxes=BOX), "face_boxes: expected left, top, right, bottom for each of 2 photographs"),
        (Person(A, LEFT, face_boxes=[(0, 0), (1,)]), "face_boxes: expected left, top, right, bottom for each of 1"),
        (Person(A, LEFT, face_boxes="all"), "face_boxes: expected left, top, right, bottom for each of 1 photographs, got 'all'"),
        (Person(identity=b"sealed", box=LEFT, face_index=0), "face_index: expected images in which a face is chosen"),
        (Person(identity=b"sealed", box=LEFT, face_boxes=BOX), "face_boxes: expected images in which a face is chosen"),
        (Person(A, box="0,0,1,1"), "box: expected left, top, right, bottom, got '0,0,1,1'"),
        (Person(A, box=0.5), "box: expected left, top, right, bottom, got 0.5"),
        (Person(A, LEFT, weight="much"), "weight: expected a number, got"),
        (Person(A, LEFT, prompt=7), "prompt: expected a text, got 7"),
        (Person(A, mask=7), "mask: expected a path, .* or an array \\[height, width\\], got int"),
    ],
)  # fmt: skip
def test_what_is_of_another_type_names_the_person_and_the_parameter(person, words):
    with pytest.raises(TypeError, match=rf"^people\[1\]: {words}"):
        encode_people([Person(A, LEFT), person])


@pytest.mark.parametrize("consent", ["{bad", "", "[" * 100_000, {"given": object()}])
def test_a_record_that_is_no_json_names_the_person(consent):
    with pytest.raises(
        InvalidRequestError, match=r"^people\[1\]: consent: expected a record of consent as JSON, got what is none"
    ):
        encode_people([Person(A, LEFT), Person(B, RIGHT, consent=consent)])


def test_numbers_of_numpy_are_numbers():
    (told,) = json.loads(encode_people([Person(A, np.array(LEFT, np.float32), weight=np.float32(0.5))]).text)
    assert told["box"] == list(LEFT) and told["weight"] == 0.5


def test_people_choose_by_number_or_by_place():
    with pytest.raises(
        TypeError, match=r"^people: expected face_index or face_boxes of all who choose, got both; pipe\.faces\(\)"
    ):
        encode_people([Person(A, LEFT, face_index=1), Person(B, RIGHT, face_boxes=BOX)])


def test_a_mask_of_a_person_may_be_an_array_of_bool():
    mask = np.zeros((4, 6), bool)
    mask[:, 3:] = True
    (file,) = encode_people([Person(A, mask=mask)]).files["people_masks"]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file)).convert("L")), mask * np.uint8(255))


@pytest.mark.parametrize(
    ("text", "files", "box", "mask", "prompt"),
    [
        ("a.jpg @ 0, 0, 0.5, 1 : a man", ["a.jpg"], LEFT, None, "a man"),
        (" a.jpg , b.jpg @0 0 .5 1", ["a.jpg", "b.jpg"], LEFT, None, None),
        ("Doe\\, Ann.jpg,b.jpg@0,0,0.5,1", ["Doe, Ann.jpg", "b.jpg"], LEFT, None, None),
        ("a.jpg@ left\\,1.png : a hat", ["a.jpg"], None, "left,1.png", "a hat"),
        ("a.jpg@./0.5", ["a.jpg"], None, "0.5", None),
        ("a.jpg@left.png: at @0,0,1,1", ["a.jpg"], None, "left.png", "at @0,0,1,1"),
        ("a.jpg@e.png", ["a.jpg"], None, "e.png", None),
        ("a.jpg@0,0,0.5,1", ["a.jpg"], LEFT, None, None),
        ("a.jpg,b.jpg@0,0,.5,1:a man", ["a.jpg", "b.jpg"], LEFT, None, "a man"),
        ("me@home.jpg@0,0,0.5,1: a: b @ c", ["me@home.jpg"], LEFT, None, "a: b @ c"),
        ("a.jpg@masks/left.png", ["a.jpg"], None, "masks/left.png", None),
        ("anna.faceid@left.png: a hat", ["anna.faceid"], None, "left.png", "a hat"),
    ],
)
def test_the_command_reads_who_where_and_how(text, files, box, mask, prompt):
    found = placed(text)
    assert [str(path) for path in found.files] == files and found.box == box and found.prompt == prompt
    assert (found.mask and str(found.mask)) == mask


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg", "a.jpg@", "a.jpg@ ", "@0,0,1,1", " @0,0,1,1", "", "a.jpg,@0,0,1,1", "a.jpg,,b.jpg@0,0,1,1",
        "a.jpg@0,0,1,1.2.3", "a.jpg@0,0,0.5", "a.jpg@0,0,0.5:a man", "a.jpg@0,0,,1", "a.jpg@0,0,0.5,1,1 : a man", "a.jpg@0.5",
    ],
)  # fmt: skip
def test_what_is_no_person_says_how_one_is_written(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected") as error:
        placed(text)
    assert FORM in str(error.value)


def test_an_identity_is_told_by_its_file(tmp_path):
    sealed, photo = tmp_path / "a.bin", tmp_path / "b.bin"
    sealed.write_bytes(b"\x89faceid\nrest")
    photo.write_bytes(A)
    assert placed(f"{sealed}@0,0,1,1").person() == Person(identity=sealed, box=(0, 0, 1, 1))
    assert placed(f"{photo}@0,0,1,1").person().images == [photo]
