import pytest

from faceclip import FaceCLIPPipeline


@pytest.fixture(scope="session")
def pipe(server):
    with FaceCLIPPipeline.from_pretrained(server.url, timeout_s=120) as pipeline:
        yield pipeline


def pytest_collection_modifyitems(items):
    for item in items:
        if "end_to_end" in str(item.path):
            item.add_marker(pytest.mark.server)
