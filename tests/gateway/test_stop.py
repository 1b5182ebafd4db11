"""A stop: within the time that whoever starts the gateway gives it, and without a word of alarm."""

import re
import threading

import pytest

from examples.studio import STOP_S
from gateway.app import make_app
from gateway.serve import config_of
from gateway.settings import Settings

from .running import ROOT, running, until

NOBODY = "127.0.0.1:9"
REST_S = 10
"""What is left for the rest of the end: what was still drawn is given back, files are closed."""


def given(file, pattern):
    return int(re.search(pattern, (ROOT / file).read_text())[1])


GIVEN = {
    "systemd": lambda: given("deploy/faceclip-gateway.service", r"TimeoutStopSec=(\d+)"),
    "compose": lambda: given("deploy/compose.yaml", r"(?s)\n  gateway:.*?stop_grace_period: (\d+)s"),
    "studio": lambda: STOP_S,
}


@pytest.mark.parametrize("who", GIVEN)
def test_the_whole_stop_fits_into_what_is_given(tmp_path, who):
    settings = Settings(data=str(tmp_path))
    graceful = config_of(settings, make_app(settings)).timeout_graceful_shutdown
    assert settings.drain_timeout < graceful  # jobs have let their followers go before connections are cut
    assert graceful + REST_S <= GIVEN[who]()


def test_a_stop_does_not_wait_for_who_follows_a_waiting_job(tmp_path):
    with running(NOBODY, tmp_path, "--drain-timeout=600") as gate:
        job = gate.http.post("/v1/jobs", json={"prompt": "a castle"}).json()
        heard, ends = [], []
        following = threading.Thread(target=_follow, args=(gate, job, heard, ends))
        following.start()
        until(lambda: "event: queued" in heard)
        assert gate.end() == 0
        following.join(30)
        assert ends == ["clean"]
        assert not [line for line in gate.lines if "Traceback" in line or "Error" in line]


def _follow(gate, job, heard, ends):
    with gate.http.stream("GET", f"/v1/jobs/{job['id']}/events", timeout=None) as events:
        for line in events.iter_lines():
            heard.append(line)
    ends.append("clean")
