"""Whether the number of servers that the chart's autoscaler wants follows what arrives: its queries, asked of a real Prometheus that
scrapes two real servers behind a real Envoy, under loads that are less and more than they can draw.

Their denoisers sleep. KEDA itself is not here: what it does with the answer, `wanted` does.
"""

from __future__ import annotations

import math
import random
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faceclip import FaceCLIPError, FaceCLIPPipeline
from server.metrics import read_metrics

from ..measure.report import say
from ..measure.sleeping import CARD, with_sleeping_denoiser
from .load import LEAST
from .prometheus import queries, scraping
from .running import running

SERVERS = 2
STEPS = 40
PHASES_PER_S = (0.5, 1.5, 4.0, 1.0)
"""Arrivals of each phase. Two servers draw about two a second."""
PHASE_S = 210.0
"""Longer than the two minutes over which arrivals are counted."""
ASK_EVERY_S = 15.0
CLIENTS = 4
WITHIN = 0.2
"""How near the wish must come, at the end of a phase, to what arrives times what a request costs."""


@dataclass
class _Arrivals:
    """Requests that come at random moments, and do not wait for each other."""

    url: str
    per_s: float = 0.0
    came: list[float] = field(default_factory=list)
    failed: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def run(self, seed: int) -> None:
        chance = random.Random(seed)
        threads: list[threading.Thread] = []
        with FaceCLIPPipeline.from_pretrained(self.url, timeout_s=120) as pipe:
            while not self.over.is_set():
                self.over.wait(chance.expovariate(self.per_s / CLIENTS))
                self.came.append(time.monotonic())
                threads.append(threading.Thread(target=self._draw, args=(pipe, len(threads)), daemon=True))
                threads[-1].start()
            for thread in threads:
                thread.join()

    def _draw(self, pipe: FaceCLIPPipeline, seed: int) -> None:
        try:
            pipe("a portrait", num_inference_steps=STEPS, seed=seed, height=LEAST["height"], width=LEAST["width"])
        except FaceCLIPError:  # refused: two servers cannot draw four a second
            self.failed += 1

    def recent_per_s(self, seconds: float) -> float:
        since = time.monotonic() - seconds
        return sum(moment >= since for moment in self.came) / seconds


def autoscaling(repository: Path) -> dict[str, Any]:
    asked = queries()
    say(f"queries of the chart: {asked}")
    with (
        with_sleeping_denoiser(repository, CARD) as sleeping,
        tempfile.TemporaryDirectory(prefix="autoscaling-") as folder,
        running(sleeping, SERVERS, Path(folder) / "fleet.log", f"--logs={folder}") as fleet,
        scraping(fleet.metrics_ports, Path(folder)) as prometheus,
    ):
        arrivals = _Arrivals(fleet.url, PHASES_PER_S[0])
        callers = [threading.Thread(target=arrivals.run, args=(seed,)) for seed in range(CLIENTS)]
        for each in callers:
            each.start()
        rows: list[dict[str, Any]] = []
        try:
            for phase, per_s in enumerate(PHASES_PER_S):
                arrivals.per_s = per_s
                end = time.monotonic() + PHASE_S
                while time.monotonic() < end:
                    time.sleep(ASK_EVERY_S)
                    answers = {name: prometheus.ask(query) for name, (query, _) in asked.items()}
                    rows.append(_row(phase, per_s, arrivals, answers, asked, fleet.metrics_ports))
                    say(str(rows[-1]))
        finally:
            arrivals.over.set()
            for each in callers:
                each.join()
        with suppress(Exception):
            fleet.end()
    ends = [[row for row in rows if row["phase"] == phase][-1] for phase in range(len(PHASES_PER_S))]
    return {
        "servers": SERVERS,
        "steps": STEPS,
        "queries": {name: query for name, (query, _) in asked.items()},
        "phases": ends,
        "within": WITHIN,
        "follows": all(abs(row["wanted_by_arrivals"] / row["expected"] - 1) <= WITHIN for row in ends),
        "rows": rows,
    }


def _row(
    phase: int,
    per_s: float,
    arrivals: _Arrivals,
    answers: Mapping[str, float | None],
    asked: Mapping[str, tuple[str, float]],
    metrics_ports: Sequence[int],
) -> dict[str, Any]:
    """One look: what is wanted, by the query and by what was really sent times what requests have cost, by the servers' own counters."""
    shares = {name: (value or 0.0) / asked[name][1] for name, value in answers.items()}
    counters = [read_metrics(f"127.0.0.1:{port}") for port in metrics_ports]
    spent_s = sum(value for each in counters for name, value in each.items() if name.startswith("faceclip_gpu_seconds_total"))
    ended = sum(value for each in counters for name, value in each.items() if _counts_ok(name))
    cost_s = spent_s / ended if ended else 0.0
    return {
        "phase": phase,
        "arrivals_per_s": per_s,
        "sent_per_s": round(arrivals.recent_per_s(120), 2),
        "gpu_s_of_a_request": round(cost_s, 3),
        "expected": round(arrivals.recent_per_s(120) * cost_s / asked["arrivals"][1], 2),
        "wanted_by_arrivals": round(shares["arrivals"], 2),
        "wanted_by_backlog": round(shares["backlog"], 2),
        "wanted": wanted(shares),
        "refused": arrivals.failed,
    }


def _counts_ok(name: str) -> bool:
    return name.startswith("faceclip_requests_total") and 'outcome="ok"' in name


def wanted(shares: Mapping[str, float]) -> int:
    """Servers: of several triggers the largest, rounded up, as Kubernetes' autoscaler does for averages per server."""
    return max(math.ceil(share - 1e-9) for share in shares.values())
