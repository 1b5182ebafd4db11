"""The checks of a server's models: the room `checks`, with the settings of a deployment, and a line of log for what is not allowed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from ..checks import policy
from ..checks.checks import Checks, Decision, RefusedBy
from ..contract.settings import Settings
from .request_log import LONGEST, request_log


def checks_of(settings: Settings, *stages: str) -> Checks:
    """For a model's process, which checks these stages alone. Raises `PolicyError`, by which the model does not start."""
    return Checks(policy.of_settings(settings), stages)


def judged(id: str, judge: Callable[[], list[Decision]]) -> list[dict[str, Any]]:
    """The decisions of one look at request `id`, as records. Raises `Refused`. What is not allowed has its line in the log."""
    try:
        decisions = judge()
    except RefusedBy as error:
        _tell(id, error.decisions)
        raise
    _tell(id, decisions)
    return [each.record() for each in decisions]


def _tell(id: str, decisions: Iterable[Decision]) -> None:
    for each in decisions:
        if each.action != policy.ALLOW:
            request_log().info(json.dumps({"event": "check", "id": id[:LONGEST], **each.record()}))
