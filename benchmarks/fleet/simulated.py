"""Many servers and the proxies before them, simulated: events, not time. No network, no machine, no picture.

A server shares its denoiser among `max_active` requests: every step of all of them is one call, so each goes on at the same pace, which
falls with their number. `max_waiting` more wait for a place, and further ones are refused. A proxy sees its own requests only, sends a
refused one to another server three times, and hears of new servers at once. Which server it takes, and how many there are, policies say.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Assumptions:
    """All that is assumed. A denoiser's call has the form that was measured of real ones: a constant, and a part for each row."""

    call_s: float = 0.020
    row_s: float = 0.040
    rows: int = 2
    """Of a request in a call: with guidance."""
    steps: tuple[tuple[int, float], ...] = ((8, 0.6), (20, 0.3), (50, 0.1))
    """Steps of a request, and the share of such requests."""
    max_active: int = 8
    max_waiting: int = 8
    proxies: int = 2
    retries: int = 3
    boot_s: float = 180.0
    """From the wish for a server until it takes requests: engines are built, the image is on the node."""
    poll_s: float = 15.0
    """How often metrics are scraped and the number of servers is set."""

    @property
    def mean_steps(self) -> float:
        return sum(steps * share for steps, share in self.steps)

    def call(self, active: int) -> float:
        """Seconds of a call that makes a step of so many requests."""
        return self.call_s + self.row_s * self.rows * active

    @property
    def least_gpu_s(self) -> float:
        """GPU-seconds of a mean request in a full denoiser."""
        return self.mean_steps * self.call(self.max_active) / self.max_active


@dataclass
class Server:
    """`clock`: steps that each request which is active the whole time has had."""

    number: int
    clock: float = 0.0
    looked_at: float = 0.0
    active: list[tuple[float, int]] = field(default_factory=list)
    """A heap of (clock at its end, request)."""
    waiting: deque[tuple[int, int]] = field(default_factory=deque)
    """(request, its steps)."""
    version: int = 0
    draining: bool = False
    gpu_s: float = 0.0

    def go_on(self, now: float, assumed: Assumptions) -> None:
        if self.active:
            self.clock += (now - self.looked_at) / assumed.call(len(self.active))
            self.gpu_s += now - self.looked_at
        self.looked_at = now

    @property
    def in_flight(self) -> int:
        return len(self.active) + len(self.waiting)


Spread = Callable[[NDArray[np.int64], random.Random, int], int]
"""In flight of each server, as a proxy knows it; chance; how many it has sent before -> which server."""


@dataclass(frozen=True)
class Seen:
    """What Prometheus knows when the number of servers is set: sums over the fleet."""

    arrivals_per_s: float
    """Over two minutes."""
    gpu_s_of_a_request: float
    """Over fifteen."""
    in_flight: int
    waiting: int


Wish = Callable[[Seen], float]
"""Servers that are wanted, before rounding up."""


@dataclass
class Outcome:
    latencies_s: list[float] = field(default_factory=list)
    refused: int = 0
    gpus: list[tuple[float, int]] = field(default_factory=list)
    """(time, servers that are paid for from then on), those that boot and drain included."""
    busy_s: float = 0.0

    def mean_gpus(self, seconds: float) -> float:
        ends = [*(time for time, _ in self.gpus[1:]), seconds]
        return sum(number * (end - begin) for (begin, number), end in zip(self.gpus, ends, strict=True)) / seconds


