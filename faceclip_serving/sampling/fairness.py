"""Tenants share a server: whose request goes next, and whose makes room. A flood delays itself first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .requests import Request, State


class Fairness:
    """Whose turn it is in the denoiser. Remembers who had the last ones, since a turn that is free was somebody's a moment ago."""

    def __init__(self, batch_head_start_s: float) -> None:
        self._head_start_s = batch_head_start_s
        self._last_turns: dict[str, int] = {}
        """Tenant -> when it had its last turn, or came, counted in turns: who comes goes after those who wait since before."""
        self._turns = 0

    def next(self, waiting: Sequence[Request], active: Sequence[Request], count: int, now: float) -> list[Request]:
        """At most `count` of `waiting`, in order: whose pictures were drawn before, then of the tenant that is served least, then of who
        may not wait, then of the tenant whose last turn (or coming) was longest ago, the most urgent."""
        for request in waiting:
            self._last_turns.setdefault(request.tenant, self._turns)
        served = Counter(request.tenant for request in active)
        left, chosen = list(waiting), list[Request]()
        while left and len(chosen) < count:
            request = min(
                left,
                key=lambda request: (
                    not request.drawn,
                    served[request.tenant],
                    self._urgency(request) > now,  # it may wait
                    self._last_turns[request.tenant],
                    self._urgency(request),
                ),
            )
            left.remove(request)
            chosen.append(request)
            served[request.tenant] += 1
            self._turns += 1
            self._last_turns[request.tenant] = self._turns
        return chosen

    def forget_all_but(self, tenants: set[str]) -> None:
        """Those who are not here any more."""
        self._last_turns = {tenant: turn for tenant, turn in self._last_turns.items() if tenant in tenants}

    def _urgency(self, request: Request) -> float:
        """When it would have come if it was not of priority `batch`."""
        return request.since + (self._head_start_s if request.priority == "batch" else 0.0)


def displaced_by(tenant: str, placed: Sequence[Request]) -> tuple[Request | None, int]:
    """Who makes room in a full server for a request of `tenant`, and how many its own tenant has: the latest that is not served yet, of
    the tenant that has most, if that one would still have as many as the newcomer's. `placed`: the oldest first."""
    held = Counter(request.tenant for request in placed)
    unserved = [request for request in placed if request.state is not State.ACTIVE and not request.drawn]
    latest = max(reversed(unserved), key=lambda request: (held[request.tenant], request.since), default=None)
    if latest is None or held[latest.tenant] <= held[tenant] + 1:
        return None, 0
    return latest, held[latest.tenant]
