"""One FaceCLIP server: what it offers, how it is, what it does for us now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from faceclip import AsyncFaceCLIPPipeline, FaceCLIPError, FaceCLIPOutput, Progress
from faceclip.address import parse_address
from faceclip.people import read_details, read_faces
from faceclip.photos import encode_photo
from faceclip.request import prepare_look
from faceclip.served import FACES_SUFFIX, VERIFY_SUFFIX, is_offered
from faceclip.verify import VERIFY_TIMEOUT_S

from ..drawing import Drawing
from .figures import figures
from .offer import Offer, offer
from .once import OnceTransport

LOOK_TIMEOUT_S = 3.0
"""Of each question about its state."""
FACES_TIMEOUT_S = 60.0


class Backend:
    """Belongs to one event loop."""

    def __init__(
        self, address: str, headers: dict[str, str] | None = None, root_certificates: Path | None = None, metrics_url: str = ""
    ) -> None:
        parsed = parse_address(address)
        self.transport = OnceTransport(parsed, headers, root_certificates)
        self.address = self.transport.address
        self.metrics_url = metrics_url or f"http://{parsed.host}:8002/metrics"
        self.offers: dict[str, Offer] = {}
        """Name of a served model -> what it is."""
        self._pipelines: dict[str, AsyncFaceCLIPPipeline] = {}
        self.in_flight = 0
        self.ready = False
        self.why = "not asked yet"
        """Why it is not ready."""

    async def look(self) -> None:
        """Asks how it is and, where it was not ready before, what it serves."""
        try:
            server = await self.transport.server(LOOK_TIMEOUT_S)
            if not server.ready:
                self.lost("its models are not ready")
            elif not self.ready:
                await self._learn()
        except FaceCLIPError as error:
            self.lost(str(error))

    def lost(self, why: str) -> None:
        """Nothing more goes there until it answers again that it is ready."""
        self.ready, self.why = False, why

    async def _learn(self) -> None:
        names = [state.name for state in await self.transport.models(LOOK_TIMEOUT_S) if state.ready]
        found = await asyncio.gather(*(self.transport.model_config(name, LOOK_TIMEOUT_S) for name in names))
        configs = {config.name: config for config in found}
        self.offers = {
            name: offer(config, configs, await self._rules(name, name + VERIFY_SUFFIX in configs))
            for name, config in configs.items()
            if is_offered(config)
        }
        self._pipelines = {name: AsyncFaceCLIPPipeline(self.transport, each.served) for name, each in self.offers.items()}
        self.ready, self.why = bool(self.offers), "" if self.offers else "it offers no FaceCLIP model"

    async def _rules(self, model: str, tells: bool) -> dict[str, Any]:
        return await self.transport.verify(model + VERIFY_SUFFIX, None, LOOK_TIMEOUT_S) if tells else {}

    async def draw(self, model: str, drawing: Drawing) -> AsyncGenerator[Progress | FaceCLIPOutput, None]:
        """Closing it cancels the request on the server. Raises `FaceCLIPError`, and `TypeError` for what the model does not take."""
        pipeline = self._pipelines[model]
        self.in_flight += 1
        try:
            if drawing.steps and self.offers[model].stream is not None:
                async with aclosing(pipeline.stream(drawing.prompt, **drawing.options())) as events:
                    async for event in events:
                        yield event
            else:
                options = {name: value for name, value in drawing.options().items() if name != "preview"}
                yield await pipeline(drawing.prompt, **options)
        finally:
            self.in_flight -= 1

    async def faces(self, model: str, photo: bytes, request_id: str, tenant: str) -> dict[str, Any]:
        """The faces of a photograph, and what the server warns of. Raises `FaceCLIPError`."""
        config = self.offers[model].faces
        if config is None:
            raise TypeError(f"model: '{model}' of this server does not look at photographs")
        file = await asyncio.to_thread(encode_photo, "image", photo)
        options = {"request_id": request_id, **({"tenant": tenant} if tenant else {})}
        call = prepare_look(config.inputs, [file], options, FACES_TIMEOUT_S)
        arrays = await self.transport.infer(model + FACES_SUFFIX, call.inputs, (), call.timeout_s, call.request_id)
        found, details = read_faces(arrays, model), read_details(arrays, model)
        return {
            "object": "list",
            "data": [asdict(face) for face in found],
            "warnings": details.get("warnings", []),
            "details": details,
        }

    async def verify(self, model: str, picture: bytes) -> dict[str, Any]:
        """The server's report of a picture's marks. Raises `FaceCLIPError`."""
        if not self.offers[model].verify:
            raise TypeError(f"model: '{model}' of this server reads no marks")
        return await self.transport.verify(model + VERIFY_SUFFIX, picture, VERIFY_TIMEOUT_S)

    async def status(self) -> dict[str, Any]:
        try:
            work, why = await figures(self.metrics_url), None
        except (httpx.HTTPError, ValueError, KeyError) as error:
            work, why = None, f"{self.metrics_url}: {error or type(error).__name__}; set server-metrics"
        return {
            "address": self.address,
            "ready": self.ready,
            "why": self.why,
            "models": [
                {
                    "id": name,
                    "variant": each.served.variant,
                    "placement": each.served.placement,
                    "emulated": dict(each.served.emulated),
                }
                for name, each in self.offers.items()
            ],
            "in_flight_here": self.in_flight,
            "work": work,
            "work_unknown_because": why,
        }

    async def close(self) -> None:
        await self.transport.close()
