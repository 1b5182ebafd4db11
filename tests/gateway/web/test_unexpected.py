"""A fault of ours is answered like all else: in OpenAI's shape, with an id that the log knows, and the headers of every answer."""

import logging

import pytest
from fastapi.testclient import TestClient

from gateway.app import make_app
from gateway.settings import Settings


@pytest.mark.parametrize("fault", [RuntimeError("a secret of ours"), TypeError("width: a secret of ours"), KeyError("x")])
def test_a_fault_of_ours(tmp_path, caplog, fault):
    app = make_app(Settings(data=str(tmp_path), server=("127.0.0.1:1",)))

    async def broken():
        raise fault

    app.router.add_api_route("/v1/broken", broken)
    app.router.routes.insert(0, app.router.routes.pop())  # before the page, which answers for all else
    with caplog.at_level(logging.INFO), TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as http:
        answer = http.get("/v1/broken", headers={"X-Request-Id": "asked-7"})
        assert http.get("/metrics").text.count('status="500"') >= 1
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text and answer.headers["x-request-id"] == "asked-7"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert any("asked-7" in record.getMessage() and record.exc_info for record in caplog.records)


def test_a_caller_s_names_are_no_arguments_of_ours(tmp_path):
    with TestClient(make_app(Settings(data=str(tmp_path), server=("127.0.0.1:1",))), base_url="http://localhost") as http:
        for name in ("self", "choices", "x"):
            answer = http.post("/v1/recipes/travel", json={"choices": {name: "x"}})
            assert answer.status_code == 400 and name in answer.json()["error"]["message"], answer.text
            assert "argument" not in answer.text
