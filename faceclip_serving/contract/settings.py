"""What an operator may set without touching code, each declared once.

A setting's value is, the first that says something: `python -m server run --set NAME=VALUE`; the config.pbtxt of the model that obeys it,
where it stands there (`Setting.models`); the placement. `python -m server status` lists them as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .allowed import Allowed, Between, FileName, OneOf, SomeOf, Text
from .consent import CONSENT_MODES
from .errors import InvalidRequest
from .marks import CORNERS, LABELS, MARKS
from .names import FINISH, PREPARE, SAMPLER

if TYPE_CHECKING:  # the command line reads this table before it obeys signals: nothing that takes time
    from .placements import Placement

VARIABLE = "FACECLIP_SETTINGS"
"""Environment variable of the models' processes: JSON, deployment, or "" for all -> setting -> value."""
_MB = 2**20


@dataclass(frozen=True)
class Setting:
    name: str
    default: Callable[[Placement], Any]
    allowed: Callable[[Placement], Allowed]
    doc: str
    models: tuple[str, ...] = (SAMPLER,)
    """Those in whose config.pbtxt it stands too, since they obey it; none: it is said by `--set` alone."""

    def parse(self, text: str, placement: Placement) -> Any:
        """A value as people write it. Raises `InvalidRequest`."""
        allowed = self.allowed(placement)
        if not isinstance(allowed, Between):
            return allowed.read(self.name, text)
        try:
            value: Any = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        if isinstance(value, int) and not isinstance(value, bool) and isinstance(allowed.low, float):
            value = float(value) if abs(value) < 2**63 else float("inf")
        return allowed.read(self.name, value)


def _setting(
    name: str, default: Any, low: Any, high: Any, doc: str, models: tuple[str, ...] = (SAMPLER,), unit: str = ""
) -> Setting:
    def of(value: Any) -> Callable[[Placement], Any]:
        return value if callable(value) else lambda placement: value

    return Setting(name, of(default), lambda p: Between(of(low)(p), of(high)(p), unit=unit), doc, models)


def _text(name: str, default: Any, allowed: Allowed, doc: str) -> Setting:
    return Setting(name, default if callable(default) else lambda placement: default, lambda placement: allowed, doc, models=())


MARKS_FOLDER_VARIABLE = "FACECLIP_MARKS_FOLDER"


