"""Pictures that are changed, by a real server: diffusers' own pictures, pixels that stay, and what is refused."""

import base64
import io
import json
import urllib.request

import numpy as np
import pytest
from PIL import Image

from benchmarks.measure.example import PHOTO
from benchmarks.measure.oracle import load_oracle
from benchmarks.measure.pictures import decoded, png
from benchmarks.quality.parity import disc, edits_of
from faceclip import InvalidRequestError, Progress
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.face.masks import WHITE, seam_of

ASTRONAUT = np.asarray(Image.open(PHOTO).convert("RGB"))
STEPS = {"num_inference_steps": 4, "seed": 3}


@pytest.mark.proof
def test_served_pictures_are_those_of_diffusers_own_pipelines(server, pipe):
    def draw(prompt, **options):
        return decoded(pipe(prompt, output_type="bytes", **options).images[0])

    found = edits_of(load_oracle(TINY_SDXL), server.repository / "prepare" / "1", draw, strengths=(0.75,))
    assert len(found["cases"]) == 8 and found["psnr_db_min"] >= 45


@pytest.mark.proof
@pytest.mark.parametrize("size", [(200, 333), (64, 64), (2000, 300), (50, 70)])
def test_a_picture_comes_back_in_its_own_size_and_outside_the_mask_as_it_was(pipe, size):
    pixels = np.asarray(Image.fromarray(ASTRONAUT).resize(size[::-1]))
    mask = disc(*size)
    result = pipe("a castle", image=pixels, mask_image=mask, strength=0.6, **STEPS)
    found, inside = np.asarray(result.images[0]), mask >= WHITE
    assert found.shape == pixels.shape
    np.testing.assert_array_equal(found[~inside], pixels[~inside])
    assert np.abs(found[seam_of(inside) == 255].astype(int) - pixels[seam_of(inside) == 255]).mean() > 5
    whole = np.asarray(pipe("a castle", image=pixels, strength=0.6, **STEPS).images[0])
    assert whole.shape == pixels.shape


def test_a_face_is_found_and_only_there_is_drawn_also_at_full_size_and_step_by_step(pipe):
    *steps, result = pipe.stream("a clown", image=PHOTO, mask="face", strength=0.8, padding_mask_crop=16, **STEPS)
    assert [(step.step, step.total) for step in steps if isinstance(step, Progress)][-1] == (3, 3)
    edit = result.details["edit"]
    left, top, right, bottom = (round(512 * each) for each in edit["face"])
    assert 150 < left < right < 320 and 40 < top < bottom < 210
    changed = (np.asarray(result.images[0]) != ASTRONAUT).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert changed.sum() > 0.5 * (right - left) * (bottom - top)
    assert left - 40 < columns.min() and columns.max() < right + 40 and top - 40 < rows.min() and rows.max() < bottom + 40
    box = edit["frame"]["box"]
    assert box[0] <= columns.min() and box[1] <= rows.min() and columns.max() < box[2] and rows.max() < box[3]
    assert (edit["frame"]["height"], edit["frame"]["width"]) == (192, 128)
    assert result.details["parameters"]["strength"] == pytest.approx(0.8)
    same = pipe("a clown", image=PHOTO, mask="face", strength=0.8, padding_mask_crop=16, face_box=edit["face"], **STEPS)
    np.testing.assert_array_equal(np.asarray(same.images[0]), np.asarray(result.images[0]))


def test_several_pictures_of_one_request_are_those_of_consecutive_seeds(pipe):
    image = Image.fromarray(ASTRONAUT).resize((96, 96))
    three = pipe("a castle", image=image, strength=0.8, num_images_per_prompt=3, scheduler="euler_a", **STEPS)
    alone = pipe("a castle", image=image, strength=0.8, scheduler="euler_a", **{**STEPS, "seed": 5})
    difference = np.abs(np.asarray(three.images[2], int) - np.asarray(alone.images[0]))
    assert difference.max() <= 2, "the same noise, batched otherwise"