class Fleet:
    """One run. `rate`: arrivals per second at a time, at most `most_per_s`. `effort`: by what the steps of a request that comes then are
    multiplied. `wish`: None: the number of servers stays."""

    def __init__(
        self,
        assumed: Assumptions,
        rate: Callable[[float], float],
        most_per_s: float,
        servers: int,
        spread: Spread,
        wish: Wish | None = None,
        largest: int = 0,
        seed: int = 0,
        effort: Callable[[float], float] = lambda now: 1.0,
    ) -> None:
        self._assumed, self._rate, self._most_per_s, self._spread, self._wish = assumed, rate, most_per_s, spread, wish
        self._effort = effort
        self._smallest, self._largest = 2, max(largest, servers)
        self._chance = random.Random(seed)
        self._servers: dict[int, Server] = {}
        self._events: list[tuple[float, int, str, int, int]] = []
        self._count = 0
        self._now = 0.0
        self._booting = 0
        self._next_server = 0
        self._began: dict[int, tuple[float, int]] = {}
        """Request -> when it came, by which proxy."""
        self._sent = [0] * assumed.proxies
        self._known = np.zeros((assumed.proxies, 64), np.int64)
        """Of each proxy: its own requests at each server."""
        self._open = np.zeros(0, np.int64)
        """Servers that take requests."""
        self._kinds, self._shares = zip(*assumed.steps, strict=True)
        self._samples: deque[tuple[float, int, float, int]] = deque()
        """(time, arrivals, GPU-seconds, ended), as counters."""
        self._wishes: deque[tuple[float, int]] = deque()
        self._arrived = self._ended = 0
        self._spent_s = 0.0
        """GPU-seconds of servers that have gone."""
        self.outcome = Outcome()
        for _ in range(servers):
            self._add_server()
        self._note_number()

    def run(self, seconds: float) -> Outcome:
        self._at(self._chance.expovariate(self._most_per_s), "arrival")
        self._at(self._assumed.poll_s, "poll")
        while self._events and self._events[0][0] <= seconds:
            self._now, _, what, number, version = heapq.heappop(self._events)
            if what == "arrival":
                self._at(self._now + self._chance.expovariate(self._most_per_s), "arrival")
                if self._chance.random() < self._rate(self._now) / self._most_per_s:
                    self._arrive()
            elif what == "end":
                server = self._servers.get(number)
                if server is not None and server.version == version:
                    self._end(server)
            elif what == "poll":
                self._poll()
            else:
                self._booting -= 1
                self._add_server()
        self.outcome.busy_s = self._gpu_s()
        return self.outcome

    def _at(self, time: float, what: str, number: int = 0, version: int = 0) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, what, number, version))

    # ------------------------------------------------------------------------------------------------------------ requests
    def _arrive(self) -> None:
        self._arrived += 1
        (steps,) = self._chance.choices(self._kinds, self._shares)
        steps = round(steps * self._effort(self._now))
        proxy = self._chance.randrange(self._assumed.proxies)
        left = self._open
        for _ in range(1 + self._assumed.retries):
            if not len(left):
                break
            place = self._spread(self._known[proxy, left], self._chance, self._sent[proxy])
            self._sent[proxy] += 1
            server = self._servers[int(left[place])]
            if server.in_flight < self._assumed.max_active + self._assumed.max_waiting:
                self._known[proxy, server.number] += 1
                self._began[self._arrived] = (self._now, proxy)
                self._take(server, self._arrived, steps)
                return
            left = np.delete(left, place)
        self.outcome.refused += 1

    def _take(self, server: Server, request: int, steps: int) -> None:
        if len(server.active) >= self._assumed.max_active:
            server.waiting.append((request, steps))
            return
        server.go_on(self._now, self._assumed)
        heapq.heappush(server.active, (server.clock + steps, request))
        self._expect_end(server)

    def _expect_end(self, server: Server) -> None:
        server.version += 1
        if server.active:
            left_s = (server.active[0][0] - server.clock) * self._assumed.call(len(server.active))
            self._at(self._now + max(0.0, left_s), "end", server.number, server.version)

    def _end(self, server: Server) -> None:
        server.go_on(self._now, self._assumed)
        _, request = heapq.heappop(server.active)
        began, proxy = self._began.pop(request)
        self._known[proxy, server.number] -= 1
        self._ended += 1
        self.outcome.latencies_s.append(self._now - began)
        if server.waiting:
            next_request, steps = server.waiting.popleft()
            heapq.heappush(server.active, (server.clock + steps, next_request))
        self._expect_end(server)
        if server.draining and not server.active:
            self._remove(server)

    # ------------------------------------------------------------------------------------------------------------- servers
    def _add_server(self) -> None:
        number = self._next_server
        self._next_server += 1
        self._servers[number] = Server(number, looked_at=self._now)
        if number >= self._known.shape[1]:
            self._known = np.pad(self._known, ((0, 0), (0, number)))
        self._open = np.append(self._open, number)

    def _remove(self, server: Server) -> None:
        self._spent_s += server.gpu_s
        del self._servers[server.number]
        self._note_number()

    def _note_number(self) -> None:
        self.outcome.gpus.append((self._now, len(self._servers) + self._booting))

    def _gpu_s(self) -> float:
        for server in self._servers.values():
            server.go_on(self._now, self._assumed)
        return self._spent_s + sum(server.gpu_s for server in self._servers.values())

    def _poll(self) -> None:
        self._at(self._now + self._assumed.poll_s, "poll")
        self._samples.append((self._now, self._arrived, self._gpu_s(), self._ended))
        while self._samples[0][0] < self._now - 900:
            self._samples.popleft()
        if self._wish is not None and len(self._samples) > 1:
            self._scale(math.ceil(self._wish(self._seen()) - 1e-9))

    def _seen(self) -> Seen:
        newest, oldest = self._samples[-1], self._samples[0]
        recent = next(each for each in self._samples if each[0] >= self._now - 120)
        recent = recent if recent is not newest else oldest
        ended = newest[3] - oldest[3]
        waiting = sum(len(server.waiting) for server in self._servers.values())
        return Seen(
            arrivals_per_s=(newest[1] - recent[1]) / (newest[0] - recent[0]),
            gpu_s_of_a_request=(newest[2] - oldest[2]) / ended if ended else 0.0,
            in_flight=len(self._began),
            waiting=waiting,
        )

    def _scale(self, wanted: int) -> None:
        """As Kubernetes' autoscaler does by the chart's rules: up at once, by as many as there are or by four in a minute; down by a tenth
        or by one in a minute, to the most that was wanted in ten minutes."""
        wanted = min(max(wanted, self._smallest), self._largest)
        self._wishes.append((self._now, wanted))
        while self._wishes[0][0] < self._now - 600:
            self._wishes.popleft()
        serving = [server for server in self._servers.values() if not server.draining]
        number = len(serving) + self._booting
        ever = max(each for _, each in self._wishes)
        per_poll = self._assumed.poll_s / 60
        if wanted > number:
            more = min(wanted - number, max(1, math.ceil(max(number, 4) * per_poll)))
            self._booting += more
            for _ in range(more):
                self._at(self._now + self._assumed.boot_s, "booted")
            self._note_number()
        elif ever < number and self._chance.random() < per_poll:
            fewer = min(number - ever, max(1, number // 10), len(serving) - self._smallest)
            for server in sorted(serving, key=lambda each: each.in_flight)[: max(0, fewer)]:
                server.draining = True
                self._open = self._open[self._open != server.number]
                if not server.active:
                    self._remove(server)


def percentile(values: Sequence[float], of_100: float) -> float:
    """Of seconds; NaN where there are none."""
    return float(np.percentile(values, of_100)) if values else math.nan
