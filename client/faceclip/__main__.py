"""`python -m faceclip` is the command `faceclip`."""

from __future__ import annotations

from .cli import console

console()
