"""What the gateway is and offers: `/v1/models`, `/v1/capabilities`, `/healthz`, `/readyz`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends, Request

from faceclip import ServedModel

from ..keys.caller import Caller
from ..keys.dependency import allowed
from ..state import gateway_of

router = APIRouter()


@router.get("/healthz", tags=["operation"])
async def healthz() -> dict[str, str]:
    """The gateway itself runs."""
    return {"status": "ok"}


@router.get("/v1/capabilities", tags=["about"])
async def capabilities(request: Request, caller: Caller = Depends(allowed("images"))) -> dict[str, Any]:
    """Models with their parameters' defaults, ranges and meanings; limits of the key; features."""
    gateway = gateway_of(request)
    served = {model.model: model for model in gateway.pool.models().values()}
    return {
        "object": "capabilities",
        "models": [_model(model) for model in served.values()],
        "limits": asdict(caller.limits),
        "features": {
            "stream": True,
            "jobs": True,
            "faces": True,
            "verify": True,
            "translate": True,
            "open_access": gateway.keys.is_open,
        },
    }


def _model(served: ServedModel) -> dict[str, Any]:
    return {
        "id": served.model,
        "variant": served.variant,
        "placement": served.placement,
        "emulated": dict(served.emulated),
        "defaults": dict(served.defaults),
        "limits": {name: dict(limits) for name, limits in served.limits.items()},
    }
