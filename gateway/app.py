"""Assembles the gateway: rooms' routers, what holds for every request, and what starts and ends with it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from .api import about, images, people, status
from .backends.backend import Backend
from .backends.pool import Pool
from .errors import ApiError, from_client
from .jobs import routes as jobs
from .keys.store import KeyStore
from .keys.usage import Usage
from .settings import Settings
from .state import Gateway
from .web.request_id import RequestId

log = logging.getLogger("gateway")
STUDIO = Path(__file__).parent / "studio"


def make_app(settings: Settings) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        async with AsyncExitStack() as stack:
            headers = dict(line.split("=", 1) for line in settings.server_header)
            roots = Path(settings.server_ca) if settings.server_ca else None
            pool = await stack.enter_async_context(Pool([Backend(url, headers, roots) for url in settings.server]))
            keys = KeyStore(settings.folder)
            stack.callback(keys.close)
            app.state.gateway = Gateway(settings, pool, keys, Usage(keys.database))
            yield

    app = FastAPI(title="FaceCLIP gateway", lifespan=lifespan, docs_url=None, redoc_url=None)
    for room in (about, images, people, status, jobs):
        app.include_router(room.router)
    app.mount("/", StaticFiles(directory=STUDIO, html=True), name="studio")
    _answer_errors(app)
    app.add_middleware(RequestId)
    return app


def _answer_errors(app: FastAPI) -> None:
    """Every error in OpenAI's shape, those of the framework too."""

    def answered(error: ApiError) -> JSONResponse:
        return JSONResponse(error.as_json(), error.status, headers=dict(error.headers))

    @app.exception_handler(ApiError)
    async def ours(request: Request, error: ApiError) -> JSONResponse:
        return answered(error)

    @app.exception_handler(HTTPException)
    async def of_routes(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        return answered(ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}", code=code))

    @app.exception_handler(RequestValidationError)
    async def of_fields(request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()[0]
        name = str(found["loc"][-1])
        return answered(ApiError(400, f"{name}: {found['msg']}", code="invalid_value", param=name))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("request %s failed", getattr(request.state, "request_id", ""), exc_info=error)
        return answered(from_client(error))
