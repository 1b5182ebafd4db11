"""The three questions of `watch` over HTTP, and how to ask them: what an orchestrator's probes need, without Python or gRPC."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import urllib.error
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Protocol

from faceclip_serving.contract.errors import UserError

from .defaults import Address
from .direct import open_url

QUESTIONS = ("start", "ready", "live")


class HealthError(UserError):
    """The answer was no, or there was none."""


class Asked(Protocol):
    """Who answers: a server's watch, or a fleet. Each answer is a dataclass with `ok`."""

    def start(self) -> Any: ...
    def ready(self) -> Any: ...
    def live(self) -> Any: ...


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # else the caller has left, which is no fault of ours


class HealthPort:
    """`GET /start`, `/ready`, `/live`: 200 or 503, with a JSON document that says why. Serves from the `with` statement on."""

    def __init__(self, address: Address, port: int, asked: Asked) -> None:
        """Raises `OSError` if the port is taken."""

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # of a caller who connects and asks nothing

            def do_GET(self) -> None:
                question = self.path.strip("/")
                if question not in QUESTIONS:
                    self._send(404, {"ok": False, "why": f"expected one of /{', /'.join(QUESTIONS)}"})
                    return
                answer = getattr(asked, question)()
                self._send(200 if answer.ok else 503, asdict(answer))

            def _send(self, status: int, document: dict[str, Any]) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Probes come every few seconds: they are not worth a line."""

        class Server(_Server):
            address_family = address.family

        self._http = Server((address.text, port), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True, name="health")

    def __enter__(self) -> HealthPort:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()


def ask_health(url: str, question: str, timeout_s: float) -> str:
    """The document of a yes. Raises `HealthError` with the reason of a no. `url`: host and port."""
    if question not in QUESTIONS:
        raise HealthError(f"question: expected one of {', '.join(QUESTIONS)}, got '{question}'")
    address = url if "://" in url else f"http://{url}"
    try:
        body = _read(f"{address.rstrip('/')}/{question}", timeout_s)
    except (OSError, ValueError, OverflowError, http.client.HTTPException) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise HealthError(f"{url}: {question}: no answer ({why}); the server listens there with --health-port") from None
    try:
        document = json.loads(body)
        ok, why = document["ok"], document["why"]
    except (ValueError, KeyError, TypeError):
        raise HealthError(f"{url}: {question}: no: the answer is not ours; is --url the health port?") from None
    if ok is not True:
        raise HealthError(f"{url}: {question}: no: {why}")
    return str(body.decode())


def _read(url: str, timeout_s: float) -> bytes:
    """Of a yes and a no alike."""
    try:
        with open_url(url, timeout=timeout_s) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        return error.read()
