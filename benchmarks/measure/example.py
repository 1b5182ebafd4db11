"""The example that all measurements draw."""

from __future__ import annotations

from export.paths import PHOTOGRAPH

PHOTO = PHOTOGRAPH
PROMPT = "portrait of an astronaut, studio light"
