"""Who is let in by a browser's word, and what browsers may do with an answer: hosts, origins, security headers."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import ApiError
from ..settings import Settings

SAFE = ("GET", "HEAD", "OPTIONS")
PROBES = ("/healthz", "/readyz", "/metrics")
"""Asked by machines under names that are nobody's business."""
_POLICY = "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), microphone=(), camera=(self)",
    "Content-Security-Policy": _POLICY,
}
_CORS = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Allow-Headers": "Authorization, *",
    "Access-Control-Max-Age": "600",
}
"""Any header but the first is meant by the star: packages such as OpenAI's send ever more of their own, and no cookie opens anything."""


class Door:
    """Refuses requests to unknown hosts (another page's name may lead here) and by pages of unknown origins."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._host = urlsplit(settings.public_url).hostname
        self._origins = {_origin(url) for url in (*settings.cors_origin, settings.public_url) if url}
        self._cors = {_origin(url) for url in settings.cors_origin}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, path = Headers(scope=scope), scope["path"]
        origin = headers.get("origin")
        allowed = origin is not None and _origin(origin) in self._cors

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._dress(MutableHeaders(scope=message), path, origin if allowed else None)
            await send(message)

        refused = self._refusal(scope["method"], path, headers.getlist("host"), origin)
        if refused is not None:
            await JSONResponse(refused.as_json(), refused.status)(scope, receive, answer)
        elif allowed and scope["method"] == "OPTIONS":
            await Response(status_code=204, headers=_CORS)(scope, receive, answer)
        else:
            await self._app(scope, receive, answer)

    def _refusal(self, method: str, path: str, hosts: list[str], origin: str | None) -> ApiError | None:
        if path not in PROBES and not (len(hosts) == 1 and self._is_ours(hosts[0])):
            name = ", ".join(hosts)[:80]
            return ApiError(
                403, f"Host: '{name}' is not this gateway's; the operator names it by --public-url", code="host_refused"
            )
        if origin is not None and method not in SAFE and not self._may_ask(origin, hosts):
            known = f"Origin: pages of '{origin[:80]}' may not ask here; the operator lets them by --cors-origin"
            return ApiError(403, known, code="origin_refused")
        return None

    def _is_ours(self, host: str) -> bool:
        """Names of loopback, the public name, and addresses, which no foreign name server can give out."""
        name = _hostname(host) or ""
        if name and name in ("localhost", self._host):
            return True
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    def _may_ask(self, origin: str, hosts: Iterable[str]) -> bool:
        scheme, _, place = origin.partition("://")
        return _origin(origin) in self._origins or (scheme in ("http", "https") and place in hosts)

    @staticmethod
    def _dress(headers: MutableHeaders, path: str, cors_origin: str | None) -> None:
        for name, value in _ALWAYS.items():
            headers.setdefault(name, value)
        if path.startswith("/v1/"):
            headers.setdefault("Cache-Control", "no-store")
        if path.startswith("/v1/files/"):
            headers["Cross-Origin-Resource-Policy"] = "cross-origin"  # their addresses are secrets by themselves
        headers.add_vary_header("Origin")
        if cors_origin is not None:
            headers["Access-Control-Allow-Origin"] = cors_origin
            headers["Access-Control-Expose-Headers"] = "*"


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _origin(url: str) -> str:
    """As browsers write it: nothing after host and port, in lower case."""
    return url.lower().rstrip("/")
