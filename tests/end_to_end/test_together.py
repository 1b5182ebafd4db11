"""Several people in one picture, on a real server: drawn, told, beside others, streamed, from the command line, and refused in words."""

import asyncio
import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps

from benchmarks.measure.oracle import load_oracle
from benchmarks.quality.parity import SCHEDULERS, sizes
from benchmarks.quality.together import together_of
from export.paths import ROOT
from faceclip import AsyncFaceCLIPPipeline, InvalidRequestError, Person
from faceclip.cli import main
from faceclip_serving.contract.names import PREPARE
from faceclip_serving.contract.variants.sdxl import TINY_SDXL

PROMPT = "two friends, studio light"
ASTRONAUT = ROOT / "examples" / "astronaut.jpg"
QUICK = {"num_inference_steps": 2, "height": 64, "width": 64, "seed": 7}
LEFT, RIGHT = (0, 0, 0.5, 1), (0.5, 0, 1, 1)


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def other():
    return png(ImageOps.mirror(Image.open(ASTRONAUT).convert("RGB")))


@pytest.fixture(scope="module")
def two(other):
    return [Person(ASTRONAUT, LEFT), Person(other, RIGHT, prompt="a man in a hat", weight=0.8)]


def pixels(result):
    return np.stack([np.asarray(image) for image in result.images])


@pytest.mark.proof
def test_a_served_picture_is_that_of_the_formula(pipe, repository):
    def draw(prompt, people, **options):
        return pixels(pipe(prompt, people=json.dumps(people), **options))[0]

    found = together_of(load_oracle(TINY_SDXL), repository / PREPARE / "1", draw, sizes(TINY_SDXL), SCHEDULERS[:2])
    assert len(found["cases"]) == 8 and found["psnr_db_min"] >= 45


def test_details_say_who_is_where(pipe, two):
    result = pipe(PROMPT, people=two, **QUICK)
    assert result.details["people"] == [
        {"faces": [0], "box": [0, 0, 0.5, 1], "mask": None, "weight": 1.0},
        {"faces": [1], "box": [0.5, 0, 1, 1], "mask": None, "weight": 0.8},
    ]
    assert len(result.details["faces"]) == 2 and result.details["parameters"]["people"][1]["prompt"] == "a man in a hat"
    assert result.details["sampling"]["rows"] == 2 * 4 and not result.warnings
    assert pipe(PROMPT, face_image=ASTRONAUT, **QUICK).details["people"] is None


@pytest.mark.proof
def test_the_other_way_round_is_another_picture_and_a_seed_repeats_it(pipe, two, other):
    first = pixels(pipe(PROMPT, people=two, **QUICK))
    np.testing.assert_array_equal(first, pixels(pipe(PROMPT, people=two, **QUICK)))
    for changed in (
        [Person(other, LEFT), Person(ASTRONAUT, RIGHT, prompt="a man in a hat", weight=0.8)],
        [two[0], Person(other, RIGHT, weight=0.8)],
        [two[0], Person(other, RIGHT, prompt="a man in a hat")],
        [two[0], Person(other, (0.6, 0, 1, 1), prompt="a man in a hat", weight=0.8)],
    ):
        assert not np.array_equal(first, pixels(pipe(PROMPT, people=changed, **QUICK)))


def test_masks_and_identities_do_the_same_as_boxes_and_photographs(pipe, two, other):
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    expected = pixels(pipe(PROMPT, people=[Person(ASTRONAUT, LEFT), Person(other, RIGHT)], **QUICK))
    sealed = pipe.identity(other)
    mixed = pipe(PROMPT, people=[Person(ASTRONAUT, mask=mask), Person(identity=sealed, box=RIGHT)], **QUICK)
    np.testing.assert_array_equal(pixels(mixed), expected)
    assert mixed.details["people"][1]["faces"] == [1] and mixed.details["faces"][1]["identity"]["id"] == sealed.id
    both = [Person(identity=pipe.identity(ASTRONAUT), box=LEFT), Person(identity=sealed, box=RIGHT)]
    np.testing.assert_array_equal(pixels(pipe(PROMPT, people=both, **QUICK)), expected)


