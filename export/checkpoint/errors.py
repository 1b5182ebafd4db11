"""The error about a checkpoint's files, apart from torch so that what only asks for a folder starts fast."""

from __future__ import annotations

from faceclip_serving.contract.errors import UserError


class CheckpointError(UserError):
    """A file of the checkpoint is missing, damaged or another network's. The message names it and the cure."""
