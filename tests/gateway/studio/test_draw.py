"""The way of a visitor, on a desktop and on a phone: from a photograph to a picture in a file that still bears its marks."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from faceclip_serving.contract.variants.sdxl import NANO

from .conftest import PROMPT, add_photos, draw, photo, press_draw, wait_drawn

LISTEN = """() => {
  window.said = [];
  const told = document.querySelector('[role=status]');
  new MutationObserver(() => window.said.push(told.textContent)).observe(told, {childList: true, characterData: true, subtree: true});
}"""
"""Keeps what a screen reader is told."""


GROWING = """() => {
  window.grown = [];
  new MutationObserver(() => {
    const [preview, steps] = ['img', 'progress'].map((each) => document.querySelector(`.stage-wait ${each}`));
    if (preview && steps) window.grown.push([preview.src, steps.max]);
  }).observe(document.body, {childList: true, subtree: true, attributes: true});
}"""
"""Keeps the rough pictures that were shown, and of how many steps: a quick machine is done before a test has looked."""


def newest(gateway):
    """The files of the last picture that was drawn, as the gateway keeps them."""
    job = next(job for job in gateway.http.get("/v1/jobs").json()["data"] if job["status"] == "completed")
    return [gateway.http.get(each["url"]).content for each in job["result"]["data"]]


def fill(page, *photos, steps=None):
    if photos:
        add_photos(page, *photos)
        page.locator(".tick input").check()
    page.fill("#prompt", PROMPT)
    if steps:
        page.locator("#slide-num_inference_steps").fill(str(steps))


@pytest.mark.proof
def test_a_photograph_a_picture_its_download_and_its_marks(visitor, gateway, size, tmp_path):
    page = visitor(**size).open()
    add_photos(page, photo(3))
    expect(page.locator(".photo.seen canvas.crop")).to_be_visible()
    crop = page.locator("canvas.crop").evaluate("each => [...each.getContext('2d').getImageData(0, 0, 224, 224).data]")
    assert len(set(crop[::4])) > 20  # something is drawn in it
    press_draw(page)
    expect(page.locator("#go-why")).to_have_text("Describe the picture first.")
    page.fill("#prompt", PROMPT)
    expect(page.locator("#go-why")).to_have_text("Confirm the consent for the pictures first.")
    press_draw(page)
    assert page.locator(".contact, .stage-wait").count() == 0
    page.locator(".tick input").check()
    page.locator("#slide-num_inference_steps").fill("40")
    page.evaluate(GROWING)
    sent = draw(page)
    wait_drawn(page)
    grown = page.evaluate("window.grown")
    assert {most for _, most in grown} == {40} and all(preview.startswith("data:image/png;base64,") for preview, _ in grown)
    assert len({preview for preview, _ in grown}) > 1, "the picture grows"
    assert sent["num_inference_steps"] == 40 and len(sent["face_images"]) == 1
    with page.expect_download() as got:
        page.get_by_role("link", name="Download").click()
    file = tmp_path / got.value.suggested_filename
    got.value.save_as(file)
    seed = page.locator(".facts dd").first.inner_text()
    assert file.name == f"faceclip-{seed}.png"
    assert file.read_bytes() == newest(gateway)[0]
    report = gateway.http.post("/v1/verify", files={"picture": file.read_bytes()}).json()
    assert report["credentials"]["state"] == "trusted" and report["mark"]["state"] == "found"
    page.get_by_role("button", name="Verify").click()
    expect(page.locator(".conclusion.good")).to_be_visible()
    expect(page.locator(".technique.good")).to_have_count(3)
    page.locator("nav a").first.click()
    expect(page.locator(".drawn")).to_be_visible()  # what was drawn is still there


@pytest.mark.proof
def test_a_picture_is_cancelled_and_the_next_one_is_drawn(visitor, gateway, size):
    page = visitor(**size).open()
    fill(page, steps=200)
    page.locator("input[name=count][value='4']").check()
    draw(page)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".ended")).to_contain_text("Cancelled")
    newest = gateway.http.get("/v1/jobs").json()["data"][0]
    assert newest["status"] == "cancelled"
    page.locator("#slide-num_inference_steps").fill("4")
    page.locator("input[name=count][value='1']").check()
    draw(page)
    wait_drawn(page)
    expect(page.locator(".contact")).to_have_count(2)


def test_what_is_cancelled_while_it_is_sent_is_not_drawn(visitor, gateway):
    page = visitor().open()
    fill(page, steps=200)
    held = []
    page.route("**/v1/jobs", lambda route: held.append(route))  # playwright takes no method of a list
    draw(page)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".stage-bar")).to_contain_text("Stopping")
    answer = held[0].fetch()  # the gateway has it
    assert answer.status == 202
    held[0].fulfill(response=answer)
    expect(page.locator(".ended")).to_contain_text("Cancelled")
    assert gateway.http.get(f"/v1/jobs/{answer.json()['id']}").json()["status"] == "cancelled"


@pytest.mark.proof
def test_several_pictures_their_seeds_and_the_same_again(visitor, gateway):
    page = visitor().open()
    fill(page, steps=4)
    page.fill("#seed", "41")
    page.locator("input[name=count][value='3']").check()
    draw(page)
    wait_drawn(page)
    expect(page.locator(".contact-told")).to_have_text([re.compile(rf"\b{seed}\b") for seed in (41, 42, 43)])
    first = newest(gateway)[0]
    page.locator(".contact").nth(2).click()
    expect(page.locator(".facts dd").first).to_have_text("43")
    page.fill("#prompt", "another")
    page.locator(".contact").nth(0).click()
    page.get_by_role("button", name="These settings").click()
    expect(page.locator("#prompt")).to_have_value(PROMPT)
    expect(page.locator("#seed")).to_have_value("41")
    page.locator("input[name=count][value='1']").check()
    draw(page)
    expect(page.locator(".contact")).to_have_count(4)
    wait_drawn(page)
    again = newest(gateway)[0]
    pixels = [np.asarray(Image.open(io.BytesIO(each)).convert("RGB")).astype(float) for each in (first, again)]
    assert np.abs(pixels[0] - pixels[1]).mean() < 4  # the invisible mark is each picture's own


@pytest.mark.proof
def test_a_picture_is_the_next_ones_input_with_a_painted_mask(visitor, size):
    page = visitor(**size).open()
    fill(page, steps=8)
    page.fill("#seed", "41")  # one in whose picture the detector finds the face
    draw(page)
    wait_drawn(page)
    page.get_by_role("button", name="Paint a mask").first.click()
    sheet = page.locator(".paint canvas")
    expect(sheet).to_be_visible()
    box = sheet.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] * 0.5, steps=5)
    page.mouse.up()
    page.get_by_role("button", name="Use this mask").click()
    expect(page.locator(".input-mask")).to_be_visible()
    expect(page.locator("input[name=mask][value=painted]")).to_be_checked()
    page.locator(".tick input").check()
    sent = draw(page)
    expect(page.locator(".contact")).to_have_count(2)
    wait_drawn(page)
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(sent["mask"]))).convert("RGB"))
    assert mask.shape == (128, 128, 3)
    assert mask[64, 64].tolist() == [255, 255, 255] and mask[8, 64].tolist() == [0, 0, 0]
    page.locator("input[name=mask][value=face]").check()
    assert draw(page)["mask"] == "face"
    expect(page.locator(".contact")).to_have_count(3)
    wait_drawn(page)
    page.locator(".input-acts").get_by_role("button", name="Remove").click()
    page.locator(".contact").nth(1).click()
    page.get_by_role("button", name="These settings").click()
    expect(page.locator(".input-mask")).to_be_visible()
    again = draw(page)
    assert {**again, "seed": None} == {**sent, "seed": None}


@pytest.mark.proof
def test_several_people_each_in_a_place_of_their_own(visitor):
    page = visitor().open()
    add_photos(page, photo(1), photo(2))
    page.locator("input[name=together][value=several]").check()
    page.locator(".tick input").check()
    page.fill("#prompt", "Two people on a beach.")
    second = page.locator(".person-move").nth(1)
    second.focus()
    for _ in range(5):
        page.keyboard.press("Shift+ArrowUp")
    page.locator(".together input").nth(1).fill("a man in a green hoodie")
    page.locator("#slide-num_inference_steps").fill("4")
    people = draw(page)["people"]
    wait_drawn(page)
    assert [person["faces"] for person in people] == [[0], [1]]
    assert people[0]["box"] == [0, 0, 0.5, 1] and people[1]["box"] == pytest.approx([0.5, 0, 1, 0.9])
    assert "prompt" not in people[0] and people[1]["prompt"] == "a man in a green hoodie"


def test_a_face_of_several_is_chosen(visitor):
    page = visitor().open()
    fill(page, photo(1, 2), steps=4)
    faces = page.locator(".face-box")
    expect(faces).to_have_count(2)
    faces.nth(1).click()
    expect(faces.nth(1)).to_have_attribute("aria-pressed", "true")
    assert draw(page)["face_index"] == [1]
    wait_drawn(page)


def test_sliders_say_what_is_sent_and_what_is_not_moved_is_the_servers(visitor):
    page = visitor().open()
    fill(page, photo(3))
    assert (
        not {"id_guidance_scale", "text_guidance_scale", "blend_weight", "num_inference_steps", "seed", "size"}
        & draw(page).keys()
    )
    of_text = float(page.locator("#slide-text_guidance_scale").input_value())
    assert of_text == NANO.defaults.guidance_scale
    page.locator("#slide-id_guidance_scale").fill("3.5")
    page.locator("#slide-blend_weight").fill("0.5")
    page.locator("#slide-num_inference_steps").fill("5")
    sent = draw(page)
    assert {name: sent[name] for name in ("id_guidance_scale", "text_guidance_scale", "blend_weight", "num_inference_steps")} == {
        "id_guidance_scale": 3.5, "text_guidance_scale": of_text, "blend_weight": 0.5, "num_inference_steps": 5,
    }  # fmt: skip


@pytest.mark.proof
def test_a_recipe_with_its_choices_fills_the_form(visitor, gateway):
    recipes = {each["name"]: each for each in gateway.http.get("/v1/recipes").json()["data"]}
    page = visitor().open()
    cards = page.locator(".recipe-card")
    expect(cards).to_have_count(len(recipes))
    tried = sum("nano" in each["tried"] for each in recipes.values())
    assert [cards.nth(i).locator(".untried").count() for i in range(len(recipes))] == [0] * tried + [1] * (len(recipes) - tried)
    add_photos(page, photo(3))
    page.locator(".tick input").check()
    page.get_by_role("button", name="Travel").click()
    place = page.locator(".recipe-choices select").first
    choice = recipes["travel"]["choices"][0]
    place.select_option(choice["options"][-1]["name"])
    filled = gateway.http.post("/v1/recipes/travel", json={"choices": {choice["name"]: choice["options"][-1]["name"]}}).json()[
        "options"
    ]
    expect(page.locator("#prompt")).to_have_value(filled.pop("prompt"))
    sent = draw(page)
    wait_drawn(page)
    assert {name: sent[name] for name in filled} == filled


def test_a_recipe_that_changes_a_picture_takes_the_photograph_until_there_is_another(visitor, gateway):
    recipes = gateway.http.get("/v1/recipes").json()["data"]
    recipe = next(each for each in recipes if "picture" in each["needs"] and each["parameters"].get("mask"))
    page = visitor().open()
    page.get_by_role("button", name=recipe["title"]["en"]).click()
    expect(page.locator("#go-why")).to_have_text("This recipe is of a person: add a photograph first.")
    file = photo(3)
    add_photos(page, file)
    expect(page.locator(".input-picture img")).to_be_visible()
    page.locator(".tick input").check()
    page.locator("#slide-num_inference_steps").fill("4")
    sent = draw(page)
    assert base64.b64decode(sent["image"]) == file["buffer"] and sent["mask"] == recipe["parameters"]["mask"]
    wait_drawn(page)
    page.get_by_role("button", name="Travel").click()
    expect(page.locator(".input-picture")).to_have_count(0)


@pytest.mark.proof
def test_a_chinese_prompt_is_shown_in_english_which_may_be_changed(visitor):
    page = visitor(locale="zh-CN").open()
    page.fill("#prompt", "穿红色西装的女人，在海滩上。")
    english = page.locator(".english textarea")
    expect(english).to_have_value(re.compile("red suit.*beach"))  # the first time a dictionary is read
    page.locator("#slide-num_inference_steps").fill("4")
    sent = draw(page)
    assert (sent["prompt"], sent.get("original_prompt")) == ("穿红色西装的女人，在海滩上。", None)
    wait_drawn(page)
    expect(page.locator(".drawn .prompt")).to_contain_text("red suit")
    english.fill("a woman in a green hoodie, on a beach")
    sent = draw(page)
    assert (sent["prompt"], sent["original_prompt"]) == (
        "a woman in a green hoodie, on a beach",
        "穿红色西装的女人，在海滩上。",
    )
    wait_drawn(page)
    page.fill("#prompt", "plain English")
    expect(english).to_have_count(0)
    with page.expect_request("**/v1/prompts/translate"):
        page.fill("#prompt", "海滩")  # what is asked meanwhile is not taken for the one that is brought back
    page.get_by_role("button", name="使用这些设置").click()
    expect(english).to_have_value("a woman in a green hoodie, on a beach")
    again = draw(page)
    assert (again["prompt"], again["original_prompt"]) == (sent["prompt"], sent["original_prompt"])


@pytest.mark.proof
def test_by_keys_alone(visitor):
    """Tab, arrows, space and Enter: to the prompt, a picture, the mask, the marks."""
    page = visitor().open()

    def to(selector):
        for _ in range(120):
            page.keyboard.press("Tab")
            if page.evaluate("query => document.activeElement.matches(query)", selector):
                return
        pytest.fail(f"{selector} is not reached by the tabulator")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    to("#prompt")
    page.keyboard.type(PROMPT)
    to("#slide-num_inference_steps")
    page.keyboard.press("Home")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#slide-num_inference_steps")).to_have_value("5")
    to(".go button")
    page.keyboard.press("Enter")
    wait_drawn(page)
    to(".acts button:nth-of-type(2)")
    page.keyboard.press("Enter")
    to(".paint canvas")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    to(".paint-tools .primary")
    page.keyboard.press("Enter")
    expect(page.locator(".input-mask")).to_be_visible()
    to(".acts button:nth-of-type(4)")
    page.keyboard.press("Enter")
    expect(page.locator(".conclusion.good")).to_be_visible()


def test_a_screen_reader_is_told_of_the_beginning_and_the_end(visitor):
    page = visitor().open()
    page.evaluate(LISTEN)
    fill(page, steps=4)
    draw(page)
    wait_drawn(page)
    assert json.loads(page.evaluate("JSON.stringify(window.said)"))[-2:] == ["The picture is being drawn.", "Done. Pictures: 1"]
