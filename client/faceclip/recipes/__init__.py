"""Recipes: uses of the model as data, a TOML file each: a prompt with choices, the parameters that suit it, and why.

`load()["travel"].fill(place="beach")` gives the keywords of a call. Each file is checked when it is read; files of your own are read by
`load(folder)`.
"""

from __future__ import annotations

import itertools
import string
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import InvalidRequestError
from ..parameters import OPTIONS
from ..parameters import Option as Parameter

FOLDER = Path(__file__).parent
LANGUAGES = ("en", "zh")
NEEDS = ("face", "picture")
"""What a recipe is given besides choices: photographs of the person; a picture to change, which is the photograph where none is sent."""
Titles = Mapping[str, str]
"""Language -> text."""


class RecipeError(ValueError):
    """A file that is no recipe; the message names the file and the entry."""


@dataclass(frozen=True)
class Option:
    """Of a choice."""

    name: str
    title: Titles
    text: str
    """In the prompt."""


@dataclass(frozen=True)
class Choice:
    name: str
    title: Titles
    options: tuple[Option, ...]
    """The first is the default."""


@dataclass(frozen=True)
class Recipe:
    """One use of the model."""

    name: str
    title: Titles
    description: Titles
    why: str
    """Of the parameters and the prompt."""
    needs: tuple[str, ...]
    prompt: str
    """With choices' names in braces."""
    negative_prompt: str | None
    choices: tuple[Choice, ...]
    parameters: Mapping[str, Any]
    tried: tuple[str, ...]
    """Variants whose pictures were looked at; of others, parameters are known to be valid, and no more."""

    def fill(self, /, **choices: str) -> dict[str, Any]:
        """The keywords of a call, `prompt` among them. A choice that is left out is its first option. Raises `InvalidRequestError`."""
        known = {choice.name: choice for choice in self.choices}
        for name in choices:
            if name not in known:
                raise InvalidRequestError(
                    f"{name}: recipe '{self.name}' has no such choice; it has {', '.join(known) or 'none'}"
                )
        texts = {name: _chosen(self.name, choice, choices.get(name)) for name, choice in known.items()}
        negative = {} if self.negative_prompt is None else {"negative_prompt": self.negative_prompt}
        return {"prompt": self.prompt.format(**texts), **negative, **self.parameters}

    def call(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords of a call, of choices and other keywords in one; those that are given count before the recipe's. `prompt`: more
        words, after the recipe's. Raises `InvalidRequestError` where what the recipe needs is missing."""
        names = {choice.name for choice in self.choices}
        given = {name: value for name, value in options.items() if name not in names and value is not None}
        filled = self.fill(**{name: value for name, value in options.items() if name in names and value is not None})
        more = given.pop("prompt", "")
        filled["prompt"] = f"{filled['prompt'].rstrip('.')}, {more}" if more else filled["prompt"]
        somebody = any(name in given for name in ("face_image", "face_images", "identity", "people"))
        if "picture" in self.needs and "image" not in given:
            raise InvalidRequestError(f"image: recipe '{self.name}' changes a picture, and none was given")
        if "face" in self.needs and not somebody:
            if "image" not in given:
                raise InvalidRequestError(f"face_image: recipe '{self.name}' is of a person, and no photograph was given")
            if hasattr(given["image"], "read"):
                given["image"] = given["image"].read()
            given["face_image"] = given["image"]
        return {**filled, **given}

    def each(self) -> Iterator[dict[str, str]]:
        """All choices in all combinations."""
        names = [choice.name for choice in self.choices]
        for options in itertools.product(*(choice.options for choice in self.choices)):
            yield {name: option.name for name, option in zip(names, options, strict=True)}

    def as_json(self) -> dict[str, Any]:
        """For an API."""
        choices = [{**asdict(choice), "default": choice.options[0].name} for choice in self.choices]
        return {**asdict(self), "choices": choices, "parameters": dict(self.parameters)}


@cache
def load(folder: Path = FOLDER) -> dict[str, Recipe]:
    """The recipes of a folder by name, which is that of the file. Raises `RecipeError`."""
    if not folder.is_dir():
        raise RecipeError(f"{folder}: expected a folder of recipes, got none; write its whole path")
    return {path.stem: read(path) for path in sorted(folder.glob("*.toml"))}


def find(name: str) -> Recipe:
    """Raises `InvalidRequestError` where there is none of that name."""
    if name not in load():
        raise InvalidRequestError(f"recipe: expected one of {', '.join(load())}, got '{name}'")
    return load()[name]


def read(path: Path) -> Recipe:
    """One file. Raises `RecipeError`."""
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path.name}: {error}") from error
    what = _File(path.name)
    choices = tuple(_choice(what, name, each) for name, each in what.table("choices", told.pop("choices", {})).items())
    recipe = Recipe(
        name=path.stem,
        title=what.titles("title", told.pop("title", None)),
        description=what.titles("description", told.pop("description", None)),
        why=what.text("why", told.pop("why", None)),
        needs=what.texts("needs", told.pop("needs", None), NEEDS),
        prompt=what.text("prompt", told.pop("prompt", None)),
        negative_prompt=what.text("negative_prompt", told.pop("negative_prompt")) if "negative_prompt" in told else None,
        choices=choices,
        parameters=what.table("parameters", told.pop("parameters", {})),
        tried=what.texts("tried", told.pop("tried", None)),
    )
    what.require(not told, next(iter(told), ""), "no such entry", "a recipe has title, description, why, needs, prompt, …")
    known = {option.name: option for option in OPTIONS}
    for name, value in recipe.parameters.items():
        what.require(name in known, f"parameters.{name}", "no parameter of a request", "see docs/parameters.md")
        what.value(f"parameters.{name}", value, known[name])
    try:
        braces = [each for each in string.Formatter().parse(recipe.prompt) if each[1] is not None]
    except ValueError as error:
        raise RecipeError(f"{path.name}: prompt: {error}; a choice is written {{name}}") from error
    for _, _, form, conversion in braces:
        what.require(
            not form and not conversion,
            "prompt",
            f"expected {{name}}, got a form with it, {form or conversion!r}",
            "leave it out",
        )
    used = {name or "" for _, name, _, _ in braces}
    names = {choice.name for choice in choices}
    what.require(used == names, "prompt", f"its braces are {sorted(used)}, the choices {sorted(names)}", "name each choice")
    for choice in choices:
        what.require(choice.name not in known, f"choices.{choice.name}", "the name of a parameter", "choose another")
    return recipe


