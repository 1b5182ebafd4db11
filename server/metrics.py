"""Reading a server's /metrics."""

from __future__ import annotations

import re
import urllib.request

_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")


def read_metrics(address: str) -> dict[str, float]:
    """Metric name, with its labels `outcome` and `stage`, e.g. `faceclip_requests_total{outcome="ok"}` -> value, summed over
    what other labels tell apart."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    found: dict[str, float] = {}
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match is None:
            continue
        labels = [
            label for label in (match["labels"] or "").split(",") if label and label.split("=")[0] in ("outcome", "stage")
        ]
        name = match["name"] + (f"{{{','.join(sorted(labels))}}}" if labels else "")
        found[name] = found.get(name, 0.0) + float(match["value"])
    return found
