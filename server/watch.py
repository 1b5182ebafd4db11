"""Looks after a running server, and answers three questions about it.

- Started: the smallest guided request with a face has gone through all models once.
- Ready: the server takes new work. A full server is ready: it refuses with a hint when to come back. A draining one is not.
- Live: a restart would not help. Every model's process and every thread of each sampler is there, and none of these threads has been
  at one piece of work for too long.

Triton 2.51 calls itself ready when a model's process has died, so the processes are looked at; and whoever waits for that model would
wait for ever, so the server is ended. Answers come from memory: a thread looks twice a second, with bounded waits.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import tritonclient.grpc as grpc

from faceclip_serving.contract.operations import Status

from .control import ControlError, ask_with
from .defaults import STALL_TIMEOUT_S
from .direct import grpc_client
from .models import model_processes, runs
from .process import TritonServer

LOOK_EVERY_S = 0.5
ASK_TIMEOUT_S = 2.0
UNANSWERED_S = 5.0
"""A sampler that has not answered for so long is not ready; a busy machine may delay one answer."""
LAST_WORDS_S = 5.0
"""A server that does not load ends by itself, and its log says why."""


@dataclass(frozen=True)
class Answer:
    ok: bool
    why: str
    deployments: dict[str, dict[str, Any]]
    """Deployment -> what its sampler said last, see `Service.status`."""


class Watch:
    """Watches from the `with` statement on. Attributes may be read by any thread."""

    def __init__(self, server: TritonServer, stall_timeout_s: float = STALL_TIMEOUT_S) -> None:
        self._server = server
        self._stall_timeout_s = stall_timeout_s
        self._processes: dict[int, str] = {}
        self._said: dict[str, dict[str, Any]] = {}
        self._heard_at: dict[str, float] = {}
        self._looked_at = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_after, daemon=True, name="watch")
        self.started = False
        self.stopping = False
        self.dead: str | None = None
        """What died, in words; the server was ended because of it."""

    # ---------------------------------------------------------------------------------------------------------------- questions
    def start(self) -> Answer:
        return self._answer(self._dead() or ("" if self.started else "the first request has not succeeded yet"))

    def ready(self) -> Answer:
        return self._answer(self._dead() or self._not_ready())

    def live(self) -> Answer:
        return self._answer(self._dead() or self._stalled())

    def _answer(self, fault: str) -> Answer:
        in_flight = sum(int(said["in_flight"]) for said in self._said.values())
        return Answer(not fault, fault or f"{in_flight} in flight", dict(self._said))

    def _dead(self) -> str:
        if self.dead is None and self._server.ended:
            return "tritonserver has ended"
        return self.dead or ""

    def _not_ready(self) -> str:
        if not self.started:
            return "starting"
        if self.stopping or any(said["draining"] for said in self._said.values()):
            return "draining: takes no new work"
        for name in self._server.interfaces:
            if (silent_s := self._silent_s(name)) > UNANSWERED_S:
                return f"the sampler of '{name}' has not answered for {silent_s:.0f} s"
        return self._stalled()

    def _stalled(self) -> str:
        if (since := time.monotonic() - self._looked_at) > UNANSWERED_S + ASK_TIMEOUT_S * len(self._server.interfaces):
            return f"nothing has looked after the server for {since:.0f} s"
        for name in self._server.interfaces if self.started else ():
            silent_s = self._silent_s(name)
            if silent_s > self._stall_timeout_s:
                return f"the sampler of '{name}' has not answered for {silent_s:.0f} s"
            stalled_s = float(self._said[name]["stalled_s"]) if name in self._said else 0.0
            if stalled_s > self._stall_timeout_s:
                return f"the sampler of '{name}' has work and has not come round for {stalled_s:.0f} s"
        return ""

    def _silent_s(self, name: str) -> float:
        return time.monotonic() - self._heard_at.get(name, self._looked_at)

    # ------------------------------------------------------------------------------------------------------------------ the thread
    def _look_after(self) -> None:
        with grpc_client(self._server.connection) as client:
            while not self._over.is_set() and not self._server.ended:
                if died := self._died():
                    self._over.wait(0.0 if self.started else LAST_WORDS_S)
                    if not self._over.is_set() and not self._server.ended:
                        self.dead = died
                        self._server.kill()
                    return
                if self.started:
                    self._ask_samplers(client)
                self._looked_at = time.monotonic()
                self._over.wait(LOOK_EVERY_S)

    def _died(self) -> str:
        """What is no longer there, in words; empty if all is."""
        if not self.started:
            self._processes |= model_processes(self._server.pid)
        for pid, model in self._processes.items():
            if not runs(pid, self._server.pid):
                return f"the process of the model '{model}' has died"
        for name, said in self._said.items():
            if not said["threads_alive"]:
                return f"the sampler of '{name}' has lost a thread"
        return ""

    def _ask_samplers(self, client: grpc.InferenceServerClient) -> None:
        for name in self._server.interfaces:
            try:
                self._said[name] = ask_with(client, self._server.connection, Status(), name, ASK_TIMEOUT_S)
                self._heard_at[name] = time.monotonic()
            except ControlError:
                self._heard_at.setdefault(name, time.monotonic())  # silent from now on

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """Looks no longer; before the server is stopped, since its models' processes end first then."""
        self._over.set()
        self._thread.join(ASK_TIMEOUT_S)
