"""What a report is made of: parts, each with its bound and what came of it. One that fails leaves the others to run."""

from __future__ import annotations

import os
import re
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
        """For people: outcome, name, and why, and the figures that are one number each."""
        told = [f"{key} {_short(value)}" for key, value in self.figures.items() if _is_short(value)]
        took = [] if self.seconds is None else [f"{self.seconds:.1f} s"]
        reason = [self.why] if self.why else []
        return f"{self.outcome:8} {self.name}: {'; '.join([*reason, *told, *took])}\n{'':8} bound: {self.bound}"


class Parts:
    """Carries parts out, and keeps them in their order, without folders of this machine.

    `known`: folders that the user named. `kept`: is called after each part.
    """

    def __init__(self, known: Sequence[Path] = (), kept: Callable[[], None] = lambda: None) -> None:
        self.found: list[Part] = []
        self._known, self._kept = known, kept

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
        return self._keep(Part(name, BROKEN if why else HELD, bound, why, seconds, figures))

    def _keep(self, part: Part) -> bool:
        part = Part(**shareable(asdict(part), self._known))
        self.found.append(part)
        print(part.line, file=sys.stderr, flush=True)
        self._kept()
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


def without_folders(text: str, known: Sequence[Path] = ()) -> str:
    """Text to share: of an absolute path, and of the folders that are `known`, however they are spelt, the last part is left.

    What lies in the current folder is told from there on.
    """
    text = text.replace("file://", "")
    for folder in {str(Path.cwd()), os.path.realpath(Path.cwd())}:
        text = text.replace(f"{folder}/", "")
    spelt = {form for each in known for form in (str(each), str(each.absolute()), os.path.realpath(each))}
    for form in sorted(spelt, key=len, reverse=True):
        text = text.replace(form, Path(form).name)
    text = text.replace(str(Path.home()), "~")
    for pattern in (_QUOTED, _PLAIN):
        text = pattern.sub(lambda found: Path(found[0]).name, text)
    return text


_QUOTED = re.compile(r"""(?<=(['"`]))~?/[^'"`\n]*(?=\1)""")
"""A path in quotes, which may have spaces."""
_PLAIN = re.compile(r"""(?<![\w./~-])~?/(?!/)[^\s'"`:;,()\[\]{}<>|=]+""")
"""One without: no address, which has two slashes, and none of FP16/FP8."""


def shareable(value: Any, known: Sequence[Path] = ()) -> Any:
    """A JSON document without folders of this machine, in whichever text of it."""
    if isinstance(value, str):
        return without_folders(value, known)
    if isinstance(value, Mapping):
        return {without_folders(str(key), known): shareable(each, known) for key, each in value.items()}
    return [shareable(each, known) for each in value] if isinstance(value, list | tuple) else value


def _is_short(value: object) -> bool:
    """Whether it is one number; what was not seen is none."""
    return value is not None and not isinstance(value, Mapping | Sequence)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
