"""The one kind of error that engine code raises for a user to read."""

from __future__ import annotations

from faceclip_serving.contract.errors import UserError


class EngineError(UserError):
    """An engine cannot be built, loaded or trusted; the message says why and what to do."""
