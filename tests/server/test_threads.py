"""Threads that a server needs and is allowed: a machine that has too few is told of before anything starts."""

import pytest

from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.settings import SETTINGS, most_in_flight
from server import threads
from server.process import SPARE_CALLS, ServerError, TritonServer
from server.repository import python_instances

SMALL_MACHINE = 32768
"""`kernel.pid_max` of one with few cores."""


def test_the_largest_settings_fit_a_small_machine(repository):
    most = {each.name: each.allowed(CPU).high for each in SETTINGS if each.name in ("max_active", "max_waiting")}
    assert threads.needed(python_instances(repository), most_in_flight(**most) + SPARE_CALLS) < SMALL_MACHINE


def test_each_limit_of_this_machine_is_asked(monkeypatch, tmp_path):
    kernel, groups = tmp_path / "kernel", tmp_path / "cgroup"
    kernel.mkdir()
    (groups / "pids").mkdir(parents=True)
    for name, most in (("threads-max", 9000), ("pid_max", 8000)):
        (kernel / name).write_text(f"{most}\n")
    monkeypatch.setattr(threads, "_KERNEL", kernel)
    monkeypatch.setattr(threads, "_CGROUPS", groups)
    monkeypatch.setattr(threads.resource, "getrlimit", lambda which: (7000, 7000))
    monkeypatch.setattr(threads.os, "geteuid", lambda: 1000)
    assert threads.allowed() == (7000, "ulimit -u")
    monkeypatch.setattr(threads.os, "geteuid", lambda: 0)
    assert threads.allowed() == (8000, "kernel.pid_max"), "root is not bound by it"
    (groups / "pids" / "pids.max").write_text("max\n")
    (groups / "pids.max").write_text("max\n")
    assert threads.allowed() == (8000, "kernel.pid_max")
    monkeypatch.setattr(threads, "_groups", lambda: iter([groups / "absent", groups, groups / "pids"]))
    (groups / "pids.max").write_text("600\n")
    assert threads.allowed() == (600, str(groups / "pids.max"))


def test_a_server_that_may_not_have_its_threads_is_refused_before_it_starts(repository, monkeypatch):
    monkeypatch.setattr(threads, "allowed", lambda: (600, "/sys/fs/cgroup/pids.max"))
    with pytest.raises(
        ServerError, match=r"max_active, max_waiting: they need .* /sys/fs/cgroup/pids.max allows 600 here; set smaller"
    ):
        TritonServer(repository)
