"""Beyond the limit of connections each is told so and closed; who asks how the gateway stands is answered still."""

import resource
import socket
from contextlib import ExitStack, suppress

import httpx
import pytest

from gateway.settings import SettingsError
from gateway.web import crowd
from gateway.web.crowd import provide_files
from gateway.web.door import PROBES
from gateway.web.patience import SPARE
from tests.gateway.running import running, until

MOST = 3
NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    with running(NOBODY, tmp_path_factory.mktemp("small"), f"--connections={MOST}") as started:
        yield started


@pytest.fixture
def full(small):
    """As many connections as there may be, which have asked something, and may ask again."""
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=small.url, trust_env=False)) for _ in range(MOST)]
        until(lambda: {client.get("/v1/recipes").status_code for client in clients} == {200})
        yield clients


def ask(small, path="/v1/recipes"):
    return httpx.get(small.url + path, trust_env=False)


@pytest.mark.parametrize("path", ["/", "/v1/recipes", "/nothing"])
def test_who_comes_too_many_is_told(small, full, path):
    refused = ask(small, path)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "connections_exceeded")
    assert refused.headers["connection"] == "close" and int(refused.headers["retry-after"]) > 0
    assert refused.headers["x-content-type-options"] == "nosniff"
    assert small.logged(refused.headers["x-request-id"])["status"] == 503
    assert {client.get("/v1/recipes").status_code for client in full} == {200}, "who was there before stays"


@pytest.mark.parametrize("path", PROBES)
def test_how_it_stands_is_told_still(small, full, path):
    answer = ask(small, path)
    assert answer.status_code == (503 if path == "/readyz" else 200) and "connections_exceeded" not in answer.text
    assert answer.headers["connection"] == "close"


def test_when_one_has_gone_the_next_may_come(small, full):
    assert ask(small).status_code == 503
    full[0].close()
    assert until(lambda: ask(small).status_code == 200)


def test_far_beyond_nobody_is_told_anything(small, full):
    """So that silent connections take no more of the system's files than they may."""
    address = httpx.URL(small.url)
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection((address.host, address.port), timeout=60)) for _ in range(SPARE + 1)
        ]
        with suppress(ConnectionResetError):
            assert silent[-1].recv(1) == b""
        silent[0].settimeout(0.2)
        with pytest.raises(TimeoutError):
            silent[0].recv(1)
    assert until(lambda: full[0].get("/v1/recipes").status_code == 200)


def limits(monkeypatch, soft, hard):
    set = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, both: set.append(both))
    return set


def needed(most):
    return 2 * (most + SPARE) + crowd.OWN_FILES


@pytest.mark.parametrize("hard", [4096, resource.RLIM_INFINITY])
def test_files_are_provided_for_as_many_as_may_come(monkeypatch, hard):
    set = limits(monkeypatch, 1024, hard)
    provide_files(500)
    assert set == [(needed(500), hard)]


@pytest.mark.parametrize("soft", [needed(500), resource.RLIM_INFINITY])
def test_where_there_are_enough_nothing_is_changed(monkeypatch, soft):
    set = limits(monkeypatch, soft, resource.RLIM_INFINITY)
    provide_files(500)
    assert set == []


def test_more_than_there_are_files_for_is_refused(monkeypatch):
    limits(monkeypatch, 1024, 4096)
    with pytest.raises(SettingsError, match=r"connections: expected at most (\d+), got 100000; .+") as refused:
        provide_files(100_000)
    most = int(str(refused.value).split()[4].rstrip(","))
    provide_files(most)
    with pytest.raises(SettingsError):
        provide_files(most + 1)
