"""Two servers under load, and one of them goes: by a drain, a kill, the death of a model, a restart of all. How many calls fail.

A stream that has had an answer cannot be saved by a proxy when its server dies, so streams are told apart. So is what began before and
after the event was noticed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faceclip_serving.contract.names import DEFAULT_DEPLOYMENT, SAMPLER
from server.control import drain, resume
from server.fleet.fleet import LINGER_S

from ..measure.report import say
from .load import Calls, Kind, calling
from .running import Fleet, running

UNARY, STREAM = Kind("unary", steps=20), Kind("stream", steps=20, streamed=True)
CALLERS = {UNARY: 6, STREAM: 3}
BEFORE_S = 4.0
"""Of load, before and after what happens."""
DRAIN_S = 5.0


def losses(repository: Path, folder: Path) -> dict[str, Any]:
    """Event -> what became of the calls."""
    events: dict[str, Callable[[Fleet], float]] = {
        "drain": _drain,
        "sigkill": _kill,
        "stub": _kill_stub,
        "rolling_restart": _rolling_restart,
        "stop": _stop,
    }
    found: dict[str, Any] = {}
    with running(repository, 2, folder / "fleet.log", f"--logs={folder}") as fleet:
        for name, event in events.items():
            with calling(fleet.url, CALLERS) as calls:
                time.sleep(BEFORE_S)
                noticed = event(fleet)
                if name != "stop":
                    fleet.until(lambda: fleet.ready_servers() == 2)
                    time.sleep(BEFORE_S)
            found[name] = {**calls.told(), **_lost(calls, noticed)}
            say(f"{name}: {found[name]}")
    return found


def _lost(calls: Calls, noticed: float) -> dict[str, int]:
    failed = calls.failed()
    return {
        "unary": sum(not call.kind.streamed for call in failed),
        "streams_begun": sum(call.kind.streamed and call.answered for call in failed),
        "streams_not_begun": sum(call.kind.streamed and not call.answered for call in failed),
        "begun_before": sum(call.began < noticed for call in failed),
        "begun_after": sum(call.began >= noticed for call in failed),
    }


def _drain(fleet: Fleet) -> float:
    """One of two; then it takes work again."""
    began = time.monotonic()
    drain(fleet.connection(0), [DEFAULT_DEPLOYMENT], 60, linger_s=LINGER_S)
    time.sleep(DRAIN_S)
    resume(fleet.connection(0), [DEFAULT_DEPLOYMENT])
    return began


def _kill(fleet: Fleet) -> float:
    """All of one server, as when a machine goes down."""
    return _noticed(fleet, lambda: fleet.kill(0))


def _kill_stub(fleet: Fleet) -> float:
    """The sampler's process, because of which `server run` ends its server."""
    return _noticed(fleet, lambda: fleet.kill_model(0, SAMPLER))


def _noticed(fleet: Fleet, kill: Callable[[], None]) -> float:
    """When the fleet has noticed the death of its first server."""
    died = fleet.ready()[1]["server 0"]["died"]
    kill()
    fleet.until(lambda: fleet.ready()[1].get("server 0", {"died": died})["died"] > died)
    return time.monotonic()


def _rolling_restart(fleet: Fleet) -> float:
    began = time.monotonic()
    fleet.restart()
    fleet.until(lambda: fleet.said("all servers were restarted"))
    return began


def _stop(fleet: Fleet) -> float:
    """All of them: what was in flight is finished; what comes later is refused, and never begun."""
    began = time.monotonic()
    fleet.end()
    return began
