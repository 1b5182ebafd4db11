"""A server's policy: a TOML file, checked to the last key. The package carries one, whose values hold where a file says nothing."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..contract.allowed import nearest
from ..contract.errors import UserError
from ..contract.settings import Settings
from .lexicon import concept_names

DEFAULT = Path(__file__).with_name("policy.toml")
FACE = "face"
"""The concept that a request has which comes with photographs."""
ALLOW, REVIEW, REFUSE = "allow", "review", "refuse"
PROMPT, PHOTOGRAPHS, PICTURES = "prompt", "photographs", "pictures"
STAGES = (PROMPT, PHOTOGRAPHS, PICTURES)
"""What is checked."""
MAX_HOOKS = 8
_CODE = re.compile(r"[a-z][a-z0-9_]*")


class PolicyError(UserError):
    """A policy that cannot be used; the message says where, what was expected, what was found, and the cure."""


@dataclass(frozen=True)
class Rule:
    """What holds where a request has all of the concepts."""

    code: str
    concepts: frozenset[str]
    action: str


@dataclass(frozen=True)
class Thresholds:
    """Scores from which something is refused, and reviewed; None: never."""

    refuse: float | None
    review: float | None

    def action(self, score: float) -> str:
        if self.refuse is not None and score >= self.refuse:
            return REFUSE
        return REVIEW if self.review is not None and score >= self.review else ALLOW

    def __bool__(self) -> bool:
        return self.refuse is not None or self.review is not None


@dataclass(frozen=True)
class HookSpec:
    """A check of the operator's own: a Python function or the URL of a service."""

    name: str
    stages: tuple[str, ...]
    call: str
    url: str
    timeout_s: float


@dataclass(frozen=True)
class Policy:
    rules: tuple[Rule, ...]
    photographs: Thresholds
    pictures: Thresholds
    preview_cells: int
    """Along the longer side; 0: all."""
    names: Path | None
    faces: Path | None
    recogniser: Path | None
    distance: float
    hooks: tuple[HookSpec, ...]
    digest: str
    """Of the files' text: which policy decided."""

    def hooks_on(self, stage: str) -> tuple[HookSpec, ...]:
        return tuple(hook for hook in self.hooks if stage in hook.stages)

    def told(self) -> dict[str, Any]:
        """Which policy it is and what is on, for whoever may know that."""
        on = {
            PROMPT: bool(self.rules),
            PHOTOGRAPHS: bool(self.photographs),
            PICTURES: bool(self.pictures),
            "names": self.names is not None,
            "faces": self.faces is not None,
        }
        return {
            "policy": self.digest[:12],
            "on": [*(name for name, is_on in on.items() if is_on), *(hook.name for hook in self.hooks)],
            "off": [name for name, is_on in on.items() if not is_on],
        }

    @property
    def most_preview_cells(self) -> int:
        """Along the longer side of a preview; 0: all. Where no picture is ever refused, previews are as they are."""
        refuses = self.pictures.refuse is not None or self.hooks_on(PICTURES)
        return self.preview_cells if refuses else 0


def of_settings(settings: Settings) -> Policy:
    """The policy of a deployment. Raises `PolicyError`."""
    return read(Path(settings["policy"]) if settings["policy"] else None)


