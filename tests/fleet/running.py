"""`python -m server fleet` as a process, with servers on the CPU."""

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import psutil

from server.defaults import Ports
from tests.deploy.envoy import ENVOY

ROOT = Path(__file__).resolve().parents[2]


class Running:
    def __init__(self, repository, servers, *options):
        self.port, self.health, *_ = vars(Ports.free()).values()
        first = 20_000 + os.getpid() % 1000 * 30  # a hundred ports in a row that other processes of the tests do not take
        self.grpc_ports = [first + 10 * number + 1 for number in range(servers)]
        command = [sys.executable, "-m", "server", "fleet", str(repository), "--emulate"]
        named = ["--gpus", ",".join(map(str, range(servers))), "--port", str(self.port), "--health-port", str(self.health)]
        self.process = subprocess.Popen(
            [*command, *named, "--first-port", str(first), *options],
            cwd=ROOT,
            env={**os.environ, "PATH": f"{Path(ENVOY).parent}:{os.environ['PATH']}"},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True)
        self._reader.start()

    @property
    def url(self):
        return f"127.0.0.1:{self.port}"

    def ask(self, question):
        """Status and document."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/{question}", timeout=5) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def launchers(self):
        """The processes of `server run`, by their gRPC ports."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            if port := re.search(r"--grpc-port=(\d+)", " ".join(child.cmdline())):
                found[int(port[1])] = child
        return found

    def said(self, text):
        return [line for line in self.lines if text in line]

    def until(self, condition, timeout_s=90):
        deadline = time.monotonic() + timeout_s
        while not (found := condition()):
            assert self.process.poll() is None and time.monotonic() < deadline, self.lines[-20:]
            time.sleep(0.05)
        return found

    def end(self, timeout_s=90):
        code = self.process.wait(timeout_s)
        self._reader.join(5)
        return code


@contextmanager
def running(repository, servers, *options):
    fleet = Running(repository, servers, *options)
    try:
        yield fleet
    finally:
        members = psutil.Process(fleet.process.pid).children(recursive=True) if fleet.process.poll() is None else []
        fleet.process.kill()
        fleet.process.wait()
        for member in members:
            if member.is_running():
                member.kill()
