"""The one kind of error that training raises for a user to read, and how a command tells it."""

from __future__ import annotations

from collections.abc import Callable

from export import commandline
from faceclip_serving.contract.errors import UserError


class TrainingError(UserError):
    """A stage cannot run, or its results cannot be used: the photographs, people, checkpoints or weights are not what it needs."""


def exit_code(command: Callable[[], int]) -> int:
    """Runs a command; what a user can mend is one line on stderr, and code 1."""
    return commandline.exit_code(command, "stopped; the same command goes on from the last checkpoint")
