"""All servers together: which one draws, and what they offer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from faceclip import FaceCLIPOutput, Progress, ServedModel

from ..drawing import Drawing
from ..errors import BUSY_RETRY_S, ApiError, from_client
from .backend import Backend

LOOK_EVERY_S = 2.0
DEFAULT_MODEL = "faceclip"


class Pool:
    """`async with Pool(backends) as pool`: looks after the servers meanwhile."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.backends = list(backends)

    async def __aenter__(self) -> Pool:
        await asyncio.gather(*(backend.look() for backend in self.backends))
        self._looking = [asyncio.create_task(self._look_after(backend)) for backend in self.backends]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._looking:
            task.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)
        for backend in self.backends:
            with contextlib.suppress(Exception):
                await backend.close()

    async def _look_after(self, backend: Backend) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await backend.look()

    @property
    def ready(self) -> list[Backend]:
        return [backend for backend in self.backends if backend.ready]

    def models(self) -> dict[str, ServedModel]:
        """Name -> what a server offers under it: the names of served models and, where they are not ambiguous, of variants."""
        found: dict[str, ServedModel] = {}
        for backend in self.backends:
            for served in backend.models:
                found.setdefault(served.model, served)
        for served in list(found.values()):
            found.setdefault(served.variant, served)
        return found

    def resolve(self, model: str | None) -> ServedModel:
        """The model that a caller means. Raises `ApiError` 404, or 503 while no server ever answered."""
        models = self.models()
        if not models:
            why = "; ".join(f"{backend.address}: {backend.why}" for backend in self.backends)
            raise ApiError(503, f"no server is ready ({why})", code="server_unavailable", retry_after_s=BUSY_RETRY_S)
        if model is None:
            return models.get(DEFAULT_MODEL) or next(iter(models.values()))
        if model not in models:
            raise ApiError(
                404,
                f"model: no '{model[:80]}' here; expected one of {', '.join(models)}",
                code="model_not_found",
                param="model",
            )
        return models[model]

    async def draw(self, drawing: Drawing) -> AsyncGenerator[Progress | FaceCLIPOutput, None]:
        """A `Progress` for each step, at last the `FaceCLIPOutput`. Closing it cancels. Raises `ApiError`."""
        served = self.resolve(drawing.model)
        able = [backend for backend in self.ready if served.model in backend.pipelines]
        if not able:
            raise ApiError(
                503, f"no server with '{served.model}' is ready", code="server_unavailable", retry_after_s=BUSY_RETRY_S
            )
        backend = min(able, key=lambda each: each.in_flight)
        try:
            async with aclosing(backend.draw(served.model, drawing)) as events:
                async for event in events:
                    yield event
        except (GeneratorExit, asyncio.CancelledError, ApiError):
            raise
        except Exception as error:
            raise from_client(error) from error
