"""What a report is made of: parts, each with its bound and what came of it. One that fails leaves the others to run."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from faceclip_serving.contract.errors import UserError

HELD, BROKEN, NOT_RUN = "held", "broken", "not run"
REASON = "broken"
"""Key in a part's figures: why its bound does not hold."""
NO_GPU = "no GPU"


@dataclass(frozen=True)
class Part:
    name: str
    outcome: str
    """`HELD`, `BROKEN` or `NOT_RUN`."""
    bound: str
    """What must hold, in words."""
    why: str = ""
    """Of a part that is not `HELD`."""
    seconds: float | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """For people: outcome, name, and the figures that are one number or word each, or else why."""
        told = [f"{key} {_short(value)}" for key, value in self.figures.items() if not isinstance(value, Mapping | Sequence)]
        took = [] if self.seconds is None else [f"{self.seconds:.1f} s"]
        reason = [self.why] if self.why else []
        return f"{self.outcome:8} {self.name}: {'; '.join([*reason, *told, *took])}\n{'':8} bound: {self.bound}"


class Parts:
    """Carries parts out, and keeps them in their order."""

    def __init__(self) -> None:
        self.found: list[Part] = []

    def do(self, name: str, bound: str, work: Callable[[], Mapping[str, Any]], unless: str = "") -> bool:
        """Runs `work` and keeps its figures; returns whether the bound held. `unless`: why it is not run; empty: it is.

        Broken is a part that raises a `UserError` or `OSError`, and one whose figures have an `error` or a `REASON`.
        """
        if unless:
            return self._keep(Part(name, NOT_RUN, bound, unless))
        started = time.monotonic()
        try:
            figures = dict(work())
        except (UserError, OSError) as error:
            figures = {"error": str(error)}
        why = str(figures.pop(REASON, "") or figures.pop("error", ""))
        seconds = round(time.monotonic() - started, 1)
        return self._keep(Part(name, BROKEN if why else HELD, bound, without_folders(why), seconds, figures))

    def _keep(self, part: Part) -> bool:
        self.found.append(part)
        print(part.line, file=sys.stderr, flush=True)
        return part.outcome == HELD

    @property
    def failed(self) -> list[str]:
        """Names of those whose bound is broken."""
        return [part.name for part in self.found if part.outcome == BROKEN]

    def document(self) -> list[dict[str, Any]]:
        return [asdict(part) for part in self.found]

    def text(self) -> str:
        """All lines, and how many of which outcome."""
        outcomes = [part.outcome for part in self.found]
        counts = ", ".join(f"{outcomes.count(each)} {each}" for each in (HELD, BROKEN, NOT_RUN))
        return "\n".join([*(part.line for part in self.found), counts])


def without_folders(text: str) -> str:
    """Text to share: folders of this machine are left out of it."""
    for folder in sorted({str(Path.cwd()), os.path.realpath(Path.cwd()), str(Path.home())}, key=len, reverse=True):
        text = text.replace(f"{folder}/", "")
    return text


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
