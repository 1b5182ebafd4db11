"""A server that requires records of consent, and one that has several sizes: the page asks for what they need, and draws."""

import json

import pytest
from playwright.sync_api import expect

from export.repository.from_nothing import build_repository
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.variants.sdxl import NANO
from server.process import Ports, TritonServer
from tests.end_to_end.running import command

from ..running import command as gateway_command
from ..running import running
from .conftest import PROMPT, REFUSED, add_photos, draw, photo, press_draw, wait_drawn

SIGNED = (
    "--subject", "S-1042", "--adult", "--scope", "portrait", "--expires", "2099-01-01T00:00:00Z",
    "--confirmed-by", "Studio Nord", "--confirmed-how", "signed form", "--text", "1",
)  # fmt: skip


INPUT = "section[aria-labelledby=title-input] input[type=file]"


@pytest.mark.proof
@pytest.mark.parametrize("mask", ["none", "face", "head", "painted"])
def test_a_picture_to_change_is_of_somebody_who_is_asked_as_well(visitor, mask):
    page = visitor().open()
    page.fill("#prompt", PROMPT)
    page.set_input_files(INPUT, photo(3, side=128))
    if mask == "painted":
        page.get_by_role("button", name="Paint a mask").click()
        page.locator(".paint canvas").click()
        page.get_by_role("button", name="Use this mask").click()
        expect(page.locator(".input-mask")).to_be_visible()
    else:
        page.locator(f"input[name=mask][value={mask}]").check()
    expect(page.locator("#go-why")).to_have_text("Confirm the consent for the pictures first.")
    press_draw(page)
    assert page.locator(".contact, .stage-wait").count() == 0
    page.locator(".tick input").check()
    assert "image" in draw(page)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def requiring(opened, keys, tmp_path_factory):
    """A gateway before such a server."""
    folder = tmp_path_factory.mktemp("requiring")
    settings = [f"marks_folder={keys}", "consent=require"]
    with TritonServer(build_repository(NANO, CPU), Ports.free(), log=folder / "log", settings=settings) as server:
        server.wait_ready()
        with running(server.url, folder) as started:
            yield started
        server.stop(0)


@pytest.fixture
def record_of(keys, tmp_path):
    """record_of(photographs): the file of a record that names them, as the page's chooser takes it."""

    def signed(*photos):
        paths = [tmp_path / f"{i}.png" for i in range(len(photos))]
        for path, each in zip(paths, photos, strict=True):
            path.write_bytes(each["buffer"])
        done = command("consent", "sign", *map(str, paths), "--folder", str(keys), *SIGNED)
        assert done.returncode == 0, done.stderr
        return {"name": "consent.json", "mimeType": "application/json", "buffer": done.stdout.encode()}

    return signed


@pytest.mark.proof
def test_nothing_is_drawn_of_somebody_without_a_record_and_with_it_it_is(visitor, requiring, record_of):
    page = visitor(url=requiring.url).open()
    me = photo(3)
    page.fill("#prompt", PROMPT)
    page.locator("#slide-num_inference_steps").fill("4")
    expect(page.locator("#go-why")).to_contain_text("Ctrl")  # of a prompt alone nobody is asked
    add_photos(page, me)
    page.locator(".tick input").check()
    expect(page.locator("#go-why")).to_have_text("Add the signed record of consent first.")
    expect(page.locator("section[aria-labelledby=title-people]")).to_contain_text("python -m server consent sign")
    record = record_of(me)
    page.set_input_files(".record input[type=file]", {**record, "buffer": b"no record"})
    expect(page.locator(".record [role=alert], .record .notice")).to_contain_text("not JSON")
    page.set_input_files(".record input[type=file]", record)
    sent = draw(page)
    assert json.loads(sent["consent"])["subject"] == "S-1042"
    wait_drawn(page)


def test_the_record_of_another_photograph_is_refused_in_the_servers_words(visitor, requiring, record_of):
    page = visitor(url=requiring.url).open()
    add_photos(page, photo(3))
    page.locator(".tick input").check()
    page.fill("#prompt", PROMPT)
    page.set_input_files(".record input[type=file]", record_of(photo(4)))
    draw(page)
    expect(page.locator(".ended [role=alert]")).to_contain_text("is for 1 other photograph")


@pytest.mark.proof
def test_each_of_several_people_may_have_a_record_of_their_own(visitor, requiring, record_of):
    page = visitor(url=requiring.url).open()
    one, other = photo(3, name="one.png"), photo(2, name="other.png")
    add_photos(page, one, other)
    page.locator("input[name=together][value=several]").check()
    page.locator(".tick input").check()
    page.fill("#prompt", PROMPT)
    page.locator("#slide-num_inference_steps").fill("4")
    for i, each in enumerate((one, other)):
        expect(page.locator("#go-why")).to_have_text("Add the signed record of consent first.")
        page.locator(".photo").nth(i).locator(".record input[type=file]").set_input_files(record_of(each))
    sent = draw(page)
    assert [each["consent"]["subject"] for each in sent["people"]] == ["S-1042"] * 2 and "consent" not in sent
    wait_drawn(page)


@pytest.mark.proof
def test_a_picture_to_change_needs_one_too(visitor, requiring, record_of):
    page = visitor(url=requiring.url).open()
    me = photo(3, side=128)
    page.set_input_files(INPUT, me)
    page.locator(".tick input").check()
    page.fill("#prompt", PROMPT)
    expect(page.locator("#go-why")).to_have_text("Add the signed record of consent first.")
    page.set_input_files(".record input[type=file]", record_of(me))
    draw(page)
    wait_drawn(page)


@pytest.mark.proof
@pytest.mark.parametrize("most", [None, 144])
def test_sizes_are_those_of_the_model_and_of_the_key(visitor, server, tmp_path, most):
    """Of tiny-sdxl, whose sizes are 64 to 1344: for whoever has a key, up to 144 pixels."""
    with running(server.url, tmp_path) as gateway:
        seen = visitor(url=gateway.url, expected=None if most is None else REFUSED)
        if most is None:
            page = seen.open()
        else:
            made = gateway_command("keys", "add", "anna", f"--largest-side={most}", f"--data={tmp_path}")
            page = seen.page
            page.goto(gateway.url)
            page.get_by_label("Key").fill(made.stdout.split()[0])
            page.keyboard.press("Enter")
        told = gateway.http.get("/v1/capabilities", headers=headers(page)).json()["models"][0]["parameters"]
        page.fill("#prompt", PROMPT)
        page.locator("#slide-num_inference_steps").fill("1")
        choices = page.locator("input[name=size]")
        sizes = [tuple(map(int, each.get_attribute("value").split("x"))) for each in choices.all()]
        assert len(sizes) >= 4 and len(set(sizes)) == len(sizes)
        for size in sizes:
            for side, name in zip(size, ("width", "height"), strict=True):
                assert told[name]["min"] <= side <= min(told[name]["max"], most or side) and side % told[name]["multiple"] == 0
        first = draw(page)
        default = (told["width"]["default"], told["height"]["default"])
        assert first.get("size") == (None if sizes[0] == default else "x".join(map(str, sizes[0])))
        assert (sizes[0] == default) == (most is None)
        wait_drawn(page)
        page.locator(f"input[name=size][value='{'x'.join(map(str, sizes[-1]))}']").check(force=True)
        assert draw(page)["size"] == "x".join(map(str, sizes[-1]))
        wait_drawn(page)


def headers(page):
    key = page.evaluate("sessionStorage.getItem('key')")
    return {"Authorization": f"Bearer {key}"} if key else {}
