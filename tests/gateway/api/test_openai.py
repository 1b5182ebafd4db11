"""OpenAI's own package is the caller: what it sends is understood, what it reads is there."""

import asyncio
import base64
import io

import httpx
import openai
import pytest
from PIL import Image

from tests.gateway.running import ROOT

STEPS = {"num_inference_steps": 4, "seed": 5, "height": 64, "width": 64}
PORTRAIT = ROOT / "examples" / "portrait.png"


def picture(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_a_picture_of_a_prompt(client):
    answer = client.images.generate(prompt="a castle", size="64x128", extra_body={"num_inference_steps": 2, "seed": 7})
    assert picture(answer.data[0].b64_json).size == (64, 128)
    assert (answer.size, answer.output_format, answer.data[0].url) == ("64x128", "png", None)
    assert answer.data[0].seed == 7
    assert answer.details["warnings"] == []


@pytest.mark.parametrize("format, kind", [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_several_in_every_format(client, format, kind):
    answer = client.images.generate(prompt="a castle", n=2, output_format=format, extra_body=STEPS)
    assert [picture(each.b64_json).format for each in answer.data] == [kind, kind]
    assert [each.seed for each in answer.data] == [5, 6]


def test_a_seed_repeats_a_picture_whoever_asks(client, gate):
    first = client.images.generate(prompt="a castle", extra_body=STEPS).data[0].b64_json
    assert gate.http.post("/v1/images/generations", json={"prompt": "a castle", **STEPS}).json()["data"][0]["b64_json"] == first
    form = {name: (None, str(value)) for name, value in {"prompt": "a castle", **STEPS}.items()}
    assert gate.http.post("/v1/images/generations", files=form).json()["data"][0]["b64_json"] == first


def test_photographs_of_the_person(client, gate):
    file = PORTRAIT.read_bytes()
    edited = client.images.edit(image=PORTRAIT, prompt="a castle", extra_body=STEPS | {"face_aligned": True})
    several = client.images.edit(image=[file, file], prompt="a castle", extra_body=STEPS | {"face_aligned": True})
    url = f"data:image/png;base64,{base64.b64encode(file).decode()}"
    body = {"prompt": "a castle", "face_images": [url], "face_aligned": True, **STEPS}
    as_json = gate.http.post("/v1/images/generations", json=body).json()
    without = client.images.generate(prompt="a castle", extra_body=STEPS)
    assert len(edited.details["faces"]) == 1 and len(several.details["faces"]) == 2
    assert edited.data[0].b64_json == as_json["data"][0]["b64_json"] != without.data[0].b64_json


def png(mode, size, fill, hole=None):
    made = Image.new(mode, size, fill)
    if hole is not None:
        made.paste(hole, (16, 16, 48, 48))
    file = io.BytesIO()
    made.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "mask", [png("RGBA", (64, 64), (9, 9, 9, 255), (0, 0, 0, 0)), png("L", (64, 64), 0, 255)], ids=["transparent", "white"]
)
def test_a_mask_makes_the_first_picture_the_one_to_change(client, mask):
    before = png("RGB", (64, 64), (200, 30, 30))
    answer = client.images.edit(image=before, mask=mask, prompt="a castle", extra_body={"num_inference_steps": 2, "seed": 1})
    after = picture(answer.data[0].b64_json).convert("RGB")
    assert after.size == (64, 64)
    corner, middle = after.getpixel((2, 2)), after.getpixel((32, 32))
    assert max(abs(a - b) for a, b in zip(corner, (200, 30, 30), strict=True)) <= 12, "outside the mask nothing changes"
    assert middle != corner


def test_a_transparent_mask_is_the_same_in_a_form_and_in_json_with_and_without_line_breaks(gate):
    before, mask = png("RGB", (64, 64), (200, 30, 30)), png("RGBA", (64, 64), (9, 9, 9, 255), (0, 0, 0, 0))
    fields = {"prompt": "a castle", "num_inference_steps": 2, "seed": 1}
    form = {"image": ("a.png", before), "mask": ("m.png", mask)}
    answers = [gate.http.post("/v1/images/edits", data=fields, files=form)]
    for encoded in (base64.b64encode, base64.encodebytes):
        body = {**fields, "image": encoded(before).decode(), "mask": encoded(mask).decode()}
        answers.append(gate.http.post("/v1/images/edits", json=body))
        body["mask"] = f"data:image/png;base64,{body['mask']}"
        answers.append(gate.http.post("/v1/images/edits", json=body))
    assert [answer.status_code for answer in answers] == [200] * 5, [answer.text[:300] for answer in answers]
    assert len({answer.json()["data"][0]["b64_json"] for answer in answers}) == 1


@pytest.mark.proof
@pytest.mark.parametrize("mask", ["face", "head", "FACE"])
def test_a_named_mask_makes_the_first_picture_the_one_to_change(gate, mask):
    fields = {"prompt": "a castle", "num_inference_steps": 2, "seed": 1, "mask": mask}
    answers = [
        gate.http.post("/v1/images/edits", data=fields, files={name: ("a.png", PORTRAIT.read_bytes())})
        for name in ("image", "picture")
    ]
    assert [answer.status_code for answer in answers] == [200] * 2, [answer.text[:300] for answer in answers]
    assert len({answer.json()["data"][0]["b64_json"] for answer in answers}) == 1


def test_without_a_mask_an_image_stays_a_photograph(gate):
    fields = {"prompt": "a castle", **STEPS, "mask": "none"}
    answer = gate.http.post("/v1/images/edits", data=fields, files={"image": ("a.png", PORTRAIT.read_bytes())})
    assert len(answer.json()["details"]["faces"]) == 1


def test_a_stream_says_that_it_has_no_links(client):
    events = list(client.images.generate(prompt="a castle", stream=True, response_format="url", extra_body=STEPS))
    assert events[-1].b64_json and events[-1].details["warnings"] == ["response_format: has no effect here"]
    events = list(client.images.generate(prompt="a castle", stream=True, response_format="b64_json", extra_body=STEPS))
    assert events[-1].details["warnings"] == []


def test_an_edit_without_a_picture_says_what_is_missing(gate):
    answer = gate.http.post("/v1/images/edits", json={"prompt": "a castle"})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "image"


@pytest.mark.parametrize("partial_images", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["image_generation", "image_edit"])
def test_a_stream_shows_the_picture_growing(client, kind, partial_images):
    if kind == "image_edit":
        more = {"extra_body": STEPS | {"face_aligned": True}, "partial_images": partial_images, "stream": True}
        stream = client.images.edit(image=PORTRAIT.read_bytes(), prompt="a castle", **more)
    else:
        stream = client.images.generate(prompt="a castle", partial_images=partial_images, stream=True, extra_body=STEPS)
    events = list(stream)
    assert [event.type for event in events] == [*[f"{kind}.partial_image"] * partial_images, f"{kind}.completed"]
    assert [event.partial_image_index for event in events[:-1]] == list(range(partial_images))
    assert all(picture(event.b64_json).size == tuple(map(int, event.size.split("x"))) for event in events)
    assert events[-1].seed == 5


def test_asyncio(gate):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key="none", max_retries=0) as client:
            answers = await asyncio.gather(*(client.images.generate(prompt="a castle", extra_body=STEPS) for _ in range(3)))
            stream = await client.images.generate(prompt="a castle", stream=True, partial_images=1, extra_body=STEPS)
            return [each.data[0].b64_json for each in answers], [event async for event in stream]

    pictures, events = asyncio.run(ask())
    assert len(set(pictures)) == 1
    assert events[-1].b64_json == pictures[0]


def test_models(client):
    names = [model.id for model in client.models.list()]
    assert names == ["faceclip", "tiny-sdxl"]
    assert all(client.models.retrieve(name).id == name for name in names)
    for name in names:
        client.images.generate(prompt="a castle", model=name, extra_body=STEPS)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("dall-e-3")


@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_openais(client, stream):
    with pytest.raises(openai.NotFoundError) as unknown:
        client.images.generate(prompt="a castle", model="dall-e-3", stream=stream)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as wrong:
        client.images.generate(prompt="a castle", stream=stream, extra_body={"num_inference_steps": 100000})
    assert wrong.value.param == "num_inference_steps" and "expected" in wrong.value.message
    assert wrong.value.request_id


def test_a_link_in_the_place_of_the_picture(client):
    answer = client.images.generate(prompt="a castle", response_format="url", n=2, extra_body=STEPS)
    direct = client.images.generate(prompt="a castle", n=2, extra_body=STEPS)
    for linked, whole in zip(answer.data, direct.data, strict=True):
        assert linked.b64_json is None
        fetched = httpx.get(linked.url, trust_env=False)
        assert (fetched.status_code, fetched.headers["content-type"]) == (200, "image/png")
        assert base64.b64encode(fetched.content).decode() == whole.b64_json
        assert httpx.get(linked.url[:-1] + ("0" if linked.url[-1] != "0" else "1"), trust_env=False).status_code == 403
