"""`/v1/jobs`, and `/v1/files`, where results are fetched by signed addresses."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from typing import Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from PIL import Image

from ..api.bodies import image_request
from ..api.openapi import IMAGE_BODY
from ..drawing import Drawing
from ..errors import ApiError, invalid
from ..keys.caller import Caller
from ..keys.dependency import JobsCaller
from ..keys.permission import check
from ..state import Gateway, gateway_of
from ..web.events import EventStream
from ..web.events import event as sse
from .answers import answer_of, job_object
from .failures import JobsError
from .kept.results import MEDIA_TYPES, FileRefusedError
from .records import Job
from .trail import Event, id_text, read_id

router = APIRouter(prefix="/v1", tags=["jobs"])
LONGEST_KEY = 255
UNREAD = {"response_format": "url", "stream": False}
"""Fields of a request, and what is so in any case: a job's pictures are links. It has events whatever `stream` says."""


@router.post("/jobs", status_code=202, openapi_extra=IMAGE_BODY)
async def accept(request: Request, caller: JobsCaller) -> JSONResponse:
    """Takes the body of generations or edits, and `webhook_url`. What is answered with 202 is kept over restarts.

    Header `Idempotency-Key`: the same request with the same key is the same job.
    """
    gateway = gateway_of(request)
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= LONGEST_KEY and key.isprintable() and key.isascii()):
        raise invalid("Idempotency-Key", f"expected 1 to {LONGEST_KEY} printable ASCII characters")
    asked = await image_request(request)
    limit_s = gateway.settings.timeout
    drawing = await asyncio.to_thread(
        asked.to_drawing, request.state.request_id, caller.tenant, caller.priority, limit_s, UNREAD
    )
    kind = "image_generation" if drawing.image is None else "image_edit"
    # Not ended by a caller who hangs up.
    job, is_new = await asyncio.shield(asyncio.ensure_future(_taken(gateway, caller, drawing, kind, asked.webhook_url, key)))
    headers = {"Location": f"/v1/jobs/{job.id}"} | ({} if is_new else {"Idempotent-Replayed": "true"})
    return JSONResponse(_object(request, job), 202, headers=headers)


@router.get("/jobs")
async def listed(
    request: Request, caller: JobsCaller, limit: int = Query(20, ge=1, le=100), after: str | None = None
) -> dict[str, Any]:
    """The caller's jobs, the newest first. `after`: the id of the last one of the page before."""
    with answered():
        found = await gateway_of(request).jobs.page(caller.key_id, limit + 1, after)
    shown = found[:limit]
    return {"object": "list", "data": [_object(request, job) for job in shown], "has_more": len(found) > limit}


@router.get("/jobs/{job_id}")
async def one(request: Request, job_id: str, caller: JobsCaller) -> dict[str, Any]:
    """How a job stands. 410: it was swept."""
    return _object(request, await _found(request, job_id, caller))


@router.delete("/jobs/{job_id}")
async def cancel(request: Request, job_id: str, caller: JobsCaller) -> dict[str, Any]:
    """Cancels. 409: it has ended otherwise."""
    with answered():
        return _object(request, await gateway_of(request).jobs.cancel(job_id, caller.key_id))


@router.get("/jobs/{job_id}/preview")
async def preview(request: Request, job_id: str, caller: JobsCaller) -> Response:
    """The last rough picture, of a job that is drawn and was asked for with `partial_images`."""
    await _found(request, job_id, caller)
    trail = gateway_of(request).jobs.runner.trail(job_id)
    picture = trail.preview if trail else None
    if picture is None:
        raise ApiError(404, f"job '{job_id}' has no preview now", code="preview_not_found")
    return Response(await asyncio.to_thread(_png, picture), media_type="image/png", headers={"Cache-Control": "no-store"})


@router.get("/jobs/{job_id}/events")
async def events(request: Request, job_id: str, caller: JobsCaller) -> Response:
    """Server-sent events: `queued`, `progress`, `preview`, at last `completed`, `failed` or `cancelled` with the job. Resumes by
    `Last-Event-ID`; 204 where there is nothing more, so that a browser does not come again."""
    after = read_id(request.headers.get("last-event-id"))
    job = await _found(request, job_id, caller)
    if job.status.ended and after >= (job.attempts, float("inf")):
        return Response(status_code=204)

    async def told() -> AsyncGenerator[bytes, None]:
        async with aclosing(gateway_of(request).jobs.follow(job_id, caller.key_id, after)) as found:
            async for event in found:
                yield await _told(request, event)

    return EventStream(told())


@router.get("/files/{name}")
async def file(request: Request, name: str, expires: str = "", signature: str = "") -> FileResponse:
    """A picture, by an address that an answer gave; no key is needed. 410: its time is over."""
    try:
        path = await asyncio.to_thread(gateway_of(request).jobs.results.path, name, expires, signature, time.time())
    except FileRefusedError as error:
        code = {403: "signature_invalid", 404: "file_not_found", 410: "file_expired"}[error.status]
        raise ApiError(error.status, str(error), code=code) from None
    return FileResponse(path, media_type=MEDIA_TYPES[path.suffix[1:]], headers={"Cache-Control": "private, immutable"})


async def _taken(
    gateway: Gateway, caller: Caller, drawing: Drawing, kind: str, webhook_url: str | None, key: str | None
) -> tuple[Job, bool]:
    """The job, and whether it is a new one.

    What would refuse a new job refuses none that is there: it is looked for afterwards, since it may have come meanwhile, and may be
    the one that fills the day.
    """
    with answered():
        try:
            if webhook_url is not None:
                await gateway.jobs.check_webhook(webhook_url)
            with waiting_for_servers():
                gateway.pool.resolve(drawing.model)
                await check(caller.limits, drawing, gateway.pool)
            async with gateway.usage.room(caller, drawing):
                return await gateway.jobs.accept(drawing, caller.key_id, kind, webhook_url, key)
        except (ApiError, JobsError):
            known = None if key is None else await gateway.jobs.known(drawing, caller.key_id, kind, webhook_url, key)
            if known is None:
                raise
            return known, False


@contextmanager
def answered() -> Generator[None]:
    """Failures of jobs as answers."""
    try:
        yield
    except JobsError as error:
        raise answer_of(error) from error


@contextmanager
def waiting_for_servers() -> Generator[None]:
    """Jobs wait for a server that is away. What it alone can tell is checked when it draws them."""
    try:
        yield
    except ApiError as error:
        if error.status != 503:
            raise


async def _found(request: Request, job_id: str, caller: Caller) -> Job:
    with answered():
        job = await gateway_of(request).jobs.get(job_id, caller.key_id)
    if job.swept:
        raise ApiError(410, f"job '{job_id}' has ended, and its time is over", code="job_expired")
    return job


def _object(request: Request, job: Job) -> dict[str, Any]:
    gateway = gateway_of(request)
    return job_object(job, gateway.settings.public_url.rstrip("/") or str(request.base_url).rstrip("/"), gateway.jobs)


async def _told(request: Request, event: Event | Job) -> bytes:
    if isinstance(event, Job):
        return sse(event.status, _object(request, event), id_text((event.attempts, float("inf"))))
    picture = {} if event.picture is None else {"b64_json": await asyncio.to_thread(_base64, event.picture)}
    return sse(event.name, {**event.data, **picture}, id_text(event.id))


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _base64(picture: Image.Image) -> str:
    return base64.b64encode(_png(picture)).decode()
