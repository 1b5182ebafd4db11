"""What the export to ONNX refuses, for a user to read; apart from torch, so that commands can name these errors and start fast."""

from __future__ import annotations

from faceclip_serving.contract.errors import UserError


class ExportError(UserError):
    """A component cannot be exported; the message says why and what to do."""


class GraphError(UserError):
    """An exported graph is not what its signature declares."""


class ParityError(UserError):
    """An exported component differs from its reference by more than its tolerance."""


class PrecisionError(UserError):
    """An exported graph computes something in another precision than it should."""
