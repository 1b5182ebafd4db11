"""What the store knows of a job, and of a webhook that has to be told of its end. Times are seconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .states import Status


@dataclass(frozen=True)
class NewJob:
    """What is accepted. `digest`: of all that was asked, to know the same request again; `deadline`: drawn until then, or failed."""

    id: str
    owner: str
    tenant: str
    kind: str
    priority: str
    model: str | None
    created: float
    deadline: float
    digest: str
    webhook_url: str | None = None
    idempotency_key: str | None = None
    pictures: int = 1


@dataclass(frozen=True)
class Job:
    """A job as it stands. `attempts`: how often it was begun; `losses`: how often the server was lost after it had begun."""

    number: int
    id: str
    owner: str
    tenant: str
    kind: str
    priority: str
    model: str | None
    webhook_url: str | None
    status: Status
    created: float
    started: float | None
    ended: float | None
    deadline: float
    expires: float | None
    attempts: int
    losses: int
    swept: bool
    result: dict[str, Any] | None
    error: dict[str, Any] | None


@dataclass(frozen=True)
class Delivery:
    """A webhook that has to be told of a job's end."""

    job: str
    url: str
    attempts: int
    due: float
