"""One process of a fleet: started again when it dies, at once when that is wanted, and ended for good."""

import os
import shutil
import signal
import sys
import time

import psutil
import pytest

from server.fleet import member
from server.fleet.member import Member

SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)",
]
COUNTS = [  # each SIGTERM is a line; it ends of none
    sys.executable,
    "-c",
    "import os, signal, time\n"  # no print in a handler, which may come amid another print
    "signal.signal(signal.SIGTERM, lambda *_: os.write(1, b'told\\n'))\n"
    "os.write(1, b'begun\\n')\n"
    "while True: time.sleep(1)",
]


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(member, "FIRST_DELAY_S", 0.05)
    monkeypatch.setattr(member, "MOST_DELAY_S", 0.2)
    monkeypatch.setattr(member, "LOOK_EVERY_S", 0.02)


def until(condition):
    deadline = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)
    return found


@pytest.fixture
def start(tmp_path):
    started = []

    def start(command, is_ready=lambda: (True, "0 in flight")):
        lines = []
        one = Member("server 0", command, is_ready, log=tmp_path / "log", tell=lines.append)
        one.start()
        started.append(one)
        return one, lines

    yield start
    for one in started:
        one.stop()
        one.join(0)


def test_one_that_dies_is_started_again_and_each_change_is_a_line(start):
    one, lines = start(SLEEPS)
    first = until(lambda: one.ready and one.pid)
    os.kill(first, signal.SIGKILL)
    assert until(lambda: one.readied == 2 and one.pid) != first
    assert one.failures == 1 and one.line == "server 0: ready: 0 in flight (deaths: 1)"
    assert "server 0: ready: 0 in flight" in lines and "server 0: ended with code -9; is started again in 0.05 s" in lines


def test_one_that_cannot_be_started_is_started_when_it_can(start, tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    one, lines = start([str(program)])
    first = until(lambda: one.ready and one.pid)
    hidden = program.rename(tmp_path / "hidden")
    one.restart()
    until(lambda: one.failures >= 2)
    assert not one.ended and any("could not be started" in line and "started again in 0.05 s" in line for line in lines)
    hidden.rename(program)
    assert until(lambda: one.readied == 2 and one.pid) != first


def test_a_log_that_is_taken_away_is_made_anew(tmp_path):
    log = tmp_path / "logs" / "server-0.log"
    one = Member("server 0", COUNTS, lambda: (True, ""), log=log)
    one.start()
    try:
        until(lambda: one.ready and log.exists())
        shutil.rmtree(log.parent)
        os.kill(one.pid, signal.SIGKILL)
        until(lambda: one.readied == 2 and log.exists() and log.read_text() == "begun\n")
        assert one.failures == 1
    finally:
        one.stop()
        one.join(0)


def test_it_waits_longer_each_time(start):
    _, lines = start([sys.executable, "-c", "raise SystemExit(3)"], lambda: (False, "starting"))
    until(lambda: len([line for line in lines if "ended with code 3" in line]) >= 4)
    delays = [line.rpartition("again in ")[2] for line in lines if "ended with code" in line][:4]
    assert delays == ["0.05 s", "0.1 s", "0.2 s", "0.2 s"]


def test_a_restart_is_no_death(start):
    one, _ = start(SLEEPS)
    first = until(lambda: one.ready and one.pid)
    one.restart()
    assert until(lambda: one.pid not in (None, first) and one.pid) and one.failures == 0


def test_a_stop_ends_it_for_good_whatever_it_does(start, tmp_path):
    for command in (SLEEPS, STUBBORN):
        one, _ = start(command)
        process = psutil.Process(until(lambda one=one: one.ready and one.pid))
        until(lambda command=command: command is SLEEPS or "1" in (tmp_path / "log").read_text())
        one.stop()
        one.join(1.0)
        assert one.ended and not process.is_running() and one.pid is None and not one.ready


def test_a_stop_amid_a_restart_does_not_cut_what_is_in_flight(start, tmp_path):
    """A second signal is "at once" to a server: it gets one of a restart and a stop together, and another of a second stop."""

    def said():
        log = tmp_path / "log"
        return log.read_text().split() if log.exists() else []

    one, _ = start(COUNTS)
    until(lambda: "begun" in said())
    one.restart()
    until(lambda: said() == ["begun", "told"])
    one.restart()
    one.stop()
    time.sleep(0.2)
    assert said() == ["begun", "told"]
    one.stop()
    until(lambda: said() == ["begun", "told", "told"])
