"""The process that runs tests on mutants: everything but the project is imported once, and each mutant is a fork of that.

Importing torch takes seconds, and the tests of a mutant less than one. A script with nothing of the project's in it:
`python worker.py ROOT`, where ROOT is a copy of the checkout. A line of JSON on stdin is a question, one on stdout its answer:

    {"tests": [...], "files": [...]}    -> {"seconds", "output", "tests": {id: {"seconds", "lines": {file: [...]}}}}; failed: "output" alone
    {"ids": [...], "each_s", "cpu_s"} -> {"outcome": "killed" | "survived" | "endless", "by": id of the test that failed}

The first is to come first. `lines`: which lines of `files` a test runs. The ids of the second are run in their order, each for at most
`each_s` seconds, all for `cpu_s` of processor time.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import math
import os
import resource
import select
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import Phase, settings

OPTIONS = ("-x", "-p", "no:cacheprovider", "--hypothesis-profile=mutants")


class Lines:
    """A pytest plugin that notes which lines of some files each test runs, in all of its threads."""

    def __init__(self, files: Sequence[str]) -> None:
        self._names = {str(Path(name).resolve()): name for name in files}
        self._found: dict[str, set[int]] = defaultdict(set)
        self.tests: dict[str, Any] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._found = defaultdict(set)
        started = time.perf_counter()
        threading.settrace(self._called)
        sys.settrace(self._called)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            lines = {name: sorted(found) for name, found in self._found.items()}
            self.tests[item.nodeid] = {"seconds": time.perf_counter() - started, "lines": lines}

    def _called(self, frame: FrameType, event: str, arg: Any) -> Any:
        name = self._names.get(frame.f_code.co_filename)
        if name is None:
            return None
        found = self._found[name]

        def line(frame: FrameType, event: str, arg: Any) -> Any:
            found.add(frame.f_lineno)
            return line

        found.add(frame.f_lineno)
        return line


class Chosen:
    """A pytest plugin that runs some of the tests, in an order; before them those of the same functions that are `new`."""

    def __init__(self, ids: Sequence[str], known: Collection[str]) -> None:
        self._place = {name: place for place, name in enumerate(ids)}
        self._functions = {name.partition("[")[0] for name in ids}
        self._known = known
        self.failed = ""

    def _chosen(self, name: str) -> bool:
        return name in self._place or (name not in self._known and name.partition("[")[0] in self._functions)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if self._chosen(item.nodeid)]
        items[:] = sorted(chosen, key=lambda item: self._place.get(item.nodeid, -1))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def in_fork(work: Callable[[], Any], cpu_s: float) -> Any:
    """What `work` returns in a process of its own; None if that ends without a word, as it does after so much processor time.

    Nor is it waited for when that time was long over.
    """
    read, write = os.pipe()
    gc.freeze()
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(cpu_s), math.ceil(cpu_s)))
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        answer = json.dumps(work()).encode()
        while answer:
            answer = answer[os.write(write, answer) :]
        os._exit(0)
    os.close(write)
    told = b""
    try:
        while select.select([read], [], [], 20 * cpu_s)[0]:
            part = os.read(read, 1 << 20)
            if not part:
                return json.loads(told) if told else None
            told += part
        return None
    finally:
        os.close(read)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # and what it has started
        os.waitpid(child, 0)


def first_run(tests: Sequence[str], files: Sequence[str]) -> dict[str, Any]:
    """The tests without a mutant; `imported`: the modules that they load from outside of the project."""
    started = time.perf_counter()
    lines = Lines(files)
    sys.dont_write_bytecode = False  # of the tests, which do not change
    output = Path("first_run.txt")
    with output.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        code = pytest.main([*tests, *OPTIONS], [lines])
    here = str(Path.cwd())
    known = [(name, getattr(module, "__file__", None) or "") for name, module in list(sys.modules.items())]
    imported = [name for name, file in known if not file.startswith(here) and not name.startswith("__")]
    told = {"seconds": time.perf_counter() - started, "output": output.read_text(), "imported": imported}
    return told | ({"tests": lines.tests} if code == pytest.ExitCode.OK else {})


def one_run(ids: Sequence[str], known: Collection[str], each_s: float) -> dict[str, str]:
    """Whether any of the tests fails. `known`: all that there are without a mutant, which may be in the parameters of tests too."""
    chosen = Chosen(ids, known)
    files = dict.fromkeys(name.partition("::")[0] for name in ids)
    code = pytest.main([*files, *OPTIONS, f"--timeout={each_s}"], [chosen])
    return {"outcome": "survived" if code == pytest.ExitCode.OK else "killed", "by": chosen.failed}


def answer(question: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """`known` is filled by the first question."""
    if "files" in question:
        told: dict[str, Any] | None = in_fork(lambda: first_run(question["tests"], question["files"]), 1800)
        if told is None:
            return {"output": "their process ended"}
        for name in told.pop("imported"):
            try:
                importlib.import_module(name)
            except Exception:  # noqa: BLE001 - the tests import it themselves then
                continue
        known.update(told.get("tests", ()))
        return told
    found = in_fork(lambda: one_run(question["ids"], known, question["each_s"]), question["cpu_s"])
    return found or {"outcome": "endless", "by": ""}


def main(root: str) -> None:
    os.chdir(root)
    sys.dont_write_bytecode = True  # a mutant may be as old and as long as what it replaces
    sys.path[:1] = [root, str(Path(root, "client"))]
    phases = (Phase.explicit, Phase.generate)  # that a test fails is enough
    settings.register_profile("mutants", database=None, derandomize=True, deadline=None, phases=phases)
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what else may print
    known: set[str] = set()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), known)), file=told, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
