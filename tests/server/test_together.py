"""Servers that are started at the same moment over fresh folders, as those of a fleet are: none fails, all have the same keys."""

import subprocess
import sys

import pytest

from tests.end_to_end.running import PROXY, ROOT, running

TOGETHER = 6
PREPARE = """
import hashlib, sys, time
from pathlib import Path
from faceclip_serving.contract.placements import CPU
from server import installation
from server.marks import prepare
from server.process import _Workspace
folder, marks = Path(sys.argv[1]), sys.argv[2]
own = {"audit_folder": str(folder / "audit" / sys.argv[3])}
told = {"faceclip": {"marks_folder": str(folder), "marks": marks, "consent": "require", **own}}
print("here", flush=True)
sys.stdin.read()  # until all are
prepare({"faceclip": CPU}, told)
print(*(hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.*")) if path.is_file() and path.name[0] != "."))
workspace = _Workspace()
found = installation.find(workspace.path)
time.sleep(0.5)  # whatever another one takes for stale
assert (found.backends / "python" / "triton_python_backend_stub").exists()
workspace.close()
"""


@pytest.mark.proof
@pytest.mark.parametrize("marks", ["all", "watermark", "credentials"])
def test_whoever_prepares_at_the_same_moment_has_the_same_keys(tmp_path, marks):
    folder, scratch = tmp_path / "marks", tmp_path / "scratch"
    scratch.mkdir()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PREPARE, str(folder), marks, str(number)],
            cwd=ROOT,
            env={**PROXY, "TMPDIR": str(scratch)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(TOGETHER)
    ]
    assert [each.stdout.readline() for each in started] == ["here\n"] * TOGETHER
    for each in started:
        each.stdin.close()
        each.stdin = None  # `communicate` would flush it
    said = [each.communicate(timeout=60) for each in started]
    assert [each.returncode for each in started] == [0] * TOGETHER, said
    assert len({keys for keys, _ in said}) == 1 and said[0][0].split(), "each has read what all have"
    assert not list(folder.rglob(".*.*")), "nothing half written is left"
    assert not list(scratch.iterdir()), "nor a workspace"


@pytest.mark.proof
@pytest.mark.server
def test_two_servers_start_at_once_over_fresh_folders(repository, tmp_path, monkeypatch):
    monkeypatch.setitem(PROXY, "TMPDIR", str(tmp_path))
    keys = tmp_path / "marks"
    with (
        running(repository, "--set", f"marks_folder={keys}") as one,
        running(repository, "--set", f"marks_folder={keys}") as other,
    ):
        for each in (one, other):
            each.until(lambda each=each: each.said("ready after"), 300)
            assert each.ask("ready")[0] == 200
        roots = {line.rpartition(" ")[2] for each in (one, other) for line in each.said("root ")}
        assert len(list(keys.glob("root.pem"))) == 1 and len(roots) <= 1
        workspaces = list(tmp_path.glob("faceclip-*/backends"))
        assert len(workspaces) == 2, "each has its own"
        for each in (one, other):
            each.process.terminate()
        assert [each.end() for each in (one, other)] == [0, 0]
