"""A translator over HTTP that is slow in one of several ways."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = b" " * 500 + json.dumps({"prompt": "a woman"}).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(ANSWER)
BETWEEN_S = 0.1
"""Two bytes of what comes slowly: no limit of a read ends it."""
WAYS = {
    "silent": (b"", b""),
    "head": (b"", HEAD + b"\r\n" + ANSWER),
    "lines of the head": (HEAD, b"".join(b"X-%d: x\r\n" % i for i in range(90)) + b"\r\n" + ANSWER),
    "body": (HEAD + b"\r\n", ANSWER),
}
"""What comes at once, and what comes byte by byte."""


class SlowService:
    def __init__(self) -> None:
        self.asked = 0
        self.waiting = 0
        self.most = 0
        """Questions that waited at once."""
        self.lock = threading.Lock()
        self.left = threading.Semaphore(0)
        """Released for each question whose asker has gone."""
        self.ended = threading.Event()


@contextmanager
def slow_service(way: str = "silent") -> Iterator[tuple[str, SlowService]]:
    """Its address and what it saw."""
    seen = SlowService()
    at_once, slowly = WAYS[way]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with seen.lock:
                seen.asked, seen.waiting = seen.asked + 1, seen.waiting + 1
                seen.most = max(seen.most, seen.waiting)
            try:
                self._answer()
            finally:
                with seen.lock:
                    seen.waiting -= 1

        def _answer(self) -> None:
            self.wfile.write(at_once)
            self.connection.settimeout(BETWEEN_S)
            for i in range(10_000):
                if seen.ended.is_set():
                    return
                try:
                    if i < len(slowly):
                        self.wfile.write(slowly[i : i + 1])
                    elif slowly:
                        return
                    if not self.connection.recv(1):
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
            seen.left.release()

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 256

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/translate", seen
        finally:
            seen.ended.set()
            server.shutdown()
            thread.join()
