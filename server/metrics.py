"""Reading a server's /metrics."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from .direct import open_url

KEPT_LABELS = ("outcome", "stage")


def read_metrics(address: str) -> dict[str, float]:
    """Metric name, with its labels `outcome` and `stage`, e.g. `faceclip_requests_total{outcome="ok"}` -> value, summed over
    what other labels tell apart. A counter's name ends in `_total`, whether the server writes that or not."""
    with open_url(f"http://{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{label}="{sample.labels[label]}"' for label in KEPT_LABELS if label in sample.labels)
            name = f"{sample.name}{{{labels}}}" if labels else sample.name
            found[name] = found.get(name, 0.0) + sample.value
    return found
