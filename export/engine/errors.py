"""The one kind of error that engine code raises for a user to read."""

from __future__ import annotations


class EngineError(RuntimeError):
    """An engine cannot be built, loaded or trusted; the message says why and what to do."""
