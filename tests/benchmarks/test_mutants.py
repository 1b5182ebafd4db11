"""Mutants: which faults are made, and that tests which hold a promise kill them, on a copy and in finite time."""

import ast
import subprocess
from pathlib import Path

import pytest

from benchmarks.mutants import command
from benchmarks.mutants.command import ROOMS, MutantsError, measure
from benchmarks.mutants.equivalent import EQUIVALENT
from benchmarks.mutants.mutate import mutants

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("ok = a < b", {"ok = (a <= b)", "ok = (a >= b)"}),
        ("ok = a == b and not c", {"ok = (a == b or not c)", "ok = (a != b) and not c", "ok = a == b and c"}),
        ("x = a + 1", {"x = (a - 1)", "x = a + 2"}),
        ("x = True, 'word', b'', -y", {
            "x = False, 'word', b'', -y", "x = True, '', b'', -y", "x = True, 'word', b'XX', -y", "x = True, 'word', b'', y",
        }),
        ("x = min(a, key=b).lower()", {"x = max(a, key=b).lower()", "x = min(a).lower()", "x = min(a, key=b).upper()"}),
        ('x = f"{a}: expected {b}"', {"x = f': expected {b}'", "x = f'{a}: expected '"}),
        ("def f(a: 'int' = 1):\n    '''Doc.'''\n    assert a\n    return a", {"def f(a: 'int' = 2):", "return None"}),
        ("def f():\n    x = a\n    g(x)", {"x = None", "pass"}),
        ("while a:\n    break", {"while (not a):", "continue"}),
        ("x = [a for a in b if a]", {"x = [a for a in b if (not a)]"}),
        ("x = lambda a: a.b", {"x = (lambda a: None)"}),
    ],
)  # fmt: skip
def test_each_fault_is_one_small_change(source, expected):
    assert {mutant.now for mutant in mutants(source)} == expected


@pytest.mark.proof
@pytest.mark.parametrize("file", sorted(name for room in ROOMS.values() for name in room))
def test_every_mutant_of_the_rooms_is_another_program_and_knows_its_lines(file):
    source = (ROOT / file).read_text()
    found = mutants(source)
    assert len({mutant.source for mutant in found} - {source}) >= 0.9 * len(found)  # two faults may have one text
    lines = len(source.splitlines())
    for mutant in found:
        ast.parse(mutant.source)
        assert 1 <= mutant.lines.start < mutant.lines.stop <= lines + 1
    known = {(mutant.was, mutant.now) for mutant in found}
    assert EQUIVALENT.get(file, {}).keys() <= known, "these lines are there no more: strike them"


def test_the_tests_of_every_room_exist():
    for room in ROOMS.values():
        for tests in room.values():
            assert all((ROOT / test).exists() for test in tests)


MODULE = """
LIMIT = 3


def least(a, b):
    while b < a:
        a -= 1
    return a


def forgotten(a):
    return a + 1


def allowed(a):
    return a <= LIMIT
"""
TESTS = """
import pytest
from room.module import LIMIT, allowed, least


@pytest.mark.parametrize("limit", [LIMIT])
def test_the_limit_is_three(limit):
    assert limit == 3 and allowed(3) and not allowed(4)


def test_the_least():
    assert least(2, 1) == 1 and least(1, 3) == 1
"""


@pytest.fixture
def checkout(tmp_path):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    for name, text in {"room/__init__.py": "", "room/module.py": MODULE, "tests/test_module.py": TESTS}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts}


@pytest.mark.proof
def test_what_tests_hold_is_killed_what_they_do_not_survives_and_the_checkout_is_as_it_was(checkout, monkeypatch, capfd):
    monkeypatch.setattr(command, "LEAST_S", 3.0)
    before = content(checkout)
    found = measure(checkout, {"room/module.py": ("tests/test_module.py",)})["files"]["room/module.py"]
    assert content(checkout) == before
    changed = [[line for line in diff.splitlines() if line.startswith("+ ")] for diff in found["survivors"]]
    assert changed == [["+    return None"], ["+    return (a - 1)"], ["+    return a + 2"]]
    assert found["mutants"] == found["killed"] + 3 and found["killed"] >= 8
    assert found["rate"] == pytest.approx(found["killed"] / found["mutants"], abs=1e-4)
    assert "+    return a + 2" in capfd.readouterr().err, "told as it is found"


def test_a_sample_is_drawn_by_its_seed(checkout, monkeypatch):
    monkeypatch.setattr(command, "LEAST_S", 3.0)
    found = measure(checkout, {"room/module.py": ("tests/test_module.py",)}, sample=2, seed=1)
    assert found["mutants"] == 2 and found["files"]["room/module.py"]["mutants"] == 2


def test_tests_that_fail_without_a_mutant_measure_nothing(checkout):
    (checkout / "tests/test_module.py").write_text(TESTS.replace("== 3", "== 4"))
    with pytest.raises(MutantsError, match=r"the tests fail without any mutant(.|\n)*test_the_limit_is_three"):
        measure(checkout, {"room/module.py": ("tests/test_module.py",)})