def test_two_faces_of_one_photograph_are_chosen_by_number(pipe, two):
    image = Image.new("RGB", (912, 512), "#909090")
    person = Image.open(ASTRONAUT).convert("RGB")
    image.paste(person, (0, 0))
    image.paste(ImageOps.mirror(person).resize((400, 400)), (512, 0))
    people = [Person(image, LEFT), Person(image, RIGHT, face_index=1)]
    assert [face["chosen"] for face in pipe(PROMPT, people=people, **QUICK).details["faces"]] == [0, 1]


def test_requests_beside_it_are_those_of_lone_requests(pipe, two):
    asked = [
        {"prompt": PROMPT, "people": two, **QUICK, "num_inference_steps": 5},
        {"prompt": PROMPT, "face_image": ASTRONAUT, **QUICK, "num_inference_steps": 6},
        {"prompt": PROMPT, **QUICK, "num_inference_steps": 4},
        {"prompt": PROMPT, "image": Image.open(ASTRONAUT).resize((64, 64)), **QUICK, "num_inference_steps": 8},
    ]
    own = [pixels(pipe(**each)) for each in asked]
    with ThreadPoolExecutor(8) as pool:
        for found, expected in zip(pool.map(lambda each: pixels(pipe(**each)), asked * 2), own * 2, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_streams_and_asyncio_give_the_same(pipe, two, server):
    expected = pixels(pipe(PROMPT, people=two, **QUICK))
    *steps, last = pipe.stream(PROMPT, people=two, **QUICK)
    assert len(steps) >= 2
    np.testing.assert_array_equal(pixels(last), expected)

    async def ask():
        async with await AsyncFaceCLIPPipeline.from_pretrained(server.url) as asking:
            return await asking(PROMPT, people=two, **QUICK)

    np.testing.assert_array_equal(pixels(asyncio.run(ask())), expected)


def test_a_picture_that_came_may_have_people_drawn_into_it(pipe, two):
    image = Image.open(ASTRONAUT).convert("RGB").resize((96, 80))
    mask = Image.new("L", image.size, 0)
    mask.paste(255, (16, 16, 80, 64))
    quick = {**QUICK, "num_inference_steps": 4, "strength": 0.8}
    del quick["height"], quick["width"]
    plain = pixels(pipe(PROMPT, image=image, mask_image=mask, **quick))[0]
    drawn = pixels(pipe(PROMPT, image=image, mask_image=mask, people=two, **quick))[0]
    outside = np.asarray(mask) == 0
    assert drawn.shape == (80, 96, 3) and not np.array_equal(drawn, plain)
    np.testing.assert_array_equal(drawn[outside], plain[outside])
    cropped = pipe(PROMPT, image=image, mask_image=mask, people=two, padding_mask_crop=4, **QUICK | {"num_inference_steps": 4})
    assert np.asarray(cropped.images[0]).shape == (80, 96, 3)
    with pytest.raises(
        InvalidRequestError, match=r"people\[1\]: box: expected a part of what is drawn, got less than a latent"
    ):
        far = [two[0], Person(ASTRONAUT, (0.95, 0.95, 1, 1))]
        pipe(PROMPT, image=image, mask_image=mask, people=far, padding_mask_crop=0, **QUICK)


def test_the_command_draws_people(server, tmp_path, other, capsys):
    path, out = tmp_path / "other.png", tmp_path / "two.png"
    path.write_bytes(other)
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    mask.save(tmp_path / "left.png")
    who = ["--person", f"{ASTRONAUT}@{tmp_path / 'left.png'}", "--person", f"{path}@0.5,0,1,1: a man: in a hat @ sea"]
    size = ["--height", "64", "--width", "64", "--steps", "2", "--seed", "7", "--json"]
    assert main(["generate", "--server", server.url, *who, "--prompt", PROMPT, "-o", str(out), *size]) == 0
    details = json.loads(capsys.readouterr().out)["details"]
    assert details["parameters"]["people"][1]["prompt"] == "a man: in a hat @ sea" and details["people"][0]["mask"] == 0
    assert Image.open(out).size == (64, 64)


@pytest.mark.proof
@pytest.mark.parametrize(
    ("people", "words"),
    [
        ([], "people: expected 1 to 4 people, got 0"),
        ([(LEFT, {})] * 5, "people: expected 1 to 4 people, got 5"),
        ([(LEFT, {}), (None, {})], "people[1]: box: expected box or mask, got neither"),
        ([(LEFT, {}), ((0, 0, 1.2, 1), {})], "people[1]: box: expected fractions of the picture from 0 to 1"),
        ([(LEFT, {}), ((0.5, 0, 0.5, 1), {})], "people[1]: box: expected left < right"),
        ([(LEFT, {}), ((0, 0, float("nan"), 1), {})], "people[1]: box: expected fractions"),
        ([(LEFT, {}), (LEFT, {})], "people[0]: box: expected some place of their own, got one that is shared with people[1]"),
        ([((0, 0, 1, 1), {}), (LEFT, {})], "people[1]: box: expected some place of their own, got one that is shared with people[0]"),
        (
            [((1 / 8, 0, 13 / 64, 0.5), {}), ((13 / 64, 0, 1, 0.5), {}), ((13 / 64, 0, 0.5, 1), {})],
            "people[0]: box: expected some place of their own, got one that is shared with people[1] and people[2] all over",
        ),
        ([(LEFT, {}), ((0.99, 0.99, 1, 1), {})], "people[1]: box: expected a part of what is drawn"),
        ([(LEFT, {}), (RIGHT, {"weight": 3})], "people[1]: weight: expected a value from 0.0 to 2.0, got 3"),
        ([(LEFT, {}), (RIGHT, {"prompt": "()"})], "people[1]: prompt: a text is required"),
        ([(LEFT, {}), (RIGHT, {"mask": Image.new("L", (64, 64), 255)})], "people[1]: box: expected box or mask, got both"),
        ([(LEFT, {}), (None, {"mask": Image.new("L", (32, 64), 255)})], "people_masks[0]: expected the size of the picture, 64 x 64"),
        ([(LEFT, {}), (None, {"mask": Image.new("L", (64, 64), 0)})], "people_masks[0]: expected white where people[1] is"),
        ([(LEFT, {}), (None, {"mask": Image.new("RGB", (64, 64), "red")})], "people_masks[0]: expected"),
    ],
)  # fmt: skip
def test_what_is_no_place_is_refused_in_words_and_neighbours_are_unchanged(pipe, people, words):
    good = {"prompt": PROMPT, "face_image": ASTRONAUT, **QUICK, "num_inference_steps": 4}
    asked = [Person(ASTRONAUT, box, **more) for box, more in people]
    with ThreadPoolExecutor(2) as pool:
        beside = pool.submit(lambda: pixels(pipe(**good)))
        with pytest.raises(InvalidRequestError) as error:
            pipe(PROMPT, people=asked, **QUICK)
        np.testing.assert_array_equal(beside.result(), pixels(pipe(**good)))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"people": "nobody"}, "people: expected JSON, got text that is not"),
        ({"people": "[" * 50_000}, "people: expected a JSON list of objects, got one nested too deeply"),
        ({"people": '[{"box": [0, 0, 1, 1]}]'}, "people[0]: faces: expected faces or identity, got neither"),
        ({"people": '[{"faces": [1], "box": [0, 0, 1, 1]}]'}, "people[0]: faces: expected a number below 1, of face_images"),
        ({"people": '[{"identity": 0, "box": [0, 0, 1, 1]}]'}, "people[0]: identity: expected a number below 0, of identity"),
        ({"people": '[{"faces": [0], "mask": 0}]'}, "people[0]: mask: expected a number below 0, of people_masks"),
        ({"people_masks": [Image.new("L", (64, 64), 255)]}, "people_masks: expected none where people does not say whose"),
    ],
)
def test_json_that_is_none_is_refused_in_words(pipe, values, words):
    with pytest.raises(InvalidRequestError) as error:
        pipe(PROMPT, face_image=ASTRONAUT, **values, **QUICK)
    assert words in str(error.value)


def test_the_client_says_where_photographs_of_people_belong(pipe, two):
    for name in ("face_image", "face_images", "identity"):
        with pytest.raises(TypeError, match=f"{name}: give it to a Person"):
            pipe(PROMPT, people=two, **{name: ASTRONAUT})
    for people in (two[0], [{"box": LEFT}]):
        with pytest.raises(TypeError, match="people: expected a list of Person"):
            pipe(PROMPT, people=people)
