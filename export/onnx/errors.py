"""What the export to ONNX refuses, for a user to read; apart from torch, so that commands can name these errors and start fast."""

from __future__ import annotations

from faceclip_serving.contract.errors import UserError


class GraphError(UserError):
    """An exported graph is not what its signature declares."""
