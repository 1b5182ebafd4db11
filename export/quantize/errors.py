"""What quantising may raise."""

from __future__ import annotations

from faceclip_serving.contract.errors import UserError


class QuantizationError(UserError):
    """A network cannot be quantised, or draws other pictures when it is; the message says why and what to do."""
