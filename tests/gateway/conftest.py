import asyncio
import inspect

import openai
import pytest

from .running import running


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Coroutine functions are tests as well, each in a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(scope="module")
def gate(server, tmp_path_factory):
    """A gateway without keys before the tests' server, for the tests of a file."""
    metrics = f"--server-metrics=http://127.0.0.1:{server.ports.metrics}/metrics"
    with running(server.url, tmp_path_factory.mktemp("gateway"), metrics) as started:
        yield started


@pytest.fixture(scope="module")
def client(gate):
    with openai.OpenAI(base_url=f"{gate.url}/v1", api_key="none", max_retries=0, timeout=120) as made:
        yield made
