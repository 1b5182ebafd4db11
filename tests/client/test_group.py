"""People as a call gives them, and as the command does: what is sent of them."""

import argparse
import io
import json

import pytest
from PIL import Image

from faceclip import Person
from faceclip.cli_group import placed
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
    assert group.face_index == [0, 0, 2]
    assert json.loads(group.text) == [
        {"prompt": "a hat", "faces": [0, 1], "box": [0, 0, 0.5, 1]},
        {"weight": 0.5, "identity": 0, "mask": 0},
        {"faces": [2], "box": [0.5, 0, 1, 1]},
    ]
    assert len(People(4, 100).read("people", group.text)) == 3
    assert encode_people([Person(A, LEFT)]).face_index is None


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


@pytest.mark.parametrize(
    ("text", "files", "box", "mask", "prompt"),
    [
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


@pytest.mark.parametrize("text", ["a.jpg", "a.jpg@", "@0,0,1,1", "", "a.jpg@0,0,1,1.2.3"])
def test_what_is_no_person_says_how_one_is_written(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected"):
        placed(text)


def test_an_identity_is_told_by_its_file(tmp_path):
    sealed, photo = tmp_path / "a.bin", tmp_path / "b.bin"
    sealed.write_bytes(b"\x89faceid\nrest")
    photo.write_bytes(A)
    assert placed(f"{sealed}@0,0,1,1").person() == Person(identity=sealed, box=(0, 0, 1, 1))
    assert placed(f"{photo}@0,0,1,1").person().images == [photo]