SMALL = np.asarray(Image.fromarray(ASTRONAUT).resize((64, 64)))
GREEN = np.zeros((64, 64, 3), np.uint8) + np.array([0, 200, 0], np.uint8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask_image": disc(64, 64)}, "mask_image: expected an image that it is of, got none; send image"),
        ({"mask": "face"}, "mask: expected an image that it is of, got none; send image"),
        ({"image": SMALL, "mask": "face", "mask_image": disc(64, 64)}, "mask: expected none where mask_image comes"),
        ({"image": SMALL, "mask": "hair"}, "mask: expected one of none, face, head, got 'hair'"),
        ({"image": SMALL, "mask_image": disc(64, 72)}, "mask_image: expected the size of image, 64 x 64 pixels, got 72 x 64"),
        ({"image": SMALL, "mask_image": 0 * disc(64, 64)}, "mask_image: expected white where image is to be drawn anew"),
        ({"image": SMALL, "mask_image": GREEN}, "mask_image: expected black and white, got colours"),
        ({"image": SMALL, "mask_image": b"no picture"}, "mask_image: expected a photograph"),
        ({"image": b"no picture"}, "image: expected a photograph"),
        ({"image": png(ASTRONAUT)[:500]}, "image: the photograph of 500 bytes is damaged"),
        ({"image": SMALL, "strength": 0.0}, "strength: expected one of 4 num_inference_steps at least, got 0 of them"),
        ({"image": SMALL, "strength": 0.2}, "strength: expected one of 4 num_inference_steps at least, got 0.2 of them"),
        ({"image": SMALL, "strength": 1.5}, "strength: expected a value from 0.0 to 1.0, got 1.5"),
        ({"image": SMALL, "strength": float("nan")}, "strength: expected a value from 0.0 to 1.0, got nan"),
        ({"image": np.zeros((64, 64, 3), np.uint8), "mask": "head"}, "mask: no face was found in the 64 x 64 pixels of image"),
        ({"image": PHOTO, "mask": "face", "face_box": (0.8, 0.8, 1.0, 1.0)}, "face_box: expected a box about a face of image"),
        ({"image": PHOTO, "mask": "face", "face_box": (0, 0, 300, 300)}, "face_box: expected fractions of the picture from 0 to 1"),
        ({"image": PHOTO, "mask": "face", "face_box": (0.5, 0.1, 0.4, 0.2)}, "face_box: expected left < right and top < bottom"),
        ({"image": SMALL, "mask_image": disc(64, 64), "padding_mask_crop": -1}, "padding_mask_crop: expected a value from 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_in_words_and_a_neighbour_gets_its_picture(pipe, options, words):
    with pytest.raises(InvalidRequestError) as refused:
        pipe("a castle", **{**STEPS, **options})
    assert words in str(refused.value)


def test_neighbours_of_edits_and_of_what_is_refused_are_unchanged(pipe):
    from concurrent.futures import ThreadPoolExecutor

    text = {"height": 64, "width": 64, "num_inference_steps": 12, "seed": 1}
    edits = [
        {"image": SMALL, "strength": 0.9, **STEPS},
        {"image": SMALL, "mask_image": disc(64, 64), **STEPS},
        {"image": SMALL, "mask_image": disc(64, 72), **STEPS},
    ]
    alone = np.asarray(pipe("a castle", **text).images[0], int)

    def asked(options):
        try:
            return pipe("a castle", **options)
        except InvalidRequestError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(asked, [text, *edits, text, *edits]))
    for result in (results[0], results[4]):
        assert np.abs(np.asarray(result.images[0], int) - alone).max() <= 2
    assert isinstance(results[3], InvalidRequestError) and isinstance(results[7], InvalidRequestError)
    for i in (1, 2):
        assert np.abs(np.asarray(results[i].images[0], int) - np.asarray(results[i + 4].images[0])).max() <= 2


def test_what_has_no_effect_is_told(pipe):
    told = pipe("a castle", strength=0.5, padding_mask_crop=8, face_box=(0, 0, 1, 1), **STEPS).warnings
    assert {warning.partition(":")[0] for warning in told} >= {"strength", "padding_mask_crop", "face_box"}
    told = pipe("a castle", image=SMALL, mask_image=np.full((64, 64), 255, np.uint8), strength=0.9, **STEPS)
    assert told.warnings == [] and np.asarray(told.images[0]).shape == (64, 64, 3)


def test_json_carries_pictures_as_base64_and_a_box_as_a_list(server):
    asked = {
        "prompt": "a castle", "image": base64.b64encode(PHOTO.read_bytes()).decode(), "mask": "head", "strength": 0.9,
        "face_box": [0.2, 0.0, 0.7, 0.5], **STEPS,
    }  # fmt: skip
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.ports.http}/v2/models/faceclip/generate", json.dumps(asked).encode()
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        told = json.load(response)
    found = decoded(base64.b64decode(told["images"]))
    assert found.shape == ASTRONAUT.shape and 0.01 < (found != ASTRONAUT).any(axis=2).mean() < 0.1


def test_a_picture_on_its_side_comes_back_upright(pipe):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(np.rot90(SMALL[:, :48])).save(file, "PNG", exif=exif)
    mask = disc(64, 48)
    found = np.asarray(pipe("a castle", image=file.getvalue(), mask_image=mask, **STEPS).images[0])
    np.testing.assert_array_equal(found[mask < WHITE], SMALL[:, :48][mask < WHITE])