def marks_folder() -> str:
    """Where own keys are unless a setting says otherwise."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.environ.get(MARKS_FOLDER_VARIABLE) or os.path.join(config, "faceclip-triton", "marks")


SETTINGS: tuple[Setting, ...] = (
    _setting("max_active", lambda p: p.max_active, 1, 256, "requests that share the denoiser's calls"),
    _setting("max_waiting", lambda p: p.max_waiting, 0, 1024, "requests on the way there; more are refused at once"),
    _setting("denoiser_rows", lambda p: p.denoiser_rows, 1, lambda p: p.denoiser_rows,
             "largest batch of a denoiser call; engines are built for the placement's"),
    _setting("lease_s", 5.0, 2.0, 600.0, "a place that its holder has not renewed for so long is lost", unit="seconds"),
    _setting("batch_head_start_s", 30.0, 0.0, 86_400.0, "how long priority `batch` stands back behind `interactive`",
             models=(SAMPLER, PREPARE, FINISH), unit="seconds"),
    _setting("previews_kept", 8, 1, 1000, "unheard previews that are kept per stream; older ones are dropped"),
    _setting("preparing_threads", lambda p: max(1, (os.cpu_count() or 1) - 1), 1, 256, "requests whose photographs are prepared at once",
             models=()),
    _setting("photo_budget_s", 10.0, 0.1, 600.0, "time for the photographs of one request", models=(), unit="seconds"),
    _setting("encoding_cache_mb", lambda p: p.encoding_cache_bytes // _MB, 0, 2**20,
             "memory for the encodings of each encoder that may be needed again; none with consent=require", unit="MiB"),
    _setting("encoding_cache_minutes", 10.0, 0.1, 1440.0, "after so long an encoding is forgotten", unit="minutes"),
    _setting("log_prompts", 0, 0, 1, "1: the log line of a request has its prompt", models=()),
    _text("marks", "all", SomeOf(MARKS), "what every picture is marked by: all, none, or some of them with commas between"),
    _setting("watermark_psnr_db", 43.0, 34.0, 52.0, "strength of the invisible mark, as the PSNR that it leaves; higher is weaker",
             models=(), unit="dB"),
    _text("watermark_key", "", FileName(), "file of the invisible mark's keys, one a line: the first marks, all read (default: own)"),
    _text("trustmark", "", FileName(), "folder of TrustMark's two networks, which then make and read the invisible mark (default: the own"
          " one)"),
    _text("certificate", "", FileName(), "PEM file of the chain that signs pictures, the signer's first (default: own)"),
    _text("certificate_key", "", FileName(), "its key: a PEM file, or module:function or file.py:function (default: own)"),
    _text("timestamp_url", "", Text(1000), "authority that confirms the time of signatures; signing then needs it to answer"),
    _text("provider", "", Text(100), "who offers the service, as the marks name it (default: the certificate's organisation)"),
    _text("visible_label", "none", OneOf(LABELS), "label that every picture bears, whatever a request says"),
    _text("label_corner", "top_right", OneOf(CORNERS), "where visible labels stand"),
    _text("policy", "", FileName(), "TOML file of what is refused and reviewed, see docs/responsible.md (default: the package's own)"),
    _text("marks_folder", lambda placement: marks_folder(), FileName(), f"where own keys and certificates are, made where they are missing"
          f" (default: ${MARKS_FOLDER_VARIABLE}, or in the user's configuration)"),
    _text("consent", "off", OneOf(CONSENT_MODES), "records of consent: not looked at; checked where they come; required with photographs"),
    _text("consent_key", "", FileName(), "PEM file of the public keys whose signatures of consent count (default: own)"),
    _text("consent_scope", "", Text(128), "what consent must be for: one of its record's scopes (default: anything)"),
    _text("revoked", "", FileName(), "file of the consents that were revoked (default: own)"),
    _text("reference_key", "", FileName(), "file of the keys that name photographs and prompts, one a line: the first names, all are known"
          " (default: own)"),
    _text("identities", "on", OneOf(("on", "off")), "whether portable identities are made and taken"),
    _text("identity_key", "", FileName(), "file of the keys that seal portable identities, one a line: the first seals, all open (default:"
          " own)"),
    _text("audit_folder", "", FileName(), "where the audit log is kept (default: nowhere, there is none)"),
    _text("audit_key", "", FileName(), "PEM file of the Ed25519 key that signs the audit log (default: own)"),
    _setting("audit_days", 365, 0, 36_500, "days of the audit log that are kept, today's aside; 0: all", models=(), unit="days"),
)  # fmt: skip
_BY_NAME = {setting.name: setting for setting in SETTINGS}

Settings = Mapping[str, Any]
"""Setting -> value, for all settings."""


def resolve(
    placement: Placement, deployment: str, config: Mapping[str, str] | None = None, environment: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """The value of every setting. `config`: parameters of a model's config.pbtxt. Raises `InvalidRequest`."""
    told = json.loads(environment.get(VARIABLE, "{}"))
    said = {**(config or {}), **told.get("", {}), **told.get(deployment, {})}
    return {
        setting.name: setting.parse(str(said[setting.name]), placement) if setting.name in said else setting.default(placement)
        for setting in SETTINGS
    }


def marks_wanted(settings: Settings) -> tuple[str, ...]:
    """Names of the marks that are on, of `MARKS`."""
    return SomeOf(MARKS).names_in(settings["marks"])


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
            read = _BY_NAME[name].parse(value, placements[each])
        told.setdefault(deployment, {})[name] = read if isinstance(read, str) else value
    return told
