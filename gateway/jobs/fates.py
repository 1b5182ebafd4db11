"""What becomes of a job whose attempt brought no pictures.

the server cannot be reached, is busy or stops    the job waits at its place; the next attempt for that model after a pause
the server was lost or failed within a drawing    the same, but `LOSSES` times at most: a job may be what brings it down
the request is refused                            the job fails at once, with the server's words
the job's deadline                                the job fails
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ApiError
from .records import Job

LOSSES = 5
"""Attempts that were lost after they had begun, before a job fails."""


@dataclass(frozen=True)
class Again:
    """The job waits again. `lost`: the server was, after it had begun; `pauses`: the model or the job; `told_s`: as the server said."""

    lost: bool
    pauses: str | None
    told_s: float | None


def fate(answer: ApiError, job: Job, begun: bool, now: float) -> Again | ApiError:
    """Of a job after `answer`, when the server had `begun` it or not: it waits again, or fails with that error."""
    away = answer.status in (429, 503)
    busy = answer.code == "server_busy"
    lost = not busy and (begun or not away)
    if not (away or answer.code in ("server_error", "deadline_exceeded")):
        return answer
    if now >= job.deadline - 0.5:
        return late(f"the last attempt said: {answer}")
    if lost and job.losses + 1 >= LOSSES:
        return answer
    return Again(lost, job.model if away else job.id, answer.retry_after_s if busy else None)


def late(why: str) -> ApiError:
    """What a job fails with when its deadline passes."""
    return ApiError(504, f"the job's deadline passed: {why}", code="deadline_exceeded")
