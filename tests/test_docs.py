"""The docs: links lead somewhere, commands exist with the options that are shown, the README is short, lines can be read."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from server import installation

ROOT = Path(__file__).resolve().parent.parent
README_LINES = 130
PROSE_WIDTH = 140
PROGRAMS = {
    "python -m export": "export.__main__",
    "python -m benchmarks": "benchmarks.__main__",
    "python -m server": "server.__main__",
    "python -m training": "training.__main__",
    "python -m training.resumability": "training.resumability",
    "python -m training.contact_sheet": "training.contact_sheet",
    "python -m examples.demo": "examples.demo",
    "python -m examples.recipes": "examples.recipes",
    "python -m examples.studio": "examples.studio",
    "python -m gateway": "gateway.__main__",
    "faceclip": "faceclip.cli",
}
"""Program, as the docs write it -> the module whose `main` it is."""
WITH_ACTIONS = ("credentials", "consent", "audit", "keys")
"""Commands that have commands of their own."""
OTHERS = ("python -m pytest", "python -m tests.rooms")
"""Programs that are not ours, or take no options."""

_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_CALL = re.compile(r"(?:python3? -m [\w.]+|\bfaceclip (?=generate|edit|faces|identity|status|verify)|\bmake )[^`\n#|;]*")
_CONTINUED = re.compile(r"\\\n\s*")


def documents() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).exists()]


EVERY_DOCUMENT = pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))


# -------------------------------------------------------------------------------------------------------------------- links
def anchors(document: Path) -> set[str]:
    """The names by which headings can be linked, made as GitHub makes them."""
    headings = _HEADING.findall(_CODE.sub("", document.read_text(encoding="utf-8")))
    shown = [_LINK.sub(lambda link: link[0].partition("](")[0].lstrip("!["), heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in shown}


def links(document: Path) -> list[str]:
    text = _CODE.sub("", document.read_text(encoding="utf-8"))
    return [target for target in _LINK.findall(text) if "://" not in target]


@EVERY_DOCUMENT
def test_every_relative_link_leads_somewhere(document):
    for target in links(document):
        name, _, anchor = target.partition("#")
        found = (document.parent / name).resolve() if name else document
        assert found.exists(), f"{target}: there is no {found.relative_to(ROOT)}"
        if anchor:
            assert anchor in anchors(found), f"{target}: {found.name} has no such heading"


@EVERY_DOCUMENT
def test_every_document_is_reached_from_the_readme(document):
    """At first or second hand."""
    first = {(ROOT / target.partition("#")[0]).resolve() for target in links(ROOT / "README.md")}
    second = {(page.parent / target.partition("#")[0]).resolve() for page in first & set(documents()) for target in links(page)}
    assert document == ROOT / "README.md" or document in first | second


# ----------------------------------------------------------------------------------------------------------------- commands
def calls(document: Path) -> Iterator[str]:
    """Command lines of ours in a document, whether in a block or in a sentence."""
    text = _CONTINUED.sub("", document.read_text(encoding="utf-8"))
    sentences = [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", _CODE.sub("", text))]
    for span in (*_CODE.findall(text), *sentences):
        yield from (call.strip() for call in _CALL.findall(span))


def split(call: str) -> tuple[str, list[str]]:
    """The program, as in `PROGRAMS`, and its arguments."""
    words = shlex.split(call.replace("…", " "), comments=True) if call.count('"') % 2 == 0 else call.split()
    length = 3 if words[0].startswith("python") else 1
    return " ".join(["python", *words[1:3]]) if length == 3 else words[0], words[length:]


@cache
def help_of(module: str, *commands: str) -> str:
    """What `--help` prints."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        patch.setenv("COLUMNS", "1000")
        patch.setattr(sys, "argv", [module, *commands, "--help"])
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(module).main()
    assert ended.value.code == 0, f"there is no command '{' '.join(commands)}' in {module}: {printed.getvalue()}"
    return printed.getvalue()


def _options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", text))


@cache
def tritons_options() -> set[str]:
    """What `run` passes on."""
    with tempfile.TemporaryDirectory() as folder:
        found = installation.find(Path(folder))
        environment = {**os.environ, **found.environment}
        told = subprocess.run([found.binary, "--help"], env=environment, capture_output=True, text=True, check=False)
    return _options(told.stdout + told.stderr)


def choices(text: str, option: str) -> list[str]:
    """What an option may be, where its help names all of it."""
    found = re.search(rf"(?<!\S){re.escape(option)} \{{([^}}\s]*)\}}", text)
    return found[1].split(",") if found else []


@EVERY_DOCUMENT
def test_every_command_exists_and_knows_its_options(document):
    for call in calls(document):
        program, words = split(call)
        if program == "make" or program in OTHERS:
            continue
        assert program in PROGRAMS, f"`{call}`: no such program"
        takes_command = program in (
            "python -m export",
            "python -m benchmarks",
            "python -m server",
            "python -m gateway",
            "faceclip",
        )
        command = words[0] if takes_command and words and re.fullmatch(r"[a-z][a-z-]+", words[0]) else None
        action = words[1:2] if command in WITH_ACTIONS else []
        text = help_of(PROGRAMS[program], *([command] if command else []), *action)
        known = (
            _options(text) | {"--help"} | (tritons_options() if (program, command) == ("python -m server", "run") else set())
        )
        for word, value in pairwise([*words, ""]):
            option = word.partition("=")[0]
            if re.fullmatch(r"--?[a-z][\w-]*", option):
                assert option in known, f"`{call}`: {program} {command or ''} has no {option}"
                allowed = choices(text, option)
                assert not allowed or not re.match(r"[a-z0-9]", value) or value in allowed, f"`{call}`: {option} {value}"


@EVERY_DOCUMENT
def test_every_make_target_and_variable_exists(document):
    makefile = (ROOT / "Makefile").read_text()
    for call in calls(document):
        program, words = split(call)
        if program != "make":
            continue
        for word in words:
            name, given, _ = word.partition("=")
            exists = f"$({name})" in makefile if given else re.search(rf"^{re.escape(name)}:", makefile, re.MULTILINE)
            assert exists, f"`{call}`: the Makefile has no {name}"


def test_the_test_itself_finds_commands(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        'Run `python -m export onnx --variant nano`.\n\n```\nmake demo PROMPT="a b"   # why\nfaceclip status\n```\n'
    )
    assert [split(call) for call in calls(page)] == [
        ("make", ["demo", "PROMPT=a b"]),
        ("faceclip", ["status"]),
        ("python -m export", ["onnx", "--variant", "nano"]),
    ]


# ------------------------------------------------------------------------------------------------------------------- metrics
def test_every_metric_is_explained():
    sources = "".join(path.read_text() for path in (ROOT / "faceclip_serving/models").glob("*metrics.py"))
    names = set(re.findall(r'\.(?:counter|gauge|histogram)\("(\w+)"', sources))
    told = (ROOT / "docs/serve.md").read_text(encoding="utf-8")
    assert len(names) > 10 and not {name for name in names if not re.search(rf"`faceclip_{name}[`{{]", told)}


# ---------------------------------------------------------------------------------------------------------------------- form
def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


@EVERY_DOCUMENT
def test_no_line_of_prose_is_too_long(document):
    text = _CODE.sub(lambda block: "\n" * block[0].count("\n"), document.read_text(encoding="utf-8"))
    long = [i for i, line in enumerate(text.splitlines(), 1) if len(line) > PROSE_WIDTH and not line.startswith("|")]
    assert not long, f"lines {long}"
