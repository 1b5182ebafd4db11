"""All servers together: which one draws, and what they offer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from faceclip import FaceCLIPError, FaceCLIPOutput, Progress, ServedModel, ServerBusyError
from faceclip.served import DEFAULT_MODEL

from ..drawing import Drawing
from ..errors import BUSY_RETRY_S, ApiError, from_client
from .backend import Backend
from .choice import in_order
from .offer import Offer
from .once import NotBegun

LOOK_EVERY_S = 2.0


class Pool:
    """`async with Pool(backends) as pool`: looks after the servers meanwhile."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.backends = list(backends)
        self.draining = False
        """The gateway is stopping: nothing more is begun, what was begun is ended."""

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
    def in_flight(self) -> int:
        return sum(backend.in_flight for backend in self.backends)

    def offers(self) -> dict[str, Offer]:
        """Name of a served model -> what a server offers under it; one that is ready is asked first."""
        found: dict[str, Offer] = {}
        for backend in sorted(self.backends, key=lambda each: not each.ready):
            for name, offer in backend.offers.items():
                found.setdefault(name, offer)
        return found

    def models(self) -> dict[str, ServedModel]:
        """What a caller may ask for: the names of served models, then those of their variants."""
        found = {name: offer.served for name, offer in self.offers().items()}
        for served in list(found.values()):
            found.setdefault(served.variant, served)
        return found

    def resolve(self, model: str | None) -> ServedModel:
        """The model that a caller means. Raises `ApiError`: 404, or 503 where a server that may have it has not answered yet."""
        models = self.models()
        if not models:
            why = "; ".join(f"{backend.address}: {backend.why}" for backend in self.backends)
            raise _unavailable(f"no server is ready ({why})")
        if model is None:
            return models.get(DEFAULT_MODEL) or next(iter(models.values()))
        if model not in models:
            if silent := [backend for backend in self.backends if not backend.offers]:
                raise _unavailable(
                    f"no server with '{model[:80]}' has answered yet ({', '.join(each.address for each in silent)} did not)"
                )
            known = ", ".join(models)
            raise ApiError(
                404, f"model: no '{model[:80]}' here; expected one of {known}", code="model_not_found", param="model"
            )
        return models[model]

    async def draw(self, drawing: Drawing) -> AsyncGenerator[Progress | FaceCLIPOutput, None]:
        """A `Progress` for each step, at last the `FaceCLIPOutput`. Closing it cancels. Raises `ApiError`.

        A server that is not reached, or too busy, leaves the drawing to the next one. Once one has begun there is no further attempt.
        """
        refused: Exception | None = None
        for backend in in_order(self._able(self.resolve(drawing.model).model), drawing):
            begun = False
            try:
                async with aclosing(backend.draw(self.resolve(drawing.model).model, drawing)) as events:
                    async for event in events:
                        begun = True
                        yield _told(event, drawing.warnings) if isinstance(event, FaceCLIPOutput) else event
                return
            except NotBegun as error:
                backend.lost(str(error))
                refused = refused or error.error
            except FaceCLIPError as error:
                if begun or not (error.safe_to_retry or isinstance(error, ServerBusyError)):
                    raise from_client(error) from error
                refused = error
            except ApiError:
                raise
            except Exception as error:
                raise from_client(error) from error
        raise from_client(refused) if refused is not None else _unavailable("no server is ready")

    async def faces(self, model: str | None, photo: bytes, request_id: str, tenant: str) -> dict[str, Any]:
        """Who is in a photograph. Raises `ApiError`."""
        served = self.resolve(model)
        return await self._ask(served.model, lambda backend: backend.faces(served.model, photo, request_id, tenant))

    async def verify(self, model: str | None, picture: bytes) -> dict[str, Any]:
        """What marks a picture bears. Raises `ApiError`."""
        served = self.resolve(model)
        return await self._ask(served.model, lambda backend: backend.verify(served.model, picture))

    async def _ask(self, model: str, question: Callable[[Backend], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """Nothing is drawn by it, so where one server is lost the next is asked."""
        refused: Exception | None = None
        for backend in sorted(self._able(model), key=lambda each: each.in_flight):
            try:
                return await question(backend)
            except NotBegun as error:
                refused = error.error
            except ConnectionError as error:
                refused = error
            except Exception as error:
                raise from_client(error) from error
        raise from_client(refused) if refused is not None else _unavailable("no server is ready")

    def _able(self, model: str) -> list[Backend]:
        if self.draining:
            raise _unavailable("the gateway is stopping")
        able = [backend for backend in self.backends if backend.ready and model in backend.offers]
        if not able:
            raise _unavailable(f"no server with '{model}' is ready")
        return able


def _told(output: FaceCLIPOutput, warnings: Sequence[str]) -> FaceCLIPOutput:
    return replace(output, details={**output.details, "warnings": [*output.warnings, *warnings]})


def _unavailable(why: str) -> ApiError:
    return ApiError(503, why, code="server_unavailable", retry_after_s=BUSY_RETRY_S)
