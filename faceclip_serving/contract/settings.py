"""What an operator may set without touching code, each declared once.

A setting's value is, the first that says something: `python -m server run --set NAME=VALUE`; the sampler's config.pbtxt, for what the
sampler obeys; the placement. `python -m server status` lists them as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .allowed import Between
from .errors import InvalidRequest

if TYPE_CHECKING:  # the command line reads this table before it obeys signals: nothing that takes time
    from .placements import Placement

VARIABLE = "FACECLIP_SETTINGS"
"""Environment variable of the models' processes: JSON, deployment, or "" for all -> setting -> value."""
_MB = 2**20


@dataclass(frozen=True)
class Setting:
    name: str
    default: Callable[[Placement], int | float]
    allowed: Callable[[Placement], Between]
    doc: str
    sampler: bool = True
    """Whether the sampler obeys it; then it stands in the sampler's config.pbtxt too."""

    def parse(self, text: str, placement: Placement) -> int | float:
        """A value as people write it. Raises `InvalidRequest`."""
        try:
            value: Any = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        allowed = self.allowed(placement)
        if isinstance(value, int) and not isinstance(value, bool) and isinstance(allowed.low, float):
            value = float(value) if abs(value) < 2**63 else float("inf")
        read: int | float = allowed.read(self.name, value)
        return read


def _setting(name: str, default: Any, low: Any, high: Any, doc: str, sampler: bool = True, unit: str = "") -> Setting:
    def of(value: Any) -> Callable[[Placement], Any]:
        return value if callable(value) else lambda placement: value

    return Setting(name, of(default), lambda p: Between(of(low)(p), of(high)(p), unit=unit), doc, sampler)


SETTINGS: tuple[Setting, ...] = (
    _setting("max_active", lambda p: p.max_active, 1, 256, "requests that share the denoiser's calls"),
    _setting("max_waiting", lambda p: p.max_waiting, 0, 4096, "requests on the way there; more are refused at once"),
    _setting("denoiser_rows", lambda p: p.denoiser_rows, 1, lambda p: p.denoiser_rows,
             "largest batch of a denoiser call; engines are built for the placement's"),
    _setting("lease_s", 5.0, 2.0, 600.0, "a place that its holder has not renewed for so long is lost", unit="seconds"),
    _setting("batch_head_start_s", 30.0, 0.0, 86_400.0, "how long priority `batch` stands back behind `interactive`", unit="seconds"),
    _setting("previews_kept", 8, 1, 1000, "unheard previews that are kept per stream; older ones are dropped"),
    _setting("preparing_threads", lambda p: max(1, (os.cpu_count() or 1) - 1), 1, 256, "requests whose photographs are prepared at once",
             sampler=False),
    _setting("photo_budget_s", 10.0, 0.1, 600.0, "time for the photographs of one request", sampler=False, unit="seconds"),
    _setting("encoding_cache_mb", lambda p: p.encoding_cache_bytes // _MB, 0, 2**20,
             "memory for the encodings of each encoder that may be needed again", unit="MiB"),
    _setting("log_prompts", 0, 0, 1, "1: the log line of a request has its prompt", sampler=False),
)  # fmt: skip
_BY_NAME = {setting.name: setting for setting in SETTINGS}

Settings = Mapping[str, Any]
"""Setting -> value, for all settings."""


def resolve(
    placement: Placement, deployment: str, config: Mapping[str, str] | None = None, environment: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """The value of every setting. `config`: parameters of the sampler's config.pbtxt. Raises `InvalidRequest`."""
    told = json.loads(environment.get(VARIABLE, "{}"))
    said = {**(config or {}), **told.get("", {}), **told.get(deployment, {})}
    return {
        setting.name: setting.parse(str(said[setting.name]), placement) if setting.name in said else setting.default(placement)
        for setting in SETTINGS
    }


def most_in_flight(max_active: int, max_waiting: int) -> int:
    """Requests that have a place, at most: those that wait, are drawn or decoded, or have ended while something goes on for them."""
    return max_waiting + 4 * max_active


def read_orders(placements: Mapping[str, Placement], texts: list[str]) -> dict[str, dict[str, str]]:
    """`--set` as people write it, `NAME=VALUE` or `DEPLOYMENT.NAME=VALUE`, checked; the value of `VARIABLE`.

    `placements`: deployment -> its placement. Raises `InvalidRequest`.
    """
    told: dict[str, dict[str, str]] = {}
    for text in texts:
        where, equals, value = text.partition("=")
        deployment, _, name = where.rpartition(".")
        if not equals or name not in _BY_NAME:
            raise InvalidRequest(f"set: expected NAME=VALUE with a name of {', '.join(_BY_NAME)}, got '{text}'")
        if deployment and deployment not in placements:
            raise InvalidRequest(
                f"set: '{text}': this repository has no deployment '{deployment}', only {', '.join(placements)}"
            )
        for each in [deployment] if deployment else placements:
            _BY_NAME[name].parse(value, placements[each])
        told.setdefault(deployment, {})[name] = value
    return told
