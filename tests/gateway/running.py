"""`python -m gateway run` as a process, and what it said."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "client")}
ADDRESS = re.compile(r"the gateway answers at (http://\S+)")
START_S = 60


class Running:
    """A gateway of its own. `options`: flags of `run`. `environment`: what it has besides ours."""

    def __init__(self, server_url, data, *options, environment=None):
        self.data = Path(data)
        servers = [f"--server={url}" for url in ([server_url] if isinstance(server_url, str) else server_url)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "run", *servers, "--port=0", f"--data={data}", *options],
            cwd=ROOT,
            env={**ENVIRONMENT, **(environment or {})},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = []
        self._said = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._said.wait(START_S), self.lines
        self.url = next((found[1] for line in self.lines if (found := ADDRESS.search(line))), "")
        assert self.url, self.lines
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)
            if ADDRESS.search(line):
                self._said.set()
        self._said.set()

    @property
    def log(self):
        """The lines of requests."""
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

    def logged(self, request_id):
        """The line of a request, which is written after its last byte."""
        return until(lambda: next((line for line in self.log if line["id"] == request_id), None))

    def end(self, timeout_s=60):
        self.process.terminate()
        code = self.process.wait(timeout_s)
        self._reader.join(5)
        return code


@contextmanager
def running(server_url, data, *options, environment=None):
    started = Running(server_url, data, *options, environment=environment)
    try:
        yield started
    finally:
        started.http.close()
        started.process.kill()
        started.process.wait()


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)
    return found
