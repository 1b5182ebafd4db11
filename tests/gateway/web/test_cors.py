"""A page elsewhere that `--cors-origin` names, in a real browser: it sends what packages send, and reads what the docs promise."""

import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.studio.browser import MISSING, browser, chromium
from tests.gateway.running import ROOT, running

OPENAI = ("os", "arch", "lang", "runtime", "runtime-version", "package-version", "retry-count", "timeout", "helper-method")
"""`openai` for JavaScript sends each of these after `x-stainless-` from a browser."""
SENT = {
    "Authorization": "Bearer none",
    "Content-Type": "application/json",
    "Idempotency-Key": "order-17",
    "Last-Event-ID": "0-1",
    "X-Request-Id": "asked",
    "X-Of-A-Later-Version": "1",
    **{f"x-stainless-{name}": "1" for name in OPENAI},
}
ASK = """async ([url, headers]) => {
  const body = JSON.stringify({prompt: "a castle"});
  const answer = await fetch(url, {method: "POST", headers, body});
  return [answer.status, Object.fromEntries(answer.headers)];
}"""


@contextmanager
def page_elsewhere():
    """The origin of an empty page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.proof
def test_it_sends_any_header_and_reads_those_of_the_answer(tmp_path):
    """No server is behind the gateway: jobs wait for one."""
    if chromium() is None:
        pytest.skip(MISSING)
    with page_elsewhere() as origin, running("127.0.0.1:1", tmp_path, f"--cors-origin={origin}") as gate, browser() as opened:
        page = opened.new_page()
        page.goto(origin)
        answers = [page.evaluate(ASK, [f"{gate.url}/v1/jobs", SENT]) for _ in range(2)]
        gone, told = page.evaluate(ASK, [f"{gate.url}/v1/images/generations", SENT])
    assert [status for status, _ in answers] == [202, 202] and gone == 503
    read = told.keys() | answers[1][1].keys()
    text = " ".join((ROOT / "docs" / name).read_text() for name in ("gateway.md", "jobs.md"))
    promised = set(re.findall(r"`(X-Request-Id|Idempotent-Replayed|Retry-After)", text))
    assert len(promised) == 3 and {name.lower() for name in promised} | {"location"} <= read
