"""The three questions of `watch` over HTTP, and how to ask them: what an orchestrator's probes need, without Python or gRPC."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any

from faceclip_serving.contract.errors import UserError

if TYPE_CHECKING:
    from .watch import Watch

QUESTIONS = ("start", "ready", "live")


class HealthError(UserError):
    """The answer was no, or there was none."""


class HealthPort:
    """`GET /start`, `/ready`, `/live`: 200 or 503, with a JSON document that says why. Serves from the `with` statement on."""

    def __init__(self, address: str, port: int, watch: Watch) -> None:
        """Raises `OSError` if the port is taken."""

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # of a caller who connects and asks nothing

            def do_GET(self) -> None:
                question = self.path.strip("/")
                if question not in QUESTIONS:
                    self._send(404, {"ok": False, "why": f"expected one of /{', /'.join(QUESTIONS)}"})
                    return
                answer = getattr(watch, question)()
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

        self._http = ThreadingHTTPServer((address, port), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True, name="health")

    def __enter__(self) -> HealthPort:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()


def ask_health(url: str, question: str, timeout_s: float) -> str:
    """The document of a yes. Raises `HealthError` with the reason of a no. `url`: host and port."""
    address = url if "://" in url else f"http://{url}"
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/{question}", timeout=timeout_s) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        raise HealthError(f"{url}: {question}: no: {_why(error.read())}") from None
    except (OSError, ValueError) as error:
        raise HealthError(f"{url}: {question}: no answer ({error}); the server listens there with --health-port") from None


def _why(body: bytes) -> str:
    try:
        return str(json.loads(body)["why"])
    except (ValueError, KeyError, TypeError):
        return "the answer is not ours; is --url the health port?"
