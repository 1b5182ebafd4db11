"""Recipes: every choice is valid for every variant and passes the checks; wrong files and choices are told by name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faceclip import AsyncFaceCLIPPipeline, FaceCLIPPipeline, InvalidRequestError
from faceclip.cli import main
from faceclip.parameters import OPTIONS
from faceclip.recipes import Recipe, RecipeError, load, read
from faceclip.request import GenerateOptions, prepare_call
from faceclip_serving.checks import policy
from faceclip_serving.checks.checks import Checks
from faceclip_serving.contract.parameters import PARAMETERS
from faceclip_serving.contract.request import parse_request
from faceclip_serving.contract.variants.table import VARIANTS

RECIPES = load()
ACCEPTED = {each.name: each.dtype.value for each in PARAMETERS}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_every_combination_is_valid_for_every_variant_and_no_check_minds(recipe: Recipe, variant: Any) -> None:
    checks = Checks(policy.read(None), ("prompt",))
    prompts: dict[str, dict[str, Any]] = {
        call["prompt"]: call for call in (recipe.fill(**choices) for choices in recipe.each())
    }
    for prompt, call in prompts.items():
        inputs = prepare_call("faceclip", ACCEPTED, prompt, {name: call[name] for name in call if name != "prompt"}, 1.0).inputs
        assert parse_request(variant, inputs).prompt == prompt
        decisions = checks.prompt(prompt, call.get("negative_prompt", ""), 1)
        assert {each.action for each in decisions} == {"allow"}, prompt
    assert prompts


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_a_recipe_needs_what_it_says_and_no_choice_is_a_keyword(recipe: Recipe) -> None:
    assert not {choice.name for choice in recipe.choices} & {*GenerateOptions.__annotations__, "prompt"}
    assert ("picture" in recipe.needs) == ("mask" in recipe.parameters or "strength" in recipe.parameters)
    with pytest.raises(InvalidRequestError, match=r"photograph|picture"):
        recipe.call({})
    assert {*recipe.tried} <= {*VARIANTS}
    assert json.loads(json.dumps(recipe.as_json()))["choices"][0]["default"] == recipe.choices[0].options[0].name


def test_choices_and_keywords_of_a_call(server: Any, pipe: FaceCLIPPipeline, photo: bytes) -> None:
    pipe.recipe("game-character", style="cyberpunk", face_image=photo, id_guidance_scale=1.5, prompt="red hair")
    sent = server.received[-1]
    prompt = sent["prompt"].item().decode()
    assert prompt.startswith("cyberpunk game art") and prompt.endswith("dramatic light, red hair")
    assert np.float32(1.5) == sent["id_guidance_scale"].item()
    assert sent["text_guidance_scale"].item() == RECIPES["game-character"].parameters["text_guidance_scale"]


def test_the_picture_to_change_is_the_photograph_where_none_is_sent(server: Any, pipe: FaceCLIPPipeline, photo: bytes) -> None:
    async def call() -> None:
        async with await AsyncFaceCLIPPipeline.from_pretrained(server.address) as pipeline:
            await pipeline.recipe("makeup", lips="berry", image=photo)

    asyncio.run(call())
    sent = server.received[-1]
    assert sent["image"].item() == sent["face_images"].item()
    assert "dark berry lipstick" in sent["prompt"].item().decode()
    assert sent["mask"].item() == b"face"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"style": "baroque", "face_image": "x"},
            "style: recipe 'game-character' expects one of fantasy, cyberpunk, .*, got 'baroque'",
        ),
        ({"role": "mage"}, "face_image: recipe 'game-character' is of a person"),
    ],
)
def test_wrong_choices_are_told_by_name(options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        RECIPES["game-character"].call(options)
    with pytest.raises(InvalidRequestError, match="stile: recipe 'travel' has no such choice; it has place, hour"):
        RECIPES["travel"].fill(stile="x")


GOOD = """
title = { en = "T", zh = "题" }
description = { en = "D", zh = "述" }
why = "because"
needs = ["face"]
prompt = "a {hat}"
tried = []
[choices.hat]
title = { en = "Hat", zh = "帽" }
options = [{ name = "red", title = { en = "red", zh = "红" }, text = "red hat" }]
"""


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="nowhere: expected a folder of recipes"):
        load(tmp_path / "nowhere")


WRONG: dict[type, tuple[str, ...]] = {
    bool: ("1", '"yes"'),
    int: ('"twenty"', "1.5", "true", "{ a = 1 }"),
    float: ('"high"', "true", "[]"),
    str: ("3", "false", "[]"),
}
"""Type of a parameter -> what is none of it, in TOML."""


def _wrong_values() -> Iterator[tuple[str, str]]:
    for option in OPTIONS:
        wrong = [*WRONG[option.type]]
        if option.low is not None:
            wrong += [str(option.low - 1), str(option.high and option.high * 2), "nan"]
        if option.longest is not None:
            wrong.append(f'"{"x" * (option.longest + 1)}"')
        if option.names:
            wrong.append('"no such name"')
        if option.values != 1:
            wrong = [f"[{', '.join([each] * (option.values or 1))}]" for each in wrong] + ["1"]
            wrong += [f"[{', '.join(['0'] * (option.values + 1))}]"] if option.values else []
        yield from ((option.name, each) for each in wrong)


@pytest.mark.parametrize(("name", "value"), [*_wrong_values()], ids=lambda text: text[:20])
def test_each_wrong_value_of_each_parameter_is_told(tmp_path: Path, name: str, value: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(GOOD.replace("tried = []", f"tried = []\nparameters = {{ {name} = {value} }}"), encoding="utf-8")
    with pytest.raises(RecipeError, match=rf"mine.toml: parameters.{name}: expected .*, got "):
        read(file)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{hat}", "{hat:d}", "prompt: expected {name}, got a form with it, 'd'"),
        ("{hat}", "{hat:>99999999999}", "prompt: expected {name}, got a form with it, '>99999999999'"),
        ("{hat}", "{hat!r}", "prompt: expected {name}, got a form with it, 'r'"),
        ("{hat}", "{hat.title}", "prompt: its braces are"),
        ("why", "wy", r"why: expected a text, got None"),
        ('["face"]', '["mask"]', "needs: expected a list of face or picture"),
        ("{hat}", "{cap}", "prompt: its braces are"),
        ("{hat}", "{hat", "prompt: .*a choice is written"),
        (', zh = "题"', "", "title: expected a text in en and zh"),
        ("tried = []", "tried = []\nmore = 1", "more: no such entry"),
        ("tried = []", "tried = []\n[parameters]\ncfg = 3", "parameters.cfg: no parameter of a request"),
        ("hat", "seed", "choices.seed: the name of a parameter"),
        ("options = [{", "options = [] #", "choices.hat.options: expected some options"),
        ('text = "red hat"', 'words = "red hat"', r"choices.hat.options\[0\]: expected name, title and text"),
        ("tried = []", "tried =", "Invalid value"),
    ],
)
def test_wrong_files_are_told_by_file_and_entry(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(GOOD, encoding="utf-8")
    assert read(file).fill() == {"prompt": "a red hat"}
    file.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(RecipeError, match=f"mine.toml: {message}"):
        read(file)


def test_the_command_lists_shows_and_draws(
    server: Any, photo: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipes"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(RECIPES)
    for name in RECIPES:
        assert main(["recipes", name]) == 0
        assert RECIPES[name].prompt in capsys.readouterr().out
    assert main(["recipes", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)["recipes"]] == list(RECIPES)
    assert main(["recipes", "none"]) == 2
    (tmp_path / "me.png").write_bytes(photo)
    call = [
        "generate",
        "--server",
        server.address,
        "--face",
        str(tmp_path / "me.png"),
        "-o",
        str(tmp_path / "out.png"),
        "--quiet",
    ]
    assert main([*call, "--recipe", "travel", "--choice", "place=harbour", "--steps", "2"]) == 0
    sent = server.received[-1]
    assert "in front of sailing boats" in sent["prompt"].item().decode()
    assert sent["num_inference_steps"].item() == 2
    for more, said in (
        (["--recipe", "travel", "--choice", "place=moon"], "place: recipe 'travel' expects one of"),
        (["--choice", "place=beach"], "--choice: expected a --recipe"),
        ([], "--prompt: a text is required"),
    ):
        capsys.readouterr()
        assert main([*call, *more]) == 2
        assert said in capsys.readouterr().err


def test_the_command_says_which_english_was_used(server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["generate", "--server", server.address, "-o", str(tmp_path / "out.png"), "--quiet", "--prompt", "一个女人站在海边"]
    assert main(call) == 0
    assert "prompt in English: a woman standing by the sea" in capsys.readouterr().err
    assert main([*call, "--prompt-language", "off", "--json"]) == 0
    assert "prompt_language" not in json.loads(capsys.readouterr().out)["details"]
    assert server.received[-1]["prompt"].item().decode() == "一个女人站在海边"
