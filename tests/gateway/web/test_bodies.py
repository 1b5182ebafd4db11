"""What holds of every body, whichever route reads it: the key is asked first, then kind, syntax and depth."""

import asyncio

import pytest
from fastapi.testclient import TestClient

from gateway.api.bodies import DEEPEST_JSON
from gateway.app import ROOMS, make_app
from gateway.keys.caller import SCOPES, Limits
from gateway.keys.store import KeyStore
from gateway.settings import Settings

NAMES = {"name": "travel"}
ROUTES = {
    route.path.format(**{name: NAMES.get(name, "x") for name in route.param_convertors}): route
    for room in ROOMS
    for route in room.router.routes
    if route.methods & {"POST", "PUT", "PATCH"}
}
KINDS = {
    path: list(route.openapi_extra["requestBody"]["content"]) if route.openapi_extra else [] for path, route in ROUTES.items()
}
JSON_PATHS = [path for path, kinds in KINDS.items() if "application/json" in kinds]
NO_JSON = {
    "deep": b'{"prompt": ' + b"[" * (DEEPEST_JSON + 4) + b"]" * (DEEPEST_JSON + 4) + b"}",
    "broken": b'{"prompt": "a"',
    "no object": b'["a"]',
    "no number": b'{"prompt": NaN}',
    "nothing": b"",
}
SURROGATES = [
    b'{"\\ud800": "x"}',
    b'{"choices": {"\\ud800": "x"}}',
    b'{"choices": {"place": "\\ud800"}}',
    b'{"prompt": "\\ud800"}',
]


def app_of(folder):
    return make_app(Settings(data=str(folder), server=("127.0.0.1:1",)))


@pytest.fixture(scope="module")
def http(tmp_path_factory):
    with TestClient(app_of(tmp_path_factory.mktemp("bodies")), base_url="http://localhost") as client:
        yield client


def test_every_route_with_a_body_says_its_kinds_and_is_among_these():
    assert len(KINDS) >= 7 and all(KINDS.values()), KINDS
    assert all(route.body_field is None for route in ROUTES.values()), "the framework decodes a body before the key is asked"


@pytest.mark.parametrize("path", KINDS)
def test_without_a_key_nothing_of_a_body_is_read(tmp_path, path):
    app, said = app_of(tmp_path), []
    KeyStore(tmp_path).add("ann", frozenset(SCOPES), Limits(), None)
    kind = KINDS[path][0].encode()
    headers = [(b"host", b"localhost"), (b"content-type", kind), (b"content-length", b"20")]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers, "http_version": "1.1"}

    async def receive():
        pytest.fail("the body was asked for")

    async def send(message):
        said.append(message)

    async def asked():
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)

    asyncio.run(asked())
    assert said[0]["status"] == 401


@pytest.mark.parametrize("path", KINDS)
@pytest.mark.parametrize("kind", ["text/plain", "application/xml", ""])
def test_another_kind_is_refused(http, path, kind):
    answer = http.post(path, content=b"{}", headers={"Content-Type": kind} if kind else {})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("path", JSON_PATHS)
@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_json_of_ours_is_told(http, path, body):
    answer = http.post(path, content=body, headers={"Content-Type": "application/json"})
    told = answer.json()["error"]
    assert (answer.status_code, told["code"], told["param"]) == (400, "invalid_json", None)


@pytest.mark.parametrize("path", JSON_PATHS)
@pytest.mark.parametrize("body", SURROGATES, ids=["name", "name within", "value within", "value"])
def test_half_a_character_is_refused_in_words(http, path, body):
    answer = http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["code"] != "internal_error"