def read(path: Path | None = None) -> Policy:
    """The policy of a file; None: the package's own. Raises `PolicyError`."""
    default = DEFAULT.read_bytes()
    own = _bytes(path) if path is not None else b""
    told = _toml(own, path or DEFAULT)
    said = tomllib.loads(default.decode())
    where = f"policy {path or DEFAULT}"
    _known(where, told, [*said, "hooks"])
    for name, table in said.items():
        _known(f"{where}: [{name}]", _table(where, name, told), table)
    whole = {name: {**table, **told.get(name, {})} for name, table in said.items()}
    listed, folder = whole["listed"], (path or DEFAULT).parent
    at = f"{where}: [listed]"
    hooks = _list(f"{where}: hooks", told.get("hooks", []))
    if len(hooks) > MAX_HOOKS:
        raise PolicyError(f"{where}: hooks: at most {MAX_HOOKS} are asked, found {len(hooks)}")
    specs = tuple(_hook(f"{where}: hooks[{i}]", each, folder) for i, each in enumerate(hooks))
    twice = next((each.name for i, each in enumerate(specs) if each.name in {other.name for other in specs[:i]}), None)
    if twice is not None:
        raise PolicyError(f"{where}: hooks: two are called '{twice}'; give each a name of its own")
    faces, recogniser = (
        _file(f"{at} {name}", listed[name], folder, is_there, kind)
        for name, is_there, kind in (("faces", Path.is_dir, "a folder"), ("recogniser", Path.is_file, "a file"))
    )
    if faces is not None and recogniser is None:
        raise PolicyError(f"{at} recogniser: faces need one; `python -m export recogniser --to FILE` fetches it")
    return Policy(
        tuple(
            _rule(f"{where}: [prompt] rules[{i}]", each)
            for i, each in enumerate(_list(f"{where}: [prompt] rules", whole["prompt"]["rules"]))
        ),
        _thresholds(f"{where}: [photographs]", whole["photographs"]),
        _thresholds(f"{where}: [pictures]", whole["pictures"]),
        _number(f"{where}: [pictures] preview_cells", whole["pictures"]["preview_cells"], 0, 1024, int),
        _file(f"{at} names", listed["names"], folder, Path.is_file, "a file"),
        faces,
        recogniser,
        _number(f"{at} distance", listed["distance"], 0.0, 2.0),
        specs,
        hashlib.sha256(default + own).hexdigest(),
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PolicyError(
            f"policy: expected a file of a policy, '{path}' cannot be read ({error.strerror}); name another"
        ) from None


def _toml(content: bytes, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # not UTF-8, or not TOML
        raise PolicyError(f"policy {path}: expected TOML, found text that is not ({error})") from None


def _known(where: str, told: Mapping[str, Any], known: Any) -> None:
    for key in told:
        if key not in known:
            cure = nearest(key, known) or f"; known are {', '.join(known)}"
            raise PolicyError(f"{where}: '{key}' is not known{cure}")


def _table(where: str, name: str, told: Mapping[str, Any]) -> Mapping[str, Any]:
    table = told.get(name, {})
    if not isinstance(table, dict):
        raise PolicyError(f"{where}: {name}: expected a table, [{name}], found {table!r}")
    return table


def _list(where: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise PolicyError(f"{where}: expected a list of tables, found {value!r}")
    return value


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise PolicyError(f"{where}: expected a text, found {value!r}")
    return value


def _number(where: str, value: Any, low: Any, high: Any, kind: Any = (int, float)) -> Any:
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        whole = "a whole number" if kind is int else "a number"
        raise PolicyError(f"{where}: expected {whole} from {low} to {high}, found {value!r}")
    return value


def _choice(where: str, value: Any, choices: Any) -> str:
    if not isinstance(value, str) or value not in choices:
        cure = nearest(value, choices) if isinstance(value, str) else ""
        raise PolicyError(f"{where}: expected one of {', '.join(choices)}, found {value!r}{cure}")
    return value


def _code(where: str, value: Any) -> str:
    if not _CODE.fullmatch(_text(where, value)):
        raise PolicyError(f"{where}: expected small letters, digits and underscores, a letter first, found '{value}'")
    return str(value)


def _needs(where: str, told: Mapping[str, Any], needed: Any) -> None:
    for key in needed:
        if key not in told:
            raise PolicyError(f"{where}: '{key}' is missing; it has {', '.join(needed)}")


def _rule(where: str, told: Mapping[str, Any]) -> Rule:
    fields = ("code", "concepts", "action")
    _known(where, told, fields)
    _needs(where, told, fields)
    concepts = told["concepts"]
    if not isinstance(concepts, list) or not concepts:
        raise PolicyError(f"{where}: concepts: expected a list of at least one, found {concepts!r}")
    known = (*concept_names(), FACE)
    return Rule(
        _code(f"{where}: code", told["code"]),
        frozenset(_choice(f"{where}: concepts", each, known) for each in concepts),
        _choice(f"{where}: action", told["action"], (REFUSE, REVIEW)),
    )


def _thresholds(where: str, told: Mapping[str, Any]) -> Thresholds:
    refuse, review = (
        None if told[name] is False else float(_number(f"{where} {name}", told[name], 0.0, 1.0)) for name in (REFUSE, REVIEW)
    )
    if refuse is not None and review is not None and review > refuse:
        raise PolicyError(f"{where} review: expected at most refuse, {refuse:g}, found {review:g}")
    return Thresholds(refuse, review)


def _file(where: str, value: Any, folder: Path, is_there: Callable[[Path], bool], kind: str) -> Path | None:
    if not _text(where, value):
        return None
    path = folder / Path(str(value)).expanduser()
    if not is_there(path):
        raise PolicyError(f"{where}: expected {kind}, '{path}' is none; name one, or leave it empty")
    return path


def _hook(where: str, told: Mapping[str, Any], folder: Path) -> HookSpec:
    fields = ("name", "on", "call", "url", "timeout_s")
    _known(where, told, fields)
    _needs(where, told, ("name", "on"))
    stages = told["on"]
    if not isinstance(stages, list) or not stages:
        raise PolicyError(f"{where}: on: expected a list of at least one of {', '.join(STAGES)}, found {stages!r}")
    if ("call" in told) == ("url" in told):
        raise PolicyError(f"{where}: expected either 'call', a Python function, or 'url', a service")
    call = _text(f"{where}: call", told.get("call", ""))
    if ".py:" in call:
        call = str(folder / Path(call).expanduser())
    url = _text(f"{where}: url", told.get("url", ""))
    if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise PolicyError(f"{where}: url: expected one such as http://127.0.0.1:9000/check, found '{url}'")
    return HookSpec(
        _code(f"{where}: name", told["name"]),
        tuple(_choice(f"{where}: on", each, STAGES) for each in stages),
        call,
        url,
        float(_number(f"{where}: timeout_s", told.get("timeout_s", 2.0), 0.01, 60.0)),
    )
