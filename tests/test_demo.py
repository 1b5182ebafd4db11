"""The demo's choices, contact sheet and summary; that it runs is seen by running it (`make demo`)."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples import demo
from export.checkpoint import committed
from faceclip import FaceCLIPOutput
from faceclip_serving.contract.variants.sdxl import NANO, TINY_SDXL


def chosen(variant: str, **given: object) -> demo.Demo:
    nothing = {"photo": None, "aligned": False, "prompt": None, "seed": None}
    return demo.choose(argparse.Namespace(variant=variant, **{**nothing, **given}))


def result(seed: int) -> FaceCLIPOutput:
    details = {"timings_s": {"denoise": 1.0, "total": 2.0}}
    return FaceCLIPOutput([Image.new("RGB", (128, 128))], [seed], details, [], [])


def test_a_variant_shows_what_suits_it_and_obeys_the_command_line() -> None:
    usual = chosen(NANO.name)
    assert usual.aligned and usual.photo.exists() and len(usual.prompts) == 4
    assert Image.open(usual.photo).size == (448, 448)
    assert chosen(TINY_SDXL.name) == demo.PHOTOGRAPH and demo.PHOTOGRAPH.photo.exists()
    own = chosen(NANO.name, photo=Path("me.jpg"), prompt=["on a beach"], seed=0)
    assert (own.photo, own.aligned, own.prompts, own.seed) == (Path("me.jpg"), False, ("on a beach",), 0)


def test_the_sheet_puts_the_reference_first_and_distorts_nothing(tmp_path: Path) -> None:
    photo = tmp_path / "wide.png"
    Image.new("RGB", (400, 200), (200, 10, 10)).save(photo)
    made = demo.contact_sheet(photo, ["a", "b"], [np.full((128, 128, 3), value, np.uint8) for value in (60, 120)])
    red = (made == (200, 10, 10)).all(2)
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    assert (np.ptp(columns) + 1) / (np.ptp(rows) + 1) == pytest.approx(2, abs=0.05)
    assert columns.max() < np.flatnonzero((made == 60).all(2).any(0)).min() < np.flatnonzero((made == 120).all(2).any(0)).min()


def test_the_summary_keeps_its_keys() -> None:
    asked = chosen(NANO.name)
    results = [result(asked.seed + i) for i in range(4)]
    document = demo.summary(NANO.name, asked, results, (1192, 317), {"build": 1.5, "generate": 2.0}, "2.51.0")
    assert {"image", "seed", "size", "wall_s", "stages_s", "server", "variant"} <= document.keys()
    assert (document["seed"], document["size"], document["wall_s"]) == (7, [1192, 317], 3.5)
    assert document["stages_s"]["generate.denoise"] == 1.0
    assert [picture["seed"] for picture in document["pictures"]] == [7, 8, 9, 10]
    json.dumps(document)


def test_missing_weights_are_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(committed, "WEIGHTS", tmp_path)
    assert demo.main([]) == 1
    found = capsys.readouterr()
    assert found.err.startswith("error: weights: variant 'nano' expects its own") and found.out == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--photo", "none.jpg"], "error: --photo: expected a picture, such as a JPEG or PNG file, got none.jpg: No such file"),
        (["--photo", "."], "error: --photo: expected a picture, such as a JPEG or PNG file, got .: Is a directory"),
        (["--photo", "text.jpg"], "got text.jpg: no picture that can be read"),
        (["--prompt", " "], "error: --prompt: expected the words of a scene"),
    ],
)
def test_what_cannot_be_shown_is_told_before_anything_is_built(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.jpg").write_text("no picture")
    monkeypatch.setattr(demo, "build_repository", lambda *_: pytest.fail("building was begun"))
    assert demo.main(arguments) == 1
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_a_folder_in_the_place_of_the_sheet_is_told_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / demo.OUTPUT).mkdir(parents=True)
    assert demo.main([]) == 1
    assert capsys.readouterr().err.startswith("error: output: expected a file, out/demo.png is a folder")
