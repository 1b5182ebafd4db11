"""A server's /metrics, as the benchmarks and tests read it."""

from __future__ import annotations

import io

import pytest

from server.metrics import read_metrics

TEXT = """# HELP faceclip_requests_total ended requests by outcome
# TYPE faceclip_requests_total counter
faceclip_requests_total{deployment="a, b",outcome="ok",variant="nano"} 2
faceclip_requests_total{deployment="say \\"c, outcome=\\"",outcome="ok",variant="nano"} 3
faceclip_requests_total{deployment="a, b",outcome="failed",variant="nano"} 1
# TYPE faceclip_waiting_requests gauge
faceclip_waiting_requests{deployment="a, b",variant="nano"} 4
# TYPE nv_inference_count counter
nv_inference_count{model="denoiser",version="1"} 5
nv_inference_count{model="finish",version="1"} 6
"""


def test_values_are_summed_over_all_labels_but_outcome_and_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.metrics.open_url", lambda url, timeout: io.BytesIO(TEXT.encode()))
    assert read_metrics("localhost:8002") == {
        'faceclip_requests_total{outcome="ok"}': 5.0,
        'faceclip_requests_total{outcome="failed"}': 1.0,
        "faceclip_waiting_requests": 4.0,
        "nv_inference_count_total": 11.0,
    }
