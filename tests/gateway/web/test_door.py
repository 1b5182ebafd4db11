"""What a browser may do here, and what holds for every answer."""

import re
from urllib.parse import urljoin

import pytest

from gateway.app import ROOMS
from gateway.web.door import _ALWAYS
from tests.gateway.running import running

URL = "/v1/images/generations"
PAGE = "https://app.example.org"
BODY = {"prompt": "a castle", "num_inference_steps": 1, "height": 64, "width": 64}


@pytest.fixture(scope="module")
def gate(server, tmp_path_factory):
    with running(server.url, tmp_path_factory.mktemp("door"), f"--cors-origin={PAGE}") as started:
        yield started


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/reference.js", "/healthz", "/v1/models", "/v1/nothing", "/metrics"])
def test_security_headers_are_everywhere(gate, path):
    headers = gate.http.get(path).headers
    assert {name: headers.get(name) for name in _ALWAYS} == _ALWAYS
    assert "unsafe" not in headers["content-security-policy"] and "server" not in headers
    assert headers["x-request-id"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example", "", "127.0.0.1.evil.example", "[::1"]
)
def test_other_names_of_this_host_are_refused(gate, host):
    for path in ("/", "/v1/models", URL):
        answer = gate.http.get(path, headers={"Host": host})
        assert answer.status_code in (400, 403), path
    assert gate.http.get("/healthz", headers={"Host": "gateway"}).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1", "[::1]:80", "LOCALHOST"])
def test_names_of_loopback_are_ours(gate, host):
    assert gate.http.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://localhost:1",
        "file://",
        "https://app.example.org.evil.example",
        "",
        "http://[",
        "http://[x]",
        "http://a:b",
        "://",
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_pages_elsewhere_change_nothing(gate, method, origin):
    answer = gate.http.request(method, URL, json=BODY, headers={"Origin": origin})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_refused")
    assert "access-control-allow-origin" not in answer.headers and answer.headers["x-request-id"]


def test_our_own_page_may_ask(gate):
    assert gate.http.post(URL, json=BODY, headers={"Origin": gate.url}).status_code == 200


def test_a_listed_page_may_ask_and_read(gate):
    before = gate.http.options(URL, headers={"Origin": PAGE, "Access-Control-Request-Method": "POST"})
    assert (before.status_code, before.headers["access-control-allow-origin"]) == (204, PAGE)
    methods = {method for room in ROOMS for route in room.router.routes for method in route.methods}
    assert methods <= set(before.headers["access-control-allow-methods"].split(", "))
    answer = gate.http.post(URL, json=BODY, headers={"Origin": PAGE})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, PAGE)
    refused = gate.http.post(URL, json={}, headers={"Origin": PAGE})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (400, PAGE)


def test_a_page_that_is_not_listed_reads_nothing(gate):
    answer = gate.http.get("/v1/models", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    before = gate.http.options(URL, headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"})
    assert "access-control-allow-origin" not in before.headers


@pytest.mark.parametrize("given, kept", [("abc-1", True), ("x" * 128, True), ("x" * 129, False), ("", False), ("a\tb", False)])
def test_the_callers_id_is_the_answers_and_the_servers(gate, given, kept):
    answer = gate.http.post(URL, json=BODY, headers={"X-Request-Id": given})
    assert (answer.headers["x-request-id"] == given) == kept
    assert answer.json()["details"]["id"] == answer.headers["x-request-id"]


def test_the_page_and_the_endpoints_load_nothing_from_elsewhere(gate):
    for path in ("/", "/docs", "/docs/reference.js", "/docs/reference.css"):
        text = gate.http.get(path).text
        assert "http://" not in text.replace("http://www.w3.org/", "") and "https://" not in text, path


@pytest.mark.parametrize("page", ["/", "/docs"])
def test_a_page_names_its_icon(gate, page):
    """Otherwise a browser asks for /favicon.ico."""
    link = re.search(r'<link rel="icon" href="([^"]+)" type="image/svg\+xml">', gate.http.get(page).text)
    answer = gate.http.get(urljoin(page, link[1]))
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("image/svg+xml")


def test_openapi_says_every_field_of_a_request(gate):
    from gateway.api.requests import ImageRequest

    told = gate.http.get("/openapi.json").json()
    for path in (URL, "/v1/images/edits", "/v1/jobs"):
        content = told["paths"][path]["post"]["requestBody"]["content"]
        assert set(content["application/json"]["schema"]["properties"]) == set(ImageRequest.model_fields), path
        assert set(content["multipart/form-data"]["schema"]["properties"]) >= {"image", "mask", "picture", "prompt"}
    paths = {
        "/v1/faces",
        "/v1/verify",
        "/v1/status",
        "/v1/models",
        "/v1/capabilities",
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/jobs/{job_id}",
    }
    assert paths <= set(told["paths"])
