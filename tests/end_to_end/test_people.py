"""Who is drawn: faces of a photograph, listed without a picture, chosen by number or by place; identities that the server sealed."""

import asyncio
import base64
import io
import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

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


# ------------------------------------------------------------------------------------------------------- sealed identities
@pytest.fixture(scope="module")
def identity(pipe):
    return pipe.identity(ASTRONAUT)


def test_an_identity_draws_what_its_photograph_draws_to_the_bit(pipe, identity, tmp_path):
    by_photo = pipe(PROMPT, face_image=ASTRONAUT, remember=False, **QUICK)
    saved = identity.save(tmp_path / "astronaut.faceid")
    assert saved.stat().st_mode & 0o777 == 0o600
    for form in (identity, identity.data, saved, str(saved)):
        result = pipe(PROMPT, identity=form, remember=False, **QUICK)
        np.testing.assert_array_equal(pixels(result), pixels(by_photo))
    (told,) = result.details["faces"]
    assert told == {"identity": {"id": identity.id, "photographs": 1, "made": told["identity"]["made"], "expires": None}}
    assert result.warnings == []
    *_, streamed = pipe.stream(PROMPT, identity=identity, **QUICK)
    np.testing.assert_array_equal(pixels(streamed), pixels(by_photo))
    assert not np.array_equal(pixels(pipe(PROMPT, **QUICK)), pixels(by_photo))


def test_a_chosen_face_and_several_photographs_are_sealed(pipe):
    second = pipe.identity(group(), face_index=1)
    np.testing.assert_array_equal(
        pixels(pipe(PROMPT, identity=second, **QUICK)), pixels(pipe(PROMPT, face_image=group(), face_index=1, **QUICK))
    )
    both = pipe.identity([ASTRONAUT, group()], face_boxes=[(0, 0, 1, 1), (0.56, 0, 1, 1)], face_weighting="quality")
    assert [face["chosen"] for face in both.details["faces"]] == [0, 1] and both.details["identity"]["photographs"] == 2
    assert len(pixels(pipe(PROMPT, identity=both, **QUICK))) == 1


def test_an_identity_beside_others_changes_nothing(pipe, identity):
    """Requests with an identity, a photograph and neither share calls; each is what it is alone."""
    kinds = ({"identity": identity}, {"face_image": group()}, {}, {"identity": identity, "id_guidance_scale": 1.5})
    alone = [pixels(pipe(PROMPT, **kind, **QUICK)) for kind in kinds]
    with ThreadPoolExecutor(len(kinds)) as pool:
        together = list(pool.map(lambda kind: pixels(pipe(PROMPT, **kind, **QUICK)), kinds))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(np.asarray(one, np.float32), np.asarray(other, np.float32), atol=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"expires": "yesterday"}, "expires: expected a time such as 2027-01-31T12:00:00Z"),
        ({"expires": "2020-01-01T00:00:00Z"}, "expires: expected a time to come, got 2020-01-01T00:00:00Z"),
        ({"face_index": 4}, "face_index[0]: expected 0, since 1 face is in face_images[0]"),
    ],
)
def test_what_cannot_be_sealed_is_refused_in_words(pipe, options, words):
    with pytest.raises(InvalidRequestError) as error:
        pipe.identity(ASTRONAUT, **options)
    assert str(error.value).startswith(words)


def test_what_is_no_identity_of_this_server_is_refused_and_the_next_request_is_well(pipe, identity):
    altered = bytearray(identity.data)
    altered[-1] ^= 1
    for wrong, words in (
        (bytes(altered), "identity: the identity was altered"),
        (identity.data[:-9], "identity: the identity is cut off"),
        (ASTRONAUT.read_bytes(), "identity: expected a sealed identity"),
    ):
        with pytest.raises(InvalidRequestError) as error:
            pipe(PROMPT, identity=wrong, **QUICK)
        assert str(error.value).startswith(words)
    with pytest.raises(InvalidRequestError, match="identity: expected none where face_images come"):
        pipe(PROMPT, identity=identity, face_image=ASTRONAUT, **QUICK)
    soon = pipe.identity(ASTRONAUT, expires=datetime.now(UTC) + timedelta(seconds=3))
    while datetime.now(UTC) < datetime.fromisoformat(soon.expires):
        time.sleep(0.1)
    with pytest.raises(InvalidRequestError, match="identity: the identity expired at"):
        pipe(PROMPT, identity=soon, **QUICK)
    assert pipe(PROMPT, identity=identity, **QUICK).images


def test_json_carries_an_identity(server, identity):
    def ask(model, **values):
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.ports.http}/v2/models/{model}/generate", json.dumps(values).encode()
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    photo = base64.b64encode(ASTRONAUT.read_bytes()).decode()
    made = ask("faceclip_faces", face_images=photo, make_identity=True)
    assert json.loads(made["details"])["identity"]["photographs"] == 1
    told = ask("faceclip", prompt=PROMPT, identity=made["identity"], **QUICK)
    assert json.loads(told["details"])["faces"][0]["identity"]["photographs"] == 1
    assert "identity" not in ask("faceclip_faces", face_images=photo)


def test_the_command_seals_and_draws(pipe, server, identity, tmp_path, capsys):
    async def ask():
        async with await AsyncFaceCLIPPipeline.from_pretrained(server.url) as other:
            return await other(PROMPT, identity=await other.identity(ASTRONAUT), **QUICK)

    path, out = tmp_path / "anna.faceid", tmp_path / "out.png"
    expires = "2099-01-01T00:00:00Z"
    assert main(["identity", str(ASTRONAUT), "-o", str(path), "--expires", expires, "--server", server.url]) == 0
    assert capsys.readouterr().out.startswith(f"{path}  identity ")
    arguments = ["generate", "--identity", str(path), "--prompt", PROMPT, "--steps", "2", "--height", "64", "--width", "64"]
    assert main([*arguments, "--seed", "7", "-o", str(out), "--server", server.url, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["details"]["faces"]
    assert told["identity"]["expires"] == expires
    wanted = pixels(pipe(PROMPT, identity=identity, **QUICK))[0]
    np.testing.assert_array_equal(np.asarray(Image.open(out)), wanted)
    np.testing.assert_array_equal(pixels(asyncio.run(ask()))[0], wanted)
    assert main([*arguments[:2], str(tmp_path / "none.faceid"), *arguments[3:], "-o", str(out), "--server", server.url]) == 2
    assert "--identity: expected an identity file" in capsys.readouterr().err
