"""What the models of one server ask the sampler for besides running a job, as typed values that travel in the `control` tensor.

Each is a JSON object: `op`, the name of the operation in small letters, and its fields. The answers are JSON in `report`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, get_args, get_origin, get_type_hints

from .errors import InvalidRequest
from .tensors import Array, json_tensor


@dataclass(frozen=True)
class Admit:
    """A place for a request that is about to come -> `{"place": ...}`, or `Busy`."""

    id: str = ""
    """The request's, as its caller or we named it: by it, it can be ended."""
    tenant: str = ""
    """Whom it is for: places are shared out among tenants."""
    deadline: float | None = None
    """Monotonic seconds."""


@dataclass(frozen=True)
class Renew:
    """The holder of these places is still there -> `{"gone": [...], "round_s": seconds}`: those that have ended meanwhile, and how long a
    call of the denoiser takes at present."""

    places: list[str]


@dataclass(frozen=True)
class Prepare:
    """The preparation of a request begins -> `{}`, or why it has ended meanwhile."""

    place: str


@dataclass(frozen=True)
class Prepared:
    """The preparation was all that was wanted of a request: from here on it is its holder's to end -> `{}`, or why it has ended."""

    place: str


@dataclass(frozen=True)
class Lost:
    """Which of these places have ended -> `{"lost": [...]}`. Whoever only works for them asks, and renews nothing."""

    places: list[str]


@dataclass(frozen=True)
class Start:
    """With a job: run it, to be followed step by step -> `{"place": id}`."""

    previews: bool = False


@dataclass(frozen=True)
class Follow:
    """The next thing about a run that was not heard: a step, or its end with the latents."""

    place: str


@dataclass(frozen=True)
class Describe:
    """With aligned faces: their features, where the encoders have come to them; then its work is done."""

    place: str
    priority: str = "interactive"
    remember: bool = True


@dataclass(frozen=True)
class Leave:
    """The callers of these requests are gone -> `{"ended": [...]}`, those that had not ended before. Places are kept until `End`."""

    places: list[str]


@dataclass(frozen=True)
class End:
    """Nothing is done for a request any more, its place is given back -> `{"ended": bool}`, whether it had not ended before; where that
    went wrong, how and why as well: `outcome` and `why`, the words. `outcome`, here and there: of `errors.OUTCOMES`."""

    place: str
    outcome: str = "cancelled"


@dataclass(frozen=True)
class Cancel:
    """Whoever knows a request's id gives it up -> `{"ended": bool}`."""

    id: str


@dataclass(frozen=True)
class Drain:
    """Take no new work, or take it again -> as `Status`."""

    on: bool = True
    cut: bool = False
    """End what is in flight as well: its callers hear that the server stops."""
    linger_s: float = 0.0
    """Take work for so many seconds more, while `Status` says already that this is over: until proxies have heard of it."""


@dataclass(frozen=True)
class Status:
    """-> what is in flight and whether the loop is well; see `Service.status`."""


Operation = Admit | Renew | Prepare | Prepared | Lost | Start | Follow | Describe | Leave | End | Cancel | Drain | Status
FOR_OPERATORS = (Drain, Status)
"""What an operator may ask besides our own models; see `callers`."""
OPERATIONS: Mapping[str, type[Operation]] = {each.__name__.lower(): each for each in get_args(Operation)}


def encode(operation: Operation) -> Array:
    """The `control` tensor of an operation, object [1]."""
    return json_tensor({"op": type(operation).__name__.lower(), **asdict(operation)})


def decode(control: Array) -> Operation:
    """The operation of a `control` tensor. Raises `InvalidRequest`."""
    try:
        told = json.loads(control.item())
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"control: expected a JSON object ({error})") from None
    name = told.pop("op", None) if isinstance(told, dict) else None
    kind = OPERATIONS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise InvalidRequest(f"control: expected 'op', one of {', '.join(OPERATIONS)}, got {name!r}")
    hints = get_type_hints(kind)
    needed = {each.name for each in fields(kind) if each.default is MISSING}
    if not needed <= told.keys() <= hints.keys():
        raise InvalidRequest(f"control: '{name}' takes {sorted(hints)}, needs {sorted(needed)}, got {sorted(told)}")
    for key, value in told.items():
        if not _is(value, hints[key]):
            raise InvalidRequest(f"control: '{name}', '{key}': expected {hints[key]}, got {value!r}")
    return kind(**told)


def _is(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of a field's type."""
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_is(each, get_args(hint)[0]) for each in value)
    kinds = get_args(hint) or (hint,)
    return type(value) in kinds or (type(value) is int and float in kinds)
