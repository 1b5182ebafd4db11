"""What the gateway is and offers: `/v1/models`, `/v1/capabilities`, `/healthz`, `/readyz`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from ..errors import BUSY_RETRY_S, ApiError
from ..keys.dependency import AnyCaller, StatusCaller
from ..state import gateway_of

router = APIRouter()


@router.get("/healthz", tags=["operation"])
async def healthz() -> dict[str, str]:
    """The gateway itself runs."""
    return {"status": "ok"}


@router.get("/readyz", tags=["operation"])
async def readyz(request: Request) -> JSONResponse:
    """Whether a picture can be drawn now: some server is ready, and the gateway is not stopping. 200 or 503."""
    gateway = gateway_of(request)
    ready = sum(backend.ready for backend in gateway.pool.backends)
    ok = ready > 0 and not gateway.pool.draining
    told = {"status": "ready" if ok else "stopping" if gateway.pool.draining else "no server is ready", "servers_ready": ready}
    return JSONResponse(told, 200 if ok else 503, headers={} if ok else {"Retry-After": str(int(BUSY_RETRY_S))})


@router.get("/metrics", tags=["operation"], response_class=Response)
async def metrics(request: Request, caller: StatusCaller) -> Response:
    """For Prometheus."""
    gateway = gateway_of(request)
    return Response(gateway.metrics.text(gateway.pool.backends, gateway.jobs.runner.load), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/models", tags=["about"])
async def models(request: Request, caller: AnyCaller) -> dict[str, Any]:
    """Served models, and their variants, by whose names they can be asked for as well."""
    return {"object": "list", "data": [_listed(name) for name in gateway_of(request).pool.models()]}


@router.get("/v1/models/{model}", tags=["about"])
async def model(request: Request, caller: AnyCaller, model: str) -> dict[str, Any]:
    gateway_of(request).pool.resolve(model)
    return _listed(model)


@router.get("/v1/capabilities", tags=["about"])
async def capabilities(request: Request, caller: AnyCaller) -> dict[str, Any]:
    """Models with defaults, ranges and meanings of their parameters; marks, checks and rules; limits of the key; features."""
    gateway = gateway_of(request)
    offers = gateway.pool.offers()
    if not offers:
        gateway.pool.resolve(None)
        raise ApiError(503, "no server is ready", code="server_unavailable", retry_after_s=BUSY_RETRY_S)
    return {
        "object": "capabilities",
        "default_model": gateway.pool.resolve(None).model,
        "models": [offer.as_json() for offer in offers.values()],
        "key": {"name": caller.name, "scopes": sorted(caller.scopes), "limits": asdict(caller.limits)},
        "upload": {"largest_mib": gateway.settings.upload_mib, "most_parts": gateway.settings.upload_parts},
        "features": {
            "stream": True,
            "jobs": True,
            "faces": any(offer.faces for offer in offers.values()),
            "verify": any(offer.verify for offer in offers.values()),
            "translate": True,
            "recipes": True,
            "open_access": gateway.keys.is_open,
            "consent_required": any(offer.consent_required for offer in offers.values()),
        },
    }


def _listed(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "faceclip"}
