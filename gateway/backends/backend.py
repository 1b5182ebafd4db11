"""One FaceCLIP server: what it offers, how it is, what it does for us now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from faceclip import AsyncFaceCLIPPipeline, AsyncGrpcTransport, FaceCLIPError, FaceCLIPOutput, Progress, ServedModel
from faceclip.address import parse_address
from faceclip.served import describe, is_offered

from ..drawing import Drawing

LOOK_TIMEOUT_S = 3.0
"""Of each question about its state."""


class Backend:
    """Belongs to one event loop."""

    def __init__(self, address: str, headers: dict[str, str] | None = None, root_certificates: Path | None = None) -> None:
        self.transport = AsyncGrpcTransport(parse_address(address), headers, root_certificates)
        self.address = self.transport.address
        self.pipelines: dict[str, AsyncFaceCLIPPipeline] = {}
        """Name of a served model -> its pipeline."""
        self.in_flight = 0
        self.ready = False
        self.why = "not asked yet"
        """Why it is not ready."""

    @property
    def models(self) -> list[ServedModel]:
        return [pipeline.config for pipeline in self.pipelines.values()]

    async def look(self) -> None:
        """Asks how it is and, where that is new, what it serves."""
        try:
            server = await self.transport.server(LOOK_TIMEOUT_S)
            if not server.ready:
                self.ready, self.why = False, "its models are not ready"
            elif not self.ready:
                await self._learn()
        except FaceCLIPError as error:
            self.ready, self.why = False, str(error)

    async def _learn(self) -> None:
        names = [state.name for state in await self.transport.models(LOOK_TIMEOUT_S) if state.ready]
        configs = await asyncio.gather(*(self.transport.model_config(name, LOOK_TIMEOUT_S) for name in names))
        offered = [describe(config) for config in configs if is_offered(config)]
        self.pipelines = {served.model: AsyncFaceCLIPPipeline(self.transport, served) for served in offered}
        self.ready, self.why = bool(offered), "" if offered else "it offers no FaceCLIP model"

    async def draw(self, model: str, drawing: Drawing) -> AsyncGenerator[Progress | FaceCLIPOutput, None]:
        """Closing it cancels the request on the server."""
        pipeline = self.pipelines[model]
        self.in_flight += 1
        try:
            if await pipeline.can_stream():
                async with aclosing(pipeline.stream(drawing.prompt, **drawing.options())) as events:
                    async for event in events:
                        yield event
            else:
                yield await pipeline(drawing.prompt, **drawing.options())
        finally:
            self.in_flight -= 1

    async def close(self) -> None:
        await self.transport.close()
