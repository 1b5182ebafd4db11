"""A real Prometheus over servers that run, and the queries of the chart's autoscaler."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from export.paths import ROOT
from faceclip_serving.contract.errors import UserError
from server.defaults import Ports
from server.direct import open_url

CHART = ROOT / "deploy" / "helm" / "faceclip"
VALUES = ROOT / "deploy" / "helm" / "values" / "s3-keda-monitoring.yaml"
RELEASE, NAMESPACE = "draw", "faces"


class PrometheusError(UserError):
    """A program is missing, or did not do what was asked."""


def _program(name: str, cure: str) -> str:
    folders = f"{Path(sys.executable).parent}:{ROOT / 'build' / 'tools' / 'bin'}"
    found = shutil.which(name) or shutil.which(name, path=folders)
    if found is None:
        raise PrometheusError(f"{name} is missing: {cure}")
    return found


def queries() -> dict[str, tuple[str, float]]:
    """Trigger -> its query and its threshold, as helm renders them. Raises `PrometheusError`."""
    helm = _program("helm", "sh deploy/tools.sh")
    command = [helm, "template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--values", str(VALUES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PrometheusError(f"helm: {done.stderr.strip()}")
    (scaled,) = (each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] == "ScaledObject")
    told = {each["name"]: each["metadata"] for each in scaled["spec"]["triggers"]}
    return {name: (each["query"], float(each["threshold"])) for name, each in told.items()}


class Prometheus:
    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, query: str) -> float | None:
        """The only value of a query; None where it has none."""
        url = f"http://{self._address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with open_url(url, timeout=10) as response:
            found = json.load(response)["data"]["result"]
        return float(found[0]["value"][1]) if found else None


@contextmanager
def scraping(metrics_ports: Sequence[int], folder: Path) -> Iterator[Prometheus]:
    """One that scrapes these servers every 15 s, with the labels that Prometheus' operator gives them. Raises `PrometheusError`."""
    program = _program("prometheus", "apt-get install --no-install-recommends prometheus")
    address = f"127.0.0.1:{Ports.free().http}"
    targets = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": NAMESPACE, "pod": str(number)}}
        for number, port in enumerate(metrics_ports)
    ]
    jobs = [{"job_name": f"{RELEASE}-server", "scrape_interval": "15s", "static_configs": targets}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": jobs}))
    options: Mapping[str, object] = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": address,
    }
    log = folder / "prometheus.log"
    with log.open("wb") as file:
        command = [program, *(f"--{name}={value}" for name, value in options.items())]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 30
        while not _is_ready(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise PrometheusError(f"prometheus did not start:\n{log.read_text(errors='replace')[-1000:]}")
            time.sleep(0.2)
        yield Prometheus(address)
    finally:
        process.kill()
        process.wait()


def _is_ready(address: str) -> bool:
    try:
        with open_url(f"http://{address}/-/ready", timeout=2):
            return True
    except OSError:
        return False
