"""What people see of a build."""

import io

from export.engine.progress import Progress


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_newest_phase_stands_below_those_it_is_part_of():
    clock = Clock()
    progress = Progress("denoiser", io.StringIO(), clock)
    assert progress.line() == "[   0 s] denoiser: preparing"
    progress.start("Building", None, 5)
    progress.step("Building", 1)
    progress.start("Timing", "Building", 431)
    progress.step("Timing", 119)
    clock.now = 63.0
    assert progress.line() == "[  63 s] denoiser: Building 2/5 > Timing 120/431"
    progress.finish("Timing")
    assert progress.line() == "[  63 s] denoiser: Building 2/5"


def test_an_unknown_phase_and_one_that_is_its_own_parent_do_no_harm():
    progress = Progress("denoiser", io.StringIO(), Clock())
    progress.step("never started", 3)
    progress.finish("never started")
    progress.start("loop", "loop", 2)
    assert progress.line().endswith("denoiser: loop 0/2")


def test_a_file_gets_a_line_now_and_then():
    clock, out = Clock(), io.StringIO()
    progress = Progress("denoiser", out, clock)
    progress.start("Timing", None, 100)
    for second in range(60):
        clock.now = float(second)
        progress.step("Timing", second)
    assert out.getvalue().count("\n") == 4 and "Timing 46/100" in out.getvalue()


def test_a_terminal_gets_one_line_that_is_cleared():
    clock, out = Clock(), Terminal()
    progress = Progress("denoiser", out, clock)
    for second in range(5):
        clock.now = float(second)
        progress.start(f"phase {second}", None, 1)
    progress.close()
    assert "\n" not in out.getvalue() and out.getvalue().endswith("\r") and "phase 4" in out.getvalue()
