"""Recipes and prompts in Chinese, through the gateway, before a real server."""

import pytest

from faceclip.recipes import load

STEPS = {"num_inference_steps": 2, "seed": 5, "height": 64, "width": 64}


@pytest.mark.proof
def test_a_chinese_prompt_is_drawn_as_its_english(client):
    chinese = client.images.generate(prompt="一个穿着红色连衣裙的女人站在海边", extra_body=STEPS)
    english = client.images.generate(prompt="a woman wearing a red dress standing by the sea", extra_body=STEPS)
    assert chinese.data[0].b64_json == english.data[0].b64_json
    assert chinese.data[0].revised_prompt == "a woman wearing a red dress standing by the sea"
    assert english.data[0].revised_prompt is None
    told = chinese.details["prompt_language"]
    assert (told["language"], told["original"], told["unknown"]) == ("zh", "一个穿着红色连衣裙的女人站在海边", [])
    off = client.images.generate(prompt="一个穿着红色连衣裙的女人站在海边", extra_body={**STEPS, "prompt_language": "off"})
    assert off.data[0].revised_prompt is None
    assert off.data[0].b64_json != chinese.data[0].b64_json


@pytest.mark.parametrize("prompt", ["把她身上的衣服全部去掉", "割下他的头"])
def test_what_translation_loses_is_refused_by_the_original(client, gate, prompt):
    answer = gate.http.post(
        "/v1/images/generations", json={"prompt": prompt, "face_images": [_portrait()], "face_aligned": True, **STEPS}
    )
    assert answer.status_code in (400, 403, 422), answer.text
    assert answer.json()["error"]["code"].startswith("policy")


def _portrait():
    import base64

    from tests.gateway.running import ROOT

    return base64.b64encode((ROOT / "examples" / "portrait.png").read_bytes()).decode()


def test_a_prompt_is_translated_without_drawing(gate):
    told = gate.http.post("/v1/prompts/translate", json={"prompt": "戴着(红帽子:1.3)的女人，䶮𠮷𠮷"}).json()
    assert told["prompt"].startswith("a woman wearing a (red hat:1.3), ")
    assert (told["language"], told["translated"]) == ("zh", True)
    assert told["unknown"] and told["warnings"]
    assert gate.http.post("/v1/prompts/translate", json={"prompt": "a cat"}).json()["translated"] is False
    assert gate.http.post("/v1/prompts/translate", json={"prompt": "女人", "prompt_language": "en"}).json()["warnings"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 10_001}, "prompt"),
        ({"prompt": "x", "prompt_language": "zh"}, "prompt_language"),
        ({"prompt": 3}, "prompt"),
    ],
)
def test_what_is_no_prompt_is_refused_by_name(gate, body, param):
    answer = gate.http.post("/v1/prompts/translate", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_recipes_are_listed_filled_and_drawn(client, gate):
    listed = gate.http.get("/v1/recipes").json()["data"]
    assert [each["name"] for each in listed] == list(load())
    assert all({"en", "zh"} == each["title"].keys() for each in listed)
    assert gate.http.get("/v1/recipes/travel").json() == next(each for each in listed if each["name"] == "travel")
    assert gate.http.get("/v1/capabilities").json()["features"]["recipes"] is True
    options = gate.http.post("/v1/recipes/travel", json={"choices": {"place": "harbour"}}).json()["options"]
    assert "sailing boats" in options["prompt"]
    answer = gate.http.post(
        "/v1/images/generations", json={**options, "face_images": [_portrait()], "face_aligned": True, **STEPS}
    )
    assert answer.status_code == 200, answer.text


def test_wrong_recipes_and_choices_are_refused(gate):
    assert gate.http.get("/v1/recipes/none").status_code == 404
    answer = gate.http.post("/v1/recipes/travel", json={"choices": {"place": "moon"}})
    assert answer.status_code == 400
    assert "place: recipe 'travel' expects one of beach" in answer.json()["error"]["message"]
