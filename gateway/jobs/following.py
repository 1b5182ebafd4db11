"""What whoever follows a job hears, from where he was to its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace

from .records import Job
from .runner import Runner
from .trail import Event, EventId


async def followed(
    job_id: str, after: EventId, runner: Runner, get: Callable[[], Awaitable[Job]]
) -> AsyncGenerator[Event | Job, None]:
    """As `Jobs.follow`; `get`: the job as it stands. Raises what that does."""
    await get()
    trail = runner.trail(job_id)
    if trail is not None:
        trail.followers += 1
        try:
            place = None
            while not trail.ended:
                if runner.lets_go(trail):
                    return
                change = trail.change
                for event in trail.after(after):
                    after = event.id
                    if event.name != "queued":
                        yield event
                    else:
                        place = None
                if trail.waiting and (now := runner.position(job_id)) is not None and now != place:
                    place = now
                    yield Event(trail.last_id, "queued", {"queue_position": now})
                await change.wait()
        finally:
            trail.followers -= 1
    job = await get()
    if after < (job.attempts, float("inf")):
        if job.result is not None and trail is not None and trail.details is not None:
            job = replace(job, result={**job.result, "details": trail.details})
        if job.error is not None and trail is not None and trail.error is not None:
            job = replace(job, error=trail.error)
        yield job
