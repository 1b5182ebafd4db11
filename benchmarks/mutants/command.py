"""Whether unit tests would notice a fault: each room's own tests, run on the room with one small fault (a mutant) at a time.

A mutant is killed when a test fails, or does not end; one that survives shows a promise that no test holds. Of the tests, only those
run that run the changed lines. They run on a copy; the checkout is only read. What survives is printed as it is found.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

from export.paths import ROOT
from faceclip_serving.contract.errors import UserError

from ..measure.report import emit, say
from .equivalent import EQUIVALENT
from .mutate import Mutant, mutants

WORKER = Path(__file__).with_name("worker.py")
LEAST_S = 8.0
"""Processor time that the tests of a mutant have at least; beyond, `SLOWER` times what they take without a fault. Then it is killed:
the fault is a loop without end."""
SLOWER = 3.0
HANGING_S = 30.0
"""The same for the time by the clock of one test, which passes on a busy machine too: the fault is a wait without end."""

Room = Mapping[str, Sequence[str]]
"""Module -> its own unit tests, as files or folders."""

_REQUESTS = (
    "tests/serving/contract",
    "tests/serving/models/test_warnings.py",
    "tests/export/repository/test_interface.py",
)
_SAMPLING = "tests/serving/sampling"
ROOMS: Mapping[str, Room] = {
    "parameters": {
        **{
            f"faceclip_serving/contract/{name}.py": _REQUESTS
            for name in ("allowed", "errors", "job", "operations", "parameters", "request")
        },
        "faceclip_serving/face/references.py": ("tests/serving/face/test_references.py",),
    },
    "sampling": {
        f"faceclip_serving/{name}.py": tuple(f"{_SAMPLING}/test_{each}.py" for each in tests)
        for name, tests in {
            "contract/schedules": ("schedule", "pictures"),
            "sampling/guidance": ("guidance", "pictures"),
            "sampling/loop": ("loop",),
            "sampling/networks": ("loop", "service"),
            "sampling/pictures": ("select", "pictures", "placements", "turns"),
            "sampling/previews": ("previews",),
            "sampling/schedule": ("schedule", "pictures"),
            "sampling/probe": ("probe",),
            "sampling/service": ("service",),
            "sampling/step_cache": ("step_cache", "pictures"),
            "sampling/threads": ("threads", "loop", "service"),
            "sampling/tiling": ("tiling",),
            "sampling/turns": ("turns", "select"),
        }.items()
    },
    "admission": {
        f"faceclip_serving/sampling/{name}.py": tuple(f"{_SAMPLING}/test_{each}.py" for each in tests)
        for name, tests in {
            "fairness": ("fairness", "life"),
            "life": ("admission", "life", "life_machine", "kept_reasons", "stages"),
            "reasons": ("kept_reasons", "life"),
            "stages": ("stages",),
            "requests": ("admission", "life"),
        }.items()
    },
}


class MutantsError(UserError):
    """The tests cannot be measured; the message says why."""


@dataclass
class Found:
    """Of one file."""

    killed: int = 0
    endless: int = 0
    """Of the killed: those whose tests did not end, or whose process did."""
    survivors: list[str] = field(default_factory=list)
    """As differences."""
    equivalent: int = 0
    """Survivors that nobody could tell from the file itself: see `EQUIVALENT`."""

    def as_json(self) -> dict[str, Any]:
        counted = self.killed + len(self.survivors)
        return {
            "mutants": counted + self.equivalent,
            "killed": self.killed,
            "endless": self.endless,
            "equivalent": self.equivalent,
            "survived": len(self.survivors),
            "rate": round(self.killed / counted, 4) if counted else None,
            "survivors": self.survivors,
        }


class Tests:
    """The tests of some modules in a copy of a checkout, as a worker process runs them."""

    def __init__(self, copy: Path, modules: Room) -> None:
        """Runs all of them once. Raises `MutantsError` if one fails."""
        self._copy = copy
        self._modules = modules
        (copy / ".tmp").mkdir()
        own = {
            "PYTHONPATH": str(copy / "client"),
            "TMPDIR": str(copy / ".tmp"),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._worker = subprocess.Popen(
            [sys.executable, str(WORKER), str(copy)], env={**os.environ, **own}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._known: dict[str, dict[str, Any]] = {}
        self.seconds = 0.0
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        tests = list(dict.fromkeys(test for tests in self._modules.values() for test in tests))
        told = self._ask({"tests": tests, "files": list(self._modules)})
        if "tests" not in told:
            raise MutantsError(f"the tests fail without any mutant; mend them first:\n{told['output']}")
        self._known, self.seconds = told["tests"], told["seconds"]
        for name in {tuple(tests): name for name, tests in self._modules.items()}.values():
            source = (self._copy / name).read_text(encoding="utf-8")
            outcome, by = self.run(name, Mutant(source, range(0), True, "", ""))
            if outcome != "survived":
                raise MutantsError(f"{by or self._modules[name]} fails in another order without any mutant; mend it first")

    def close(self) -> None:
        """Ends the worker."""
        self._worker.terminate()
        self._worker.communicate()

    def concerned(self, file: str, mutant: Mutant) -> list[str]:
        """The module's tests that run the mutant's lines, the quickest first; all, where only the import runs them."""

        def runs(name: str) -> bool:
            return any(line in mutant.lines for line in self._known[name]["lines"].get(file, ()))

        own = [
            name
            for name in self._known
            if name.startswith(tuple(f"{test}{end}" for test in self._modules[file] for end in "/:"))
        ]
        chosen = own if mutant.at_import else list(filter(runs, own)) or own
        return sorted(chosen, key=lambda name: float(self._known[name]["seconds"]))

    def run(self, file: str, mutant: Mutant) -> tuple[str, str]:
        """`killed`, `survived` or `endless`, and the test that has failed."""
        ids = self.concerned(file, mutant)
        if not ids:
            return "survived", ""
        seconds = [SLOWER * self._known[name]["seconds"] for name in ids]
        limits = {"each_s": HANGING_S + max(seconds), "cpu_s": LEAST_S + sum(seconds)}
        path = self._copy / file
        text = path.read_text(encoding="utf-8")
        path.write_text(mutant.source, encoding="utf-8")
        try:
            answer = self._ask({"ids": ids, **limits})
            return answer["outcome"], answer["by"]
        finally:
            path.write_text(text, encoding="utf-8")

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._worker.stdin is not None and self._worker.stdout is not None
        print(json.dumps(question), file=self._worker.stdin, flush=True)
        line = self._worker.stdout.readline()
        if not line:
            raise MutantsError(f"the process that runs the tests ended with code {self._worker.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def copied(root: Path) -> Iterator[Path]:
    """A copy of what git knows of a checkout, or would: gone at the end."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    with tempfile.TemporaryDirectory(prefix="faceclip-mutants-") as folder:
        copy = Path(folder).resolve()
        for name in filter(None, listed.stdout.split("\0")):
            if (root / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / name, copy / name)
        with contextlib.redirect_stdout(io.StringIO()):
            compileall.compile_dir(copy, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
        yield copy


def measure(root: Path, modules: Room, sample: int | None = None, seed: int = 0) -> dict[str, Any]:
    """The mutants of some modules of a checkout; at most `sample` of them, drawn by `seed`."""
    started = time.monotonic()
    with copied(root) as copy, contextlib.closing(Tests(copy, modules)) as tests:
        sources = {name: (copy / name).read_text(encoding="utf-8") for name in modules}
        chosen = [(name, mutant) for name, source in sources.items() for mutant in mutants(source)]
        if sample is not None and sample < len(chosen):
            drawn = sorted(random.Random(seed).sample(range(len(chosen)), sample))
            chosen = [chosen[i] for i in drawn]
        say(f"{len(chosen)} mutants of {len(modules)} files; the tests take {tests.seconds:.0f} s without one")
        found = {name: Found() for name in modules}
        for count, (name, mutant) in enumerate(chosen, 1):
            _judge(found[name], tests, name, mutant, sources[name])
            if count % 25 == 0 or count == len(chosen):
                say(f"{count} of {len(chosen)}, {time.monotonic() - started:.0f} s: {name} {_figures(found[name])}")
    killed = sum(each.killed for each in found.values())
    counted = killed + sum(len(each.survivors) for each in found.values())
    return {
        "mutants": len(chosen),
        "sample": sample,
        "rate": round(killed / counted, 4) if counted else None,
        "seconds": round(time.monotonic() - started),
        "files": {name: each.as_json() for name, each in found.items()},
    }


def _judge(found: Found, tests: Tests, name: str, mutant: Mutant, source: str) -> None:
    if (mutant.was, mutant.now) in EQUIVALENT.get(name, {}):
        found.equivalent += 1
        return
    outcome, _ = tests.run(name, mutant)
    if outcome == "survived":
        found.survivors.append(mutant.diff(source, name))
        print(found.survivors[-1], file=sys.stderr, flush=True)
    else:
        found.killed += 1
        found.endless += outcome == "endless"


def _figures(found: Found) -> str:
    return f"{found.killed} killed, {len(found.survivors)} survived"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--room", choices=sorted(ROOMS), action="append", help="repeatable (default: all)")
    known = sorted(name for room in ROOMS.values() for name in room)
    parser.add_argument(
        "--file", choices=known, action="append", default=[], metavar="FILE", help="of a room; repeatable (default: all)"
    )
    parser.add_argument("--sample", type=int, metavar="N", help="so many mutants, drawn at random (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    rooms = args.room or sorted(ROOMS)
    modules = {name: tests for room in rooms for name, tests in ROOMS[room].items() if not args.file or name in args.file}
    if not modules:
        raise MutantsError(f"--file: expected a file of {', '.join(rooms)}, got {', '.join(args.file)}")
    document = measure(ROOT, modules, args.sample, args.seed)
    for name, told in document["files"].items():
        say(f"{name}: {told['mutants']} mutants, {told['killed']} killed, {told['survived']} survived")
    emit("-".join(["mutants", *(args.room or [])]), {"rooms": rooms, **document})
    return 0
