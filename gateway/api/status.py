"""`GET /v1/status`: how the servers are now."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from ..keys.dependency import StatusCaller
from ..state import gateway_of

router = APIRouter(prefix="/v1", tags=["about"])


@router.get("/status")
async def status(request: Request, caller: StatusCaller) -> dict[str, Any]:
    """Per server: whether it is ready, what it serves and on what; its queue, rows per tick and latency, where its metrics can be read."""
    backends = gateway_of(request).pool.backends
    return {"object": "status", "servers": await asyncio.gather(*(backend.status() for backend in backends))}
