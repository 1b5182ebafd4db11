"""Assembles the gateway: rooms' routers, what holds for every request, and what starts and ends with it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.routing import Match

from faceclip import FaceCLIPOutput, Progress

from . import __version__
from .api import about, images, people, status
from .backends.backend import Backend
from .backends.pool import Pool
from .drawing import Drawing
from .errors import ApiError
from .jobs import routes as jobs_routes
from .jobs.answers import working
from .jobs.runner import Draw
from .keys.permission import check
from .keys.store import KeyStore
from .keys.usage import Usage
from .settings import Settings
from .state import Gateway
from .web import docs
from .web.crowd import Crowd
from .web.door import Door
from .web.log import RequestLog
from .web.metrics import Metrics
from .web.request_id import RequestId
from .web.unexpected import Unexpected
from .web.uploads import Uploads
from .words import routes as words_routes

log = logging.getLogger("gateway")
STUDIO = Path(__file__).parent / "studio"
ROOMS = (about, images, people, status, jobs_routes, words_routes, docs)


def make_app(settings: Settings) -> FastAPI:
    figures = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(Pool(backends_of(settings)))
            keys = KeyStore(settings.folder)
            stack.callback(keys.close)
            jobs = await stack.enter_async_context(working(settings, permitted(pool, keys)))
            app.state.gateway = Gateway(settings, pool, keys, Usage(keys.database, jobs.pictures), jobs, figures)
            yield

    app = FastAPI(title="FaceCLIP gateway", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    for room in ROOMS:
        app.include_router(room.router)
    app.mount("/", StaticFiles(directory=STUDIO, html=True), name="studio")
    _answer_errors(app)
    # The last is the outermost: whatever is answered bears an id, and has its line in the log.
    app.add_middleware(Unexpected)
    app.add_middleware(Uploads, most_bytes=int(settings.upload_mib * 2**20), timeout_s=settings.upload_timeout)
    app.add_middleware(Crowd, most=settings.connections)
    app.add_middleware(Door, settings=settings)
    app.add_middleware(RequestLog, figures=figures)
    app.add_middleware(RequestId)
    return app


def permitted(pool: Pool, keys: KeyStore) -> Draw:
    """The pool's `draw` for jobs, which may have been accepted before anybody knew what their keys' limits mean."""

    async def draw(drawing: Drawing, owner: str) -> AsyncGenerator[Progress | FaceCLIPOutput, None]:
        caller = keys.by_id(owner)
        if caller is not None:
            await check(caller.limits, drawing, pool)
        async with aclosing(pool.draw(drawing)) as events:
            async for event in events:
                yield event

    return draw


def backends_of(settings: Settings) -> list[Backend]:
    headers = dict(line.split("=", 1) for line in settings.server_header)
    roots = Path(settings.server_ca) if settings.server_ca else None
    metrics_urls = [*settings.server_metrics, *[""] * len(settings.server)]
    return [Backend(url, headers, roots, told) for url, told in zip(settings.server, metrics_urls, strict=False)]


def _answer_errors(app: FastAPI) -> None:
    """Every error in OpenAI's shape, those of the framework too."""

    def answered(error: ApiError) -> JSONResponse:
        return JSONResponse(error.as_json(), error.status, headers=dict(error.headers))

    @app.exception_handler(ApiError)
    async def ours(request: Request, error: ApiError) -> JSONResponse:
        return answered(error)

    @app.exception_handler(HTTPException)
    async def of_routes(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error.__cause__, ApiError):  # of a body that the framework reads
            return answered(error.__cause__)
        what = f"{request.method} {request.url.path}"
        if error.status_code in (404, 405):
            # The page's folder is at the root, and answers for paths that are others'.
            routes = [route.matches(request.scope)[0] for route in app.routes if getattr(route, "name", "") != "studio"]
            if Match.PARTIAL in routes:
                return answered(ApiError(405, f"{what}: not by this method; see /docs", code="method_not_allowed"))
            return answered(ApiError(404, f"{what}: nothing is there; see /docs", code="not_found"))
        return answered(ApiError(error.status_code, f"{what}: {error.detail}", code="http_error"))

    @app.exception_handler(RequestValidationError)
    async def of_fields(request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()[0]
        name = str(found["loc"][-1])
        return answered(
            ApiError(400, f"{name}: {found['msg']}, got {repr(found.get('input'))[:80]}", code="invalid_value", param=name)
        )
