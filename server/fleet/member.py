"""One process of a fleet, a server or the proxy: started, watched, and started again when it dies."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

LOOK_EVERY_S = 0.5
FIRST_DELAY_S, MOST_DELAY_S = 1.0, 60.0
"""Before a process that died is started again: twice as long each time, until it has been ready for `STEADY_S`."""
STEADY_S = 60.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class Member:
    """Attributes may be read by any thread."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        is_ready: Callable[[], tuple[bool, str]],
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`is_ready`: whether it takes work, and why not; asked twice a second. `log`: file to which its output is added, else stderr.

        `tell` hears a line whenever its state changes.
        """
        self.name = name
        self.why = "starting"
        self.failures = 0
        """How often it ended by itself, or could not be started."""
        self.readied = 0
        """How often it became ready."""
        self._command, self._environment, self._log = command, environment, log
        self._is_ready, self._tell = is_ready, tell
        self._process: subprocess.Popen[bytes] | None = None
        self._told: subprocess.Popen[bytes] | None = None
        """The process that was told to end: a second signal would cut what it has in flight."""
        self._lock = threading.Lock()
        self._over, self._wanted = threading.Event(), threading.Event()
        self._said_ready, self._ready_since = False, math.inf
        self._living = threading.Thread(target=self._live, daemon=True, name=f"{name}: lives")
        self._looking = threading.Thread(target=self._look, daemon=True, name=f"{name}: looks")

    def start(self) -> None:
        self._living.start()
        self._looking.start()

    @property
    def pid(self) -> int | None:
        """None: it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def ready(self) -> bool:
        return self._said_ready and self.pid is not None

    @property
    def ended(self) -> bool:
        """For good."""
        return not self._living.is_alive()

    @property
    def line(self) -> str:
        """One line: its name, whether it is ready, why not."""
        state = "ready" if self.ready else "not ready"
        again = f" (deaths: {self.failures})" if self.failures else ""
        return f"{self.name}: {state}: {self.why}{again}"

    def restart(self) -> None:
        """Tells the process to end, and starts it again at once when it has."""
        with self._lock:
            if self.pid is not None:
                self._wanted.set()
                self._tell_to_end()

    def stop(self) -> None:
        """Tells the process to end, for good, where a restart has not done so; a second time: at once. Returns before it has."""
        with self._lock:
            self._tell_to_end(again=self._over.is_set())
            self._over.set()

    def join(self, timeout_s: float) -> None:
        """Waits for the end after `stop`, and kills what is left then."""
        self._living.join(timeout_s)
        if self._living.is_alive():
            with contextlib.suppress(ProcessLookupError):
                if self.pid is not None:
                    os.killpg(self.pid, signal.SIGKILL)
            self._living.join()
        self._looking.join()

    def _tell_to_end(self, again: bool = False) -> None:
        process = self._process
        if process is not None and process.poll() is None and (again or process is not self._told):
            self._told = process
            process.send_signal(signal.SIGTERM)

    def _live(self) -> None:
        """Lives as long as the member: Linux ends a child with the *thread* that started it."""
        delay_s = FIRST_DELAY_S
        while not self._over.is_set():
            try:
                process = self._begin()
            except (OSError, subprocess.SubprocessError) as error:  # no memory, no file, no process left: that may pass
                how, steady = f"could not be started ({error})", False
            else:
                if process is None:
                    break
                how, steady = f"ended with code {process.wait()}", time.monotonic() - self._ready_since > STEADY_S
                if self._over.is_set():
                    break
                if self._wanted.is_set():
                    self._wanted.clear()
                    continue
            self.failures += 1
            delay_s = FIRST_DELAY_S if steady else delay_s
            self._tell(f"{self.name}: {how}; is started again in {delay_s:g} s")
            self._over.wait(delay_s)
            delay_s = min(2 * delay_s, MOST_DELAY_S)

    def _begin(self) -> subprocess.Popen[bytes] | None:
        """None: it is to end. Raises `OSError` and `subprocess.SubprocessError`."""
        with self._lock, contextlib.ExitStack() as stack:
            if self._over.is_set():
                return None
            self._ready_since = math.inf
            log: Any = sys.stderr
            if self._log:
                self._log.parent.mkdir(parents=True, exist_ok=True)  # whoever tidies up may take the folder away
                log = stack.enter_context(self._log.open("ab"))
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(self._environment or {})},
                start_new_session=True,  # Ctrl-C reaches the fleet alone, which then stops its members in order
                preexec_fn=_die_with_parent,
            )
            return self._process

    def _look(self) -> None:
        while self._living.is_alive():
            ready, why = self._is_ready() if self.pid is not None else (False, "starting")
            if ready and not self._said_ready:
                self._ready_since = time.monotonic()
                self.readied += 1
            changed = (ready, "" if ready else why) != (self._said_ready, "" if self._said_ready else self.why)
            self._said_ready, self.why = ready, why
            if changed:
                self._tell(self.line)
            self._living.join(LOOK_EVERY_S)
        self._said_ready, self.why = False, "stopped"


def _die_with_parent() -> None:
    """A member ends in order when the fleet is killed, whatever the way."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
