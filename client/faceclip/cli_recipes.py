"""Recipes on the command line: `faceclip recipes`, and --recipe, --choice and --prompt-language of generate and edit."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any, get_args

from .errors import InvalidRequestError
from .language.translators import PromptLanguage
from .recipes import Recipe, find, load

_RECIPES = "Uses of the model, ready made: list them, or show one by its name with its choices."


def add_command(commands: Any) -> None:
    """Adds `faceclip recipes`."""
    parser = commands.add_parser("recipes", help="uses, ready made", description=_RECIPES)
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this one")
    parser.add_argument("--json", action="store_true", help="print one line of JSON, errors included")
    parser.set_defaults(command=recipes)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What a picture is drawn by besides parameters."""
    parser.add_argument("--recipe", metavar="NAME", help="prompt and parameters of a recipe; faceclip recipes lists them")
    parser.add_argument(
        "--choice", action="append", default=[], type=_choice, metavar="NAME=OPTION", help="of the recipe; may be repeated"
    )
    parser.add_argument(
        "--prompt-language",
        choices=get_args(PromptLanguage),
        help="auto: Chinese prompts are put into English; en: they are English; off: used as they are (default: auto)",
    )


def recipes(arguments: argparse.Namespace) -> int:
    """`faceclip recipes`."""
    chosen = [find(arguments.name)] if arguments.name else list(load().values())
    if arguments.json:
        print(json.dumps({"recipes": [each.as_json() for each in chosen]}, ensure_ascii=False))
    else:
        print("\n".join(_text(each) if arguments.name else _line(each) for each in chosen))
    return 0


def filled(arguments: argparse.Namespace, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Prompt and options of a call, with the recipe's where there is one. Raises `InvalidRequestError`."""
    if arguments.recipe is None:
        if arguments.choice:
            raise InvalidRequestError("--choice: expected a --recipe that it is of; faceclip recipes lists them")
        if arguments.prompt is None:
            raise InvalidRequestError("--prompt: a text is required, got none; or give a --recipe")
        return arguments.prompt, dict(options)
    recipe = find(arguments.recipe)
    recipe.fill(**dict(arguments.choice))  # so that a keyword of the call is not taken for a choice
    given = {name: value for name, value in options.items() if value is not None and value != []}
    call = recipe.call({**given, **dict(arguments.choice), "prompt": arguments.prompt})
    return call.pop("prompt"), call


def _line(recipe: Recipe) -> str:
    choices = ", ".join(choice.name for choice in recipe.choices)
    return f"{recipe.name:<16} {recipe.title['en']} · {recipe.title['zh']}: {recipe.description['en']} Choices: {choices}."


def _text(recipe: Recipe) -> str:
    needs = ", ".join({"face": "photographs of the person", "picture": "a picture to change"}[each] for each in recipe.needs)
    lines = [f"{recipe.name}: {recipe.title['en']} · {recipe.title['zh']}", recipe.description["en"], "", f"needs      {needs}"]
    lines.append(f"prompt     {recipe.prompt}")
    for choice in recipe.choices:
        options = ", ".join(f"{option.name} ({option.title['zh']})" for option in choice.options)
        lines.append(f"  {choice.name:<10} {options}")
    lines += [f"not        {recipe.negative_prompt}"] if recipe.negative_prompt else []
    lines += [f"           {name} = {json.dumps(value)}" for name, value in recipe.parameters.items()]
    tried = ", ".join(recipe.tried) or "no variant; its parameters are valid for all"
    return "\n".join([*lines, f"why        {recipe.why}", f"tried with {tried}"])


def _choice(text: str) -> tuple[str, str]:
    name, equals, option = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected NAME=OPTION, got '{text}'")
    return name, option
