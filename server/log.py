"""Why a server ended, from its own log."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable

MOST_REASONS = 3
LAST_LINES = 10

_TRITON = re.compile(r'E\d{4} \S+ +\d+ \S+\] "?(?P<text>.*?)"?$')
"""An error as Triton writes it: date, time, thread, file and line, then the text."""
_OURS = re.compile(r"(?:ERROR |error: )(?P<text>.*)")
"""Of our models, and Triton's last words."""
_DECISIVE = re.compile(r"failed to load '|Poll failed for|failed to start|unable to|[Aa]ddress already in use")
_TRACEBACK = re.compile(r"(?:\\n|\n){2}At:.*|; *$", re.DOTALL)
_ALWAYS = (
    "CudaDriverHelper has not been initialized",
    "unable to create stream for",  # of each ensemble
    "creating server: Internal - failed to load all models",
)
"""Said on every machine without a GPU, and after every other reason."""


class Log:
    """Remembers what is needed of a log, line by line, in little memory."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self._decisive: dict[str, None] = {}
        self._errors: dict[str, None] = {}
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        for line in lines:
            self.add(line)

    def add(self, line: str) -> None:
        line = line.rstrip("\n")
        self._last.append(line)
        found = _TRITON.match(line) or _OURS.match(line)
        if found is None or any(phrase in line for phrase in _ALWAYS):
            return
        text = _TRACEBACK.sub("", found["text"])
        kept = self._decisive if _DECISIVE.search(text) else self._errors
        if len(kept) < MOST_REASONS:
            kept[text] = None

    def reason(self) -> str:
        """The first errors without tracebacks, else the last lines; each line begins with a line break, empty without any."""
        return "".join(f"\n  {line}" for line in (self._decisive or self._errors or self._last))
