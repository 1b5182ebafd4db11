"""An operator's own check, and every way in which it fails: refused, and told."""

import base64
import json
import threading
import time
import weakref
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from faceclip_serving.checks.checks import Checks, RefusedBy
from faceclip_serving.checks.policy import PolicyError, read

OWN = '''
import sys, time
def allow(question): return {"action": "allow", "score": 0.1}
def review(question): return {"action": "review", "score": 0.6}
def refuse(question): return {"action": "refuse", "score": 0.9, "reason": "no " + question["prompt"]}
def hang(question): time.sleep(30)
def fails(question): raise KeyError("x")
def nonsense(question): return "yes"
def other(question): return {"action": "perhaps"}
def wrong(question): return {"action": "allow", "score": "high"}
def leaves(question): sys.exit("bad input")
def interrupts(question): raise KeyboardInterrupt("stop")
def huge(question): return {"action": "allow", "score": 10**400}
def endless(question): return {"action": "allow", "score": float("inf")}
def no_number(question): return {"action": "allow", "score": float("nan")}
def yes(question): return {"action": "allow", "score": True}
def long(question): return {"action": 10**5000}
class Odd(dict):
    def get(self, *_): raise ValueError("odd")
def odd(question): return Odd()
number = 3
'''  # fmt: skip


def checks(folder, how, stages='"prompt"', timeout_s=0.3):
    (folder / "own.py").write_text(OWN)
    (folder / "policy.toml").write_text(f'[[hooks]]\nname = "mine"\non = [{stages}]\n{how}\ntimeout_s = {timeout_s}\n')
    return Checks(read(folder / "policy.toml"))


def test_a_function_allows_reviews_and_refuses(tmp_path):
    (_, allowed) = checks(tmp_path, 'call = "own.py:allow"').prompt("a lighthouse", "", 0)
    assert (allowed.check, allowed.action, allowed.score) == ("mine", "allow", 0.1)
    assert checks(tmp_path, 'call = "own.py:review"').prompt("a lighthouse", "", 0)[1].action == "review"
    with pytest.raises(RefusedBy, match=r"^policy\.mine: no lighthouse$") as raised:
        checks(tmp_path, 'call = "own.py:refuse"').prompt("lighthouse", "", 0)
    assert raised.value.code == "policy.mine" and raised.value.decisions[1].score == 0.9


@pytest.mark.parametrize(
    ("name", "why"),
    [("hang", "no answer within 0.3 s"), ("fails", "KeyError: 'x'"), ("nonsense", "expected an object"), ("other", "expected an object"),
     ("wrong", "expected 'score'"), ("leaves", "SystemExit: bad input"), ("interrupts", "KeyboardInterrupt: stop"),
     ("huge", "expected 'score'"), ("endless", "expected 'score'"), ("no_number", "expected 'score'"), ("yes", "expected 'score'"),
     ("long", "ValueError"), ("odd", "ValueError: odd")],
)  # fmt: skip
def test_a_function_that_fails_refuses_and_the_operator_hears_why(tmp_path, name, why):
    begun = time.monotonic()
    with pytest.raises(RefusedBy, match=r"^policy\.unchecked: the check 'mine' of this server could not be made") as raised:
        checks(tmp_path, f'call = "own.py:{name}"').prompt("a lighthouse", "", 0)
    assert why in raised.value.decisions[1].note and why not in str(raised.value)
    assert time.monotonic() - begun < 5


def test_a_function_that_fails_leaves_no_photograph_behind(tmp_path, uncollected):
    own = checks(tmp_path, 'call = "own.py:fails"', '"photographs"')
    photo, crop = np.zeros((8, 8, 3), np.uint8), np.zeros((3, 8, 8), np.float32)
    kept = [weakref.ref(photo), weakref.ref(crop)]
    try:
        own.photographs([photo], [crop])
    except RefusedBy as error:
        assert "KeyError" in error.decisions[-1].note
    del photo, crop
    assert all(each() is None for each in kept)


def test_when_all_its_threads_hang_everything_is_refused_in_time(tmp_path):
    own = checks(tmp_path, 'call = "own.py:hang"', timeout_s=0.05)
    begun = time.monotonic()
    for _ in range(12):
        with pytest.raises(RefusedBy, match="unchecked"):
            own.prompt("a lighthouse", "", 0)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("name", ["missing", "number"])
def test_a_function_that_cannot_be_had_ends_the_start(tmp_path, name):
    with pytest.raises(PolicyError, match="hook 'mine': expected a function"):
        checks(tmp_path, f'call = "own.py:{name}"')


@pytest.fixture
def service():
    """A service, the questions that it was asked, and what it answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            self.server.asked.append(json.loads(self.rfile.read(length)))
            status, content = self.server.answer
            if content is None:
                time.sleep(2)
                return
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.answer = [], (200, b'{"action": "allow"}')
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url = f'url = "http://127.0.0.1:{server.server_port}/check"'
    yield server
    server.shutdown()
    server.server_close()


def test_a_service_gets_texts_and_pictures(tmp_path, service, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # photographs go nowhere but to the address that is named
    own = checks(tmp_path, service.url, '"prompt", "photographs", "pictures"', timeout_s=5)
    own.prompt("a lighthouse", "fog", 2)
    picture = np.full((4, 6, 3), 7, np.uint8)
    own.pictures([picture, picture])
    own.photographs([picture], [])
    first, second, third = service.asked
    assert first == {"stage": "prompt", "prompt": "a lighthouse", "negative_prompt": "fog", "faces": 2, "pictures": []}
    assert (second["stage"], len(second["pictures"]), third["stage"]) == ("pictures", 2, "photographs")
    assert base64.b64decode(third["pictures"][0]).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"[]"),
        (200, b"no"),
        (500, b"{}"),
        (302, b""),
        (200, b" " * 70_000),
        (200, None),
        (200, b'{"action": "allow", "score": NaN}'),
        (200, b'{"action": "allow", "score": 1' + b"0" * 400 + b"}"),
    ],
)
def test_a_service_that_fails_refuses(tmp_path, service, answer):
    service.answer = answer
    with pytest.raises(RefusedBy, match=r"^policy\.unchecked: "):
        checks(tmp_path, service.url, timeout_s=1).prompt("a lighthouse", "", 0)
    assert len(service.asked) == 1


def test_a_service_that_is_not_there_refuses(tmp_path):
    with pytest.raises(RefusedBy, match=r"^policy\.unchecked: ") as raised:
        checks(tmp_path, 'url = "http://127.0.0.1:1/"', timeout_s=1).prompt("a lighthouse", "", 0)
    assert "Connection refused" in raised.value.decisions[1].note
