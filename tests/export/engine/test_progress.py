"""What people see of a build."""

import io
import re

import pytest

from export.engine import progress as progress_module
from export.engine.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines(out):
    return [line for line in re.split(r"[\r\n]", out.getvalue()) if line.strip()]


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(progress_module, "LINES_EVERY_S", 0.0)


def test_a_phase_is_named_with_those_it_is_part_of(at_once):
    out = io.StringIO()
    progress = Progress("denoiser", out)
    progress.start("Building", None, 5)
    progress.step("Building", 1)
    progress.start("Timing", "Building", 431)
    progress.step("Timing", 119)
    assert lines(out)[-1] == "[00:00] denoiser: Building Timing 120/431"
    progress.finish("Timing")
    progress.step("Building", 2)
    assert lines(out)[-1] == "[00:00] denoiser: Building 3/5"


def test_an_unknown_phase_and_one_that_is_its_own_parent_do_no_harm(at_once):
    out = io.StringIO()
    progress = Progress("denoiser", out)
    progress.step("never started", 3)
    progress.finish("never started")
    progress.start("loop", "loop", 2)
    progress.start("loop", "loop", 2)
    progress.step("loop", 0)
    assert lines(out)[-1] == "[00:00] denoiser: loop 1/2"


def test_a_file_gets_whole_lines_and_none_of_a_short_phase(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(progress_module, "LINES_EVERY_S", 3600.0)
    progress = Progress("denoiser", out)
    progress.start("Timing", None, 100)
    for step in range(60):
        progress.step("Timing", step)
    progress.close()
    assert out.getvalue() == ""
    monkeypatch.setattr(progress_module, "LINES_EVERY_S", 0.0)
    progress.start("Timing", None, 100)
    for step in range(60):
        progress.step("Timing", step)
    assert out.getvalue().count("\n") == len(lines(out)) == 61 and out.getvalue().endswith("\n")


def test_a_terminals_bars_are_cleared():
    out = Terminal()
    progress = Progress("denoiser", out)
    progress.start("Building", None, 5)
    progress.start("Timing", "Building", 431)
    progress.close()
    assert "denoiser: Building" in out.getvalue() and "0/431" in out.getvalue()
    assert out.getvalue().endswith("\r") and not out.getvalue().split("\r")[-2].strip()
