"""How jobs are told: the object of a job, the events of its end, and the answer to each failure."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from ..errors import ApiError
from ..settings import Settings
from .failures import (
    JobsError,
    KeyReusedError,
    StoreFullError,
    StoreUnwritableError,
    UnknownJobError,
    WebhookRefusedError,
    WrongStateError,
)
from .records import Job
from .runner import Draw
from .service import Jobs, JobSettings
from .states import Status

FULL_RETRY_S = 30.0


@asynccontextmanager
async def working(settings: Settings, draw: Draw) -> AsyncGenerator[Jobs, None]:
    """The jobs of a gateway, while it runs."""
    chosen = JobSettings(
        deadline_s=settings.job_deadline,
        keep_s=settings.keep_results,
        at_once=settings.jobs_at_once,
        most=settings.jobs_most,
        webhook_hosts=settings.webhook_host,
        webhook_networks=settings.webhook_network,
    )
    base = settings.public_url.rstrip("/")
    jobs = Jobs(settings.folder, chosen, draw, lambda job: event_of(job, base, jobs))
    try:
        await jobs.start()
        yield jobs
    finally:
        await jobs.close(settings.drain_timeout)


def job_object(job: Job, base: str, jobs: Jobs) -> dict[str, Any]:
    """As every answer has it. `base`: how the caller reaches the gateway, e.g. http://127.0.0.1:8080."""
    trail = jobs.runner.trail(job.id)
    here = f"{base}/v1/jobs/{job.id}"
    return {
        "id": job.id,
        "object": "image.job",
        "kind": job.kind,
        "model": job.model,
        "status": job.status,
        "created": int(job.created),
        "started": _second(job.started),
        "ended": _second(job.ended),
        "queue_position": jobs.runner.position(job.id) if job.status is Status.QUEUED else None,
        "step": trail.step if trail and trail.total else None,
        "total": trail.total if trail and trail.total else None,
        "attempts": job.attempts,
        "poll_url": here,
        "events_url": f"{here}/events",
        "preview_url": f"{here}/preview" if trail and trail.preview else None,
        "result": _result(job, base, jobs),
        "error": job.error,
        "expires": _second(job.expires),
    }


def event_of(job: Job, base: str, jobs: Jobs) -> dict[str, Any]:
    """What a webhook is told of an ended job. The same id at each attempt."""
    return {
        "object": "event",
        "id": f"evt_{job.id.removeprefix('job_')}",
        "type": f"image.job.{job.status}",
        "created_at": _second(job.ended),
        "data": job_object(job, base, jobs),
    }


def _result(job: Job, base: str, jobs: Jobs) -> dict[str, Any] | None:
    if job.result is None:
        return None
    pictures, english = job.result["pictures"], job.result["details"].get("prompt_language", {}).get("prompt")
    data = [
        {"url": f"{base}{address}", "b64_json": None, "revised_prompt": english, "seed": picture["seed"]}
        for picture, address in zip(pictures, jobs.results.addresses(job.id, job.result), strict=True)
    ]
    width, height = pictures[0]["size"]
    return {
        "created": int(job.result["created"]),
        "data": data,
        "size": f"{width}x{height}",
        "output_format": pictures[0]["format"],
        "details": job.result["details"],
    }


def answer_of(error: JobsError) -> ApiError:
    """The answer for what a call about jobs raised."""
    if isinstance(error, UnknownJobError):
        return ApiError(404, str(error), code="job_not_found")
    if isinstance(error, WrongStateError):
        return ApiError(409, f"{error}; it has ended", code="job_ended")
    if isinstance(error, KeyReusedError):
        return ApiError(409, str(error), code="idempotency_key_reused", param="Idempotency-Key")
    if isinstance(error, WebhookRefusedError):
        return ApiError(400, str(error), code="webhook_refused", param="webhook_url")
    if isinstance(error, StoreFullError):
        return ApiError(503, str(error), code="job_store_full", retry_after_s=FULL_RETRY_S)
    if isinstance(error, StoreUnwritableError):
        return ApiError(503, str(error), code="job_store_unwritable", retry_after_s=FULL_RETRY_S)
    return ApiError(500, str(error), code="internal_error")


def _second(when: float | None) -> int | None:
    return None if when is None else int(when)
