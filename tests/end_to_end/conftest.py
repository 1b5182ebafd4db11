import pytest

from benchmarks.measure.running import PLAIN, serving
from faceclip import FaceCLIPPipeline
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.variants.sdxl import NANO


@pytest.fixture(scope="session")
def pipe(server):
    with FaceCLIPPipeline.from_pretrained(server.url, timeout_s=120) as pipeline:
        yield pipeline


@pytest.fixture(scope="package")
def nano():
    """A server of nano, which has learned to draw faces, and its pipeline."""
    with serving(NANO, CPU, settings=PLAIN) as (server, pipe):
        yield server, pipe
        server.stop(0)


def pytest_collection_modifyitems(items):
    for item in items:
        if "end_to_end" in str(item.path):
            item.add_marker(pytest.mark.server)
