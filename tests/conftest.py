"""One real server for the whole run: the tiny variant on the CPU, exported and assembled as a user would."""

import gc
import logging
import os
import signal
import tempfile
from pathlib import Path

import hypothesis
import pytest
import torch

from export.repository.from_nothing import build_repository
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from server.process import Ports, TritonServer

# A run started in the background inherits an ignored SIGINT, and so would the programs whose Ctrl-C is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines that run tests are busy, and no test is about time: an example that once took long is no fault.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")

# Networks here are tiny: a second thread only waits for the first, and on a busy machine it waits long.
torch.set_num_threads(1)

# Servers that tests start make their own keys here, not in the user's configuration.
KEYS = tempfile.TemporaryDirectory(prefix="marks-")
os.environ["FACECLIP_MARKS_FOLDER"] = KEYS.name

ROOT = Path(__file__).resolve().parent.parent

LONGEST = (
    "end_to_end/test_placements_sdxl.py", "end_to_end/test_placements_flux.py", "gateway/jobs/test_restarts.py",
    "end_to_end/test_supervise.py", "gateway/test_studio.py", "export/onnx/test_export.py", "fleet/test_fleet.py",
    "benchmarks/test_compiled.py", "benchmarks/test_gpu_verify.py", "gateway/backends/test_servers.py", "server/test_container.py",
    "training/test_peers.py", "training/test_nano.py", "export/engine/test_rtx.py", "end_to_end/test_given_up.py",
    "end_to_end/test_chaos.py", "end_to_end/test_tls.py", "serving/sampling/test_probe.py", "training/test_critic.py",
    "export/onnx/test_flux_pictures.py",
)  # fmt: skip
"""Files that take longest, in the order in which they are begun: what is begun last must be short, or one process ends alone. The first
two export what the others serve."""


def pytest_collection_modifyitems(items):
    begun = {ROOT / "tests" / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: begun.get(item.path, len(LONGEST)))


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Some 800,000 objects of libraries and tests live as long as the run. Python's collector looked through them again and again, for a
    quarter of the time in which tests are collected, and 0.4 s each time afterwards."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def repository(monkeypatch_session) -> Path:
    monkeypatch_session.chdir(ROOT)
    return build_repository(TINY_SDXL, CPU)


@pytest.fixture(scope="session")
def server(repository, tmp_path_factory):
    """Without marks, so that its pictures can be compared to the last bit; with marks: tests/end_to_end/test_marks.py."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    with TritonServer(repository, Ports.free(), log=log, settings=["marks=none"]) as running:
        running.wait_ready()
        yield running
        running.stop(0)  # connections that tests have left open would be waited for


@pytest.fixture
def uncollected():
    """No garbage is collected, and nothing is logged, since pytest keeps the errors of log lines: what is alive is held by a name."""
    gc.collect()
    gc.disable()
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    gc.enable()


@pytest.fixture(scope="session")
def monkeypatch_session():
    with pytest.MonkeyPatch.context() as patch:
        yield patch
