"""A process of one's own: its answer, its error, its death; and that nothing of it is left when the command is stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import psutil
import pytest

from export.engine.apart import ProcessDied, apart
from export.engine.record import LOG
from export.outputs import replacing
from export.paths import ROOT
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.placements import ONNX_FILE, PLAN_FILE, TRT_RTX


def test_the_answer_and_the_error_of_a_process_are_the_callers():
    assert apart(json.loads, '{"a": 1}') == {"a": 1} and apart(type, 1) is int
    with pytest.raises(ValueError, match="invalid literal") as caught:
        apart(int, "words")
    assert any("apart.py" in note for note in caught.value.__notes__), "where it was raised"


@pytest.mark.parametrize(
    ("function", "given", "killed"), [(os._exit, 3, 0), (signal.raise_signal, signal.SIGKILL, signal.SIGKILL)]
)
def test_a_process_that_dies_says_how(function, given, killed):
    with pytest.raises(ProcessDied) as caught:
        apart(function, given)
    assert caught.value.signal == killed


def test_what_dead_processes_began_to_write_goes_and_what_living_ones_write_stays(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, living = (tmp_path / f".model.{number}.partial.plan" for number in (ended.pid, os.getppid()))
    others = [
        tmp_path / name
        for name in (f".other.{ended.pid}.partial.plan", f".model.{ended.pid}.partial.onnx", ".model.x.partial.plan")
    ]
    for path in (dead, living, *others):
        path.write_text("half")
    with replacing(tmp_path / PLAN_FILE) as partial:
        partial.write_text("whole")
    assert not dead.exists() and all(path.exists() for path in (living, *others))
    assert (tmp_path / PLAN_FILE).read_text() == "whole"


@pytest.mark.proof
@pytest.mark.skipif(find_spec(TRT_RTX.package) is None, reason=f"{TRT_RTX.package} is not on this platform")
@pytest.mark.parametrize("how", ["once", "twice", "terminated"])
def test_a_stopped_build_ends_at_once_with_its_compiler(how, tiny_fp32, tmp_path):
    folder = tmp_path / "fp16" / DENOISER  # what the graph computes in does not matter here
    folder.mkdir(parents=True)
    for path in (tiny_fp32 / DENOISER).glob(f"{ONNX_FILE}*"):
        shutil.copy(path, folder)
    command = [
        sys.executable,
        "-m",
        "export",
        "engine",
        "--sm",
        "75,86,89,120",
        "--components",
        str(tmp_path),
        "--component",
        DENOISER,
    ]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as running:
        began, children = time.monotonic(), []
        while not any(child.memory_info().rss > 300e6 for child in children):  # the compiler, at work
            assert running.poll() is None and time.monotonic() - began < 120
            time.sleep(0.05)
            children = psutil.Process(running.pid).children(recursive=True)
        stopped = time.monotonic()
        if how == "terminated":
            running.terminate()
        else:
            os.killpg(running.pid, signal.SIGINT)  # as a terminal does, to all of them
        if how == "twice":
            time.sleep(0.02)
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGINT)
        _, told = running.communicate(timeout=30)
        assert time.monotonic() - stopped < 5
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    assert running.returncode == (-signal.SIGTERM if how == "terminated" else 130)
    if how == "once":
        assert told.splitlines()[-1] == "stopped"
    if how != "terminated":
        assert "Traceback" not in told
        assert {path.name for path in folder.iterdir()} == {LOG, *(path.name for path in folder.glob(f"{ONNX_FILE}*"))}
