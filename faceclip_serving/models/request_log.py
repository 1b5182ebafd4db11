"""One line of log per request, JSON: who, how it ended, and where the time went. Never the prompt, unless an operator sets `log_prompts`;
never a photograph; and of warnings and errors, whose words may quote the caller's, the parameters alone.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..contract.errors import Refused, outcome
from ..contract.parameters import MAX_CHARACTERS, PARAMETERS
from ..contract.request import MAX_ID
from ..contract.tensors import Array

if TYPE_CHECKING:
    from .adapter import Setup

LONGEST = MAX_ID
"""Of an id or a tenant in the log, in characters."""
_ABOUT = re.compile(r"([a-z_]+(?:\[\d+\])?):")
"""How a warning or an error begins that is about a parameter."""
_OURS = {"timeout", "busy", "draining", *(tensor.name for tensor in PARAMETERS)}


def request_log() -> logging.Logger:
    """Writes lines as they are, nothing before them, so that a line is a JSON document."""
    log = logging.getLogger("faceclip.requests")
    if not log.handlers:
        log.addHandler(logging.StreamHandler(sys.stderr))
        log.propagate = False
    return log


def line(
    setup: Setup, id: str, total_s: float, arrays: Mapping[str, Array], details: Mapping[str, Any], failed: Exception | None
) -> str:
    """The text of the line. `details`: the finished request's, else empty."""
    sampling = details.get("sampling", {})
    told = {
        "event": "request",
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "model": setup.signature.name,
        "deployment": setup.deployment,
        "id": id[:LONGEST],
        "tenant": _text(arrays, "tenant")[:LONGEST],
        "outcome": outcome(failed),
        "seconds": details.get("timings_s") or {"total": round(total_s, 6)},
        "images": len(details.get("seeds", ())),
        "rows": sampling.get("rows", 0),
        "warnings": [_about(warning) for warning in details.get("warnings", ())],
    }
    if failed is not None:
        told["about"] = failed.code if isinstance(failed, Refused) else _about(str(failed))
    if setup.settings["log_prompts"]:
        told["prompt"] = _text(arrays, "prompt")
    return json.dumps(told)


def _about(message: str) -> str:
    """What it is about; empty where that is nothing of ours: an unknown parameter's name is the caller's own text."""
    found = _ABOUT.match(message)
    return found[1] if found and found[1].partition("[")[0] in _OURS else ""


def _text(arrays: Mapping[str, Array], name: str) -> str:
    """A text parameter as it came, cut where it is longer than any that is accepted; empty where it is none."""
    value = next(iter(arrays.get(name, ())), b"")
    return value[:MAX_CHARACTERS].decode(errors="replace") if isinstance(value, bytes) else ""
