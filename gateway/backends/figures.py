"""What a server's own metrics say of its work, summed over its deployments."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

METRICS_TIMEOUT_S = 2.0


async def figures(url: str) -> dict[str, Any]:
    """Raises `httpx.HTTPError`, or `ValueError` where it is no text of Prometheus."""
    async with httpx.AsyncClient(timeout=METRICS_TIMEOUT_S, trust_env=False) as client:
        answer = await client.get(url)
        answer.raise_for_status()
    return read(answer.text)


def read(text: str) -> dict[str, Any]:
    """`waiting`, `active` and `most_active` requests; means since the server's start: `rows_per_tick`, `latency_s` of a request."""
    total: dict[str, float] = defaultdict(float)
    stages: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            total[sample.name] += sample.value
            if sample.name == "faceclip_stage_seconds_total":
                stages[sample.labels["stage"]] += sample.value
            if sample.name == "faceclip_requests_total" and sample.labels["outcome"] == "ok":
                total["ok"] += sample.value
    ticks, done = total["faceclip_ticks_total"], total["ok"]
    return {
        "waiting": int(total["faceclip_waiting_requests"]),
        "active": int(total["faceclip_active_requests"]),
        "most_active": int(total["faceclip_max_active"]),
        "requests_done": int(done),
        "rows_per_tick": round(total["faceclip_denoiser_rows_total"] / ticks, 3) if ticks else None,
        "latency_s": {stage: round(seconds / done, 4) for stage, seconds in sorted(stages.items())} if done else None,
    }
