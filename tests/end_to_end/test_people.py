"""Which face of a photograph is drawn: listed without a picture, chosen by number or by place."""

import asyncio
import io
import json

import numpy as np
import pytest
from PIL import Image

from export.paths import ROOT
from faceclip import AsyncFaceCLIPPipeline, InvalidRequestError
from faceclip.cli import main

PROMPT = "portrait, studio light"
QUICK = {"num_inference_steps": 2, "height": 64, "width": 64, "seed": 7}
ASTRONAUT = ROOT / "examples" / "astronaut.jpg"


def group():
    """Two people: one as photographed, and a smaller one, mirrored."""
    person = Image.open(ASTRONAUT).convert("RGB")
    image = Image.new("RGB", (912, 512), "#909090")
    image.paste(person, (0, 0))
    image.paste(person.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((400, 400)), (512, 0))
    return image


def pixels(result):
    return [np.asarray(image) for image in result.images]


def test_faces_are_listed_and_each_can_be_drawn(pipe):
    first, second = found = pipe.faces(group())
    assert [face.index for face in found] == [0, 1] and first.box[0] < 512 < second.box[0]
    assert first.usable and second.usable and first.frontality > 0.9
    largest = pipe(PROMPT, face_image=group(), **QUICK)
    by_number = pipe(PROMPT, face_image=group(), face_index=second.index, **QUICK)
    by_place = pipe(PROMPT, face_image=group(), face_boxes=second.fractions, **QUICK)
    np.testing.assert_array_equal(pixels(by_number), pixels(by_place))
    np.testing.assert_array_equal(pixels(largest), pixels(pipe(PROMPT, face_image=group(), face_index=[0], **QUICK)))
    assert not np.array_equal(pixels(largest), pixels(by_number))
    (told,) = by_number.details["faces"]
    assert told["chosen"] == 1 and len(told["found"]) == 2 and told["box"] == list(second.box)
    *_, streamed = pipe.stream(PROMPT, face_image=group(), face_index=1, **QUICK)
    np.testing.assert_array_equal(pixels(streamed), pixels(by_number))


def test_a_choice_is_for_each_photograph(pipe):
    result = pipe(PROMPT, face_images=[ASTRONAUT, group()], face_index=[0, 1], **QUICK)
    assert [face["chosen"] for face in result.details["faces"]] == [0, 1]


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"face_index": 2}, "face_index[0]: expected a number from 0 to 1, since 2 faces are in face_images[0]"),
        ({"face_index": -1}, "face_index[0]: expected a value from 0 to 99, got -1"),
        ({"face_index": [0, 1]}, "face_index: expected one for each of the 1 photographs of face_images, got 2"),
        ({"face_index": [0] * 5}, "face_index: expected a list of 1 to 4, got 5 of them"),
        ({"face_index": 1, "face_boxes": [0, 0, 1, 1]}, "face_index: expected none where face_boxes come"),
        ({"face_boxes": [0, 0.7, 0.1, 1]}, "face_boxes[0]: expected a box about a face of face_images[0], got one without"),
        ({"face_boxes": [0, 0, 1]}, "face_boxes: expected four numbers for each of 1 to 4 boxes, got 3 numbers"),
        ({"face_boxes": [0, 0, 912, 512]}, "face_boxes[0]: expected fractions of the picture from 0 to 1"),
        ({"face_boxes": [0.5, 0, 0.5, 1]}, "face_boxes[0]: expected left < right and top < bottom"),
        ({"face_boxes": [float("nan"), 0, 1, 1]}, "face_boxes[0]: expected fractions of the picture from 0 to 1"),
    ],
)
def test_a_choice_that_is_none_is_refused_in_words(pipe, choice, words):
    with pytest.raises(InvalidRequestError) as error:
        pipe(PROMPT, face_image=group(), **choice, **QUICK)
    assert str(error.value).startswith(words)


def test_a_choice_without_a_photograph_that_is_searched_has_no_effect(pipe):
    for more in ({}, {"face_image": ROOT / "examples" / "portrait.png", "face_aligned": True}):
        result = pipe(PROMPT, face_index=1, **more, **QUICK)
        assert any(warning.startswith("face_index: it has no effect here") for warning in result.warnings)


def test_where_nobody_is_none_is_listed_and_what_is_no_photograph_is_refused(pipe):
    assert pipe.faces(Image.new("RGB", (300, 200), "#909090")) == []
    with pytest.raises(InvalidRequestError, match=r"^face_images\[0\]: expected a photograph"):
        pipe.faces(b"hello, I am a text")


def test_asyncio_and_the_command_ask_the_same(pipe, server, tmp_path, capsys):
    async def ask():
        async with await AsyncFaceCLIPPipeline.from_pretrained(server.url) as other:
            return await other.faces(group())

    found = pipe.faces(group())
    assert asyncio.run(ask()) == found
    path = tmp_path / "group.png"
    group().save(path)
    assert main(["faces", str(path), "--server", server.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{path}: 2 faces" and lines[2].startswith("  1  at ")
    assert main(["faces", str(path), "--server", server.url, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["photos"].values()
    assert [face["index"] for face in told] == [0, 1]
    out = tmp_path / "out.png"
    arguments = ["generate", "--face", str(path), "--face-index", "1", "--prompt", PROMPT, "--steps", "2", "--height", "64"]
    assert main([*arguments, "--width", "64", "--seed", "7", "-o", str(out), "--server", server.url, "--quiet"]) == 0
    drawn = np.asarray(Image.open(io.BytesIO(out.read_bytes())))
    np.testing.assert_array_equal(drawn, pixels(pipe(PROMPT, face_image=path, face_index=1, **QUICK))[0])
