"""Who asks, and what he may: what a route knows of a key."""

from __future__ import annotations

from dataclasses import dataclass, field

SCOPES = ("images", "jobs", "faces", "verify", "status")
"""What a key may be for: a family of routes each."""


@dataclass(frozen=True)
class Limits:
    """None: no limit."""

    requests_per_minute: int | None = None
    concurrent: int | None = None
    """Drawings at the same time."""
    pictures_per_day: int | None = None
    largest_side: int | None = None
    """Pixels of width and of height."""
    variants: tuple[str, ...] | None = None
    """Names of models or variants."""
    priority: str = "interactive"
    """The highest that may be asked for: `batch` goes behind `interactive`."""


@dataclass(frozen=True)
class Caller:
    """One key's owner. Where there are no keys, everybody is `OPEN`."""

    key_id: str
    name: str
    scopes: frozenset[str]
    limits: Limits = field(default_factory=Limits)

    @property
    def tenant(self) -> str:
        """What the server knows him by."""
        return self.key_id

    @property
    def priority(self) -> str:
        return self.limits.priority


OPEN = Caller("", "open access", frozenset(SCOPES))