class _File:
    """Reads entries; says which file, which entry, what was expected and what came."""

    def __init__(self, name: str) -> None:
        self._name = name

    def require(self, holds: bool, entry: str, what: str, cure: str) -> None:
        if not holds:
            raise RecipeError(f"{self._name}: {entry}: {what}; {cure}")

    def text(self, entry: str, value: Any) -> str:
        self.require(isinstance(value, str) and bool(value.strip()), entry, f"expected a text, got {value!r}", "write one")
        return str(value)

    def texts(self, entry: str, value: Any, allowed: tuple[str, ...] | None = None) -> tuple[str, ...]:
        fits = isinstance(value, list) and all(isinstance(each, str) and (allowed is None or each in allowed) for each in value)
        expected = f"expected a list of {' or '.join(allowed) if allowed else 'texts'}, got {value!r}"
        self.require(fits, entry, expected, "write [] for none")
        return tuple(value)

    def table(self, entry: str, value: Any) -> dict[str, Any]:
        self.require(isinstance(value, dict), entry, f"expected a table, got {value!r}", f"write [{entry}]")
        return dict(value)

    def value(self, entry: str, value: Any, option: Parameter) -> None:
        """Of a parameter: its type, and what of its range is the same for all variants. The rest the server knows."""
        several = option.values != 1
        self.require(not several or isinstance(value, list), entry, f"expected a list, got {value!r}", "write [ and ]")
        each_of = value if several else [value]
        self.require(option.values in (0, len(each_of)), entry, f"expected {option.values} values, got {value!r}", "write each")
        for each in each_of:
            kinds: tuple[type, ...] = (int, float) if option.type is float else (option.type,)
            fits = isinstance(each, (*kinds, dict) if option.is_json else kinds)
            fits = fits and (option.type is bool or not isinstance(each, bool))
            expected = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[option.type]
            if option.names:
                expected = f"one of {', '.join(option.names)}"
                fits = fits and each.lower() in [name.lower() for name in option.names]
            if option.low is not None and option.high is not None:
                expected = f"{expected} from {option.low} to {option.high}"
                fits = fits and option.low <= each <= option.high
            if option.longest is not None:
                expected = f"{expected} of at most {option.longest} characters"
                fits = fits and len(each) <= option.longest
            self.require(fits, entry, f"expected {expected}, got {each!r}", "see docs/parameters.md")

    def titles(self, entry: str, value: Any) -> Titles:
        fits = (
            isinstance(value, dict)
            and {*value} == {*LANGUAGES}
            and all(isinstance(each, str) and each for each in value.values())
        )
        self.require(fits, entry, f"expected a text in {' and '.join(LANGUAGES)}, got {value!r}", '{ en = "…", zh = "…" }')
        return dict(value)


def _choice(what: _File, name: str, told: Any) -> Choice:
    entry = f"choices.{name}"
    table = what.table(entry, told)
    listed = table.get("options")
    what.require(
        isinstance(listed, list) and bool(listed), f"{entry}.options", f"expected some options, got {listed!r}", "list them"
    )
    what.require(
        {*table} == {"title", "options"}, entry, f"expected title and options, got {sorted(table)}", "leave out the rest"
    )
    options = tuple(_option(what, f"{entry}.options[{i}]", each) for i, each in enumerate(listed or []))
    names = [option.name for option in options]
    what.require(len({*names}) == len(names), f"{entry}.options", f"a name stands twice in {names}", "name each once")
    return Choice(name, what.titles(f"{entry}.title", table["title"]), options)


def _option(what: _File, entry: str, told: Any) -> Option:
    table = what.table(entry, told)
    what.require({*table} == {"name", "title", "text"}, entry, f"expected name, title and text, got {sorted(table)}", "mend it")
    title = what.titles(f"{entry}.title", table["title"])
    return Option(what.text(f"{entry}.name", table["name"]), title, what.text(f"{entry}.text", table["text"]))


def _chosen(recipe: str, choice: Choice, name: Any) -> str:
    """The text of an option; None: of the first."""
    for option in choice.options:
        if name is None or name == option.name:
            return option.text
    names = ", ".join(option.name for option in choice.options)
    raise InvalidRequestError(f"{choice.name}: recipe '{recipe}' expects one of {names}, got {name!r}")
