"""Dockerfiles and scripts, by the tools that know their traps, and `make check-deploy` itself."""

import re
import subprocess

import pytest

from .chart import containers, pods
from .tools import ROOT, SOURCES, answer, call

DOCKERFILES = sorted((ROOT / "deploy").glob("*Dockerfile"))
SCRIPTS = [*sorted((ROOT / "deploy").glob("*.sh")), ROOT / ".ci" / "run"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles(path):
    call("hadolint", path)
    assert len(DOCKERFILES) == 2


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts(path):
    call("shellcheck", path)


@pytest.mark.parametrize("name", ["nano-cpu", "gateway"])
def test_scripts_in_the_chart(name):
    told = [each.get("command", each.get("args", [])) for pod in pods(name).values() for each in containers(pod)]
    found = [each for each in told if "-euc" in each]
    assert found
    for shell, _, script, *_ in found:
        call("shellcheck", f"--shell={shell}", "-", text=script)


def test_planted_faults_are_found(tmp_path):
    wrong = tmp_path / "Dockerfile"
    wrong.write_text("FROM debian\nRUN cd /tmp && sudo apt-get install x\n")
    assert answer("hadolint", wrong).returncode
    assert answer("shellcheck", "--shell=sh", "-", text="rm -r $folder/*\n").returncode


def test_a_missing_tool_says_how_it_is_got():
    """Each by a command that is there."""
    for name, source in SOURCES.items():
        for file in re.findall(r"deploy/[\w.-]+", source):
            assert (ROOT / file).exists(), name
    printed = subprocess.run(["make", "-n", "check-deploy"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "pytest tests/deploy" in printed and " -rs" in printed, "the reasons of what is skipped are shown"
