"""Every time on a command line is a finite one: `nan` compares false, so whoever waits until it is over waits for ever."""

import pytest

from benchmarks.marks import command as marks
from export import commandline
from faceclip_serving.contract.numbers import finite, seconds, seconds_or_none
from server.__main__ import main

ABOVE, OR_NONE = "a finite number of seconds above 0", "a finite number of seconds, 0 or more"
TIMES = [
    (["run", "folder", "--timeout"], ABOVE),
    (["run", "folder", "--linger"], OR_NONE),
    (["run", "folder", "--drain-timeout"], OR_NONE),
    (["run", "folder", "--stall-timeout"], ABOVE),
    (["probe", "--timeout"], ABOVE),
    (["drain", "--timeout"], OR_NONE),
    (["drain", "--linger"], OR_NONE),
    (["status", "--timeout"], ABOVE),
    (["health", "--timeout"], ABOVE),
]


WRONG = {ABOVE: ["nan", "inf", "-1", "soon", "0"], OR_NONE: ["nan", "inf", "-1", "soon"]}


@pytest.mark.parametrize(("command", "expected", "wrong"), [(*time, wrong) for time in TIMES for wrong in WRONG[time[1]]])
def test_a_time_that_never_comes_is_refused(command, expected, wrong, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*command[:-1], f"{command[-1]}={wrong}"])
    assert capsys.readouterr().err.endswith(f"error: argument {command[-1]}: expected {expected}, got '{wrong}'\n")


def test_a_measurement_has_no_endless_time_either(capsys):
    with pytest.raises(SystemExit, match="2"):
        commandline.run_command("measure", "", {"marks": commandline.Command(marks.__name__, "")}, ["marks", "--search=nan"])
    assert capsys.readouterr().err.endswith(f"--search: expected {OR_NONE}, got 'nan'\n")


def test_numbers_are_read():
    assert (seconds("1e-3"), seconds_or_none("0"), finite()("2")) == (0.001, 0.0, 2.0)
