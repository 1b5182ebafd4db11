"""`/docs`: the endpoints, from `/openapi.json`, by a page that loads nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

from ..errors import ApiError

router = APIRouter(include_in_schema=False)
FOLDER = Path(__file__).parent / "reference"
FILES = {"reference.js": "text/javascript", "reference.css": "text/css"}


@router.get("/docs")
async def page() -> FileResponse:
    return FileResponse(FOLDER / "index.html", media_type="text/html")


@router.get("/docs/{name}")
async def file(name: str) -> FileResponse:
    if name not in FILES:
        raise ApiError(404, f"/docs/{name[:80]}: nothing is there", code="not_found")
    return FileResponse(FOLDER / name, media_type=FILES[name])
