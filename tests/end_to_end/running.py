"""`python -m server run` and the commands beside it, as processes."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import psutil

from server.direct import Connection
from server.keys import operator_parameters
from server.models import model_processes
from server.process import Ports

ROOT = Path(__file__).resolve().parents[2]
PROXY = {**os.environ, "http_proxy": "http://127.0.0.1:1", "no_proxy": ""}
"""For the addresses of others: who starts and asks a server here goes past it."""


class Running:
    """A `server run` of its own, and what it said."""

    def __init__(self, repository, *options, address="127.0.0.1"):
        self.ports = Ports.free()
        self.host = f"[{address}]" if ":" in address else address
        ports = [f"--{name}-port={getattr(self.ports, name)}" for name in ("http", "grpc", "metrics", "health")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "server", "run", str(repository), "--address", address, *ports, *options],
            cwd=ROOT,
            env=PROXY,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = []
        self.url = f"{self.host}:{self.ports.grpc}"
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True)
        self._reader.start()

    @property
    def connection(self):
        """An operator's, from the same machine."""
        return Connection(self.url, parameters=operator_parameters(self.url))

    def ask(self, question):
        """Status and document."""
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.ports.health}/{question}", timeout=5) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def answers(self):
        try:
            return self.ask("live")
        except urllib.error.URLError:
            return None

    def until(self, condition, timeout_s=60):
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None and time.monotonic() < deadline, self.lines[-5:]
            time.sleep(0.05)

    def said(self, text):
        return [line for line in self.lines if text in line]

    def until_ready(self):
        self.until(lambda: self.said("ready after"))

    def end(self, timeout_s=60):
        """Exit code, once all was read."""
        code = self.process.wait(timeout_s)
        self._reader.join(5)
        return code


@contextmanager
def running(repository, *options, address="127.0.0.1"):
    started = Running(repository, *options, address=address)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()


def models_of(run):
    """Model -> process id."""
    (server,) = psutil.Process(run.process.pid).children()
    return {model: pid for pid, model in model_processes(server.pid).items()}


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "server", *arguments], cwd=ROOT, env=PROXY, capture_output=True, text=True)
