"""The command lines of export and benchmarks: quick to start, and plain about what they are asked and what went wrong."""

import argparse
import importlib
import json
import shutil
import subprocess
import sys

import pytest

import benchmarks.__main__ as benchmarks
import export.__main__ as export
from export.commandline import Command, run_command
from export.onnx.errors import ExportError
from export.paths import MODEL_REPOSITORY, ROOT
from export.repository import from_nothing
from server import installation

HEAVY = ("torch", "onnxscript", "diffusers", "transformers", "onnxruntime")
"""A second to many to import, so only for a command that does its work."""

MAINS = {"export": export, "benchmarks": benchmarks}
COMMANDS = [(program, command) for program, main in MAINS.items() for command in main.COMMANDS]

LOADED = """
import argparse, importlib, json, sys
importlib.import_module(sys.argv[1]).add_arguments(argparse.ArgumentParser())
print(json.dumps(sorted(set(sys.modules) & set(sys.argv[2:]))))
"""


@pytest.mark.proof
@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_a_commands_parser_is_built_without_what_takes_seconds_to_import(program, command):
    module = MAINS[program].COMMANDS[command].module
    done = subprocess.run([sys.executable, "-c", LOADED, module, *HEAVY], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("command", ["download", "forecast"])
def test_these_do_not_import_the_exporter(command):
    exporter = [f"export.onnx.{name}" for name in ("export", "graph", "trace", "parity")]
    arguments = [export.COMMANDS[command].module, "export.networks", "onnx_ir", *exporter]
    done = subprocess.run([sys.executable, "-c", LOADED, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_help_ends_well_and_mentions_every_option(program, command, capsys):
    main = MAINS[program]
    with pytest.raises(SystemExit) as ended:
        main.main([command, "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and f"python -m {program} {command}" in shown
    parser = argparse.ArgumentParser()
    importlib.import_module(main.COMMANDS[command].module).add_arguments(parser)
    told = (action for action in parser._actions if action.help != argparse.SUPPRESS)  # old spellings are not
    options = [option for action in told for option in action.option_strings]
    assert len(options) > 2 and [option for option in options if option not in shown] == []


@pytest.mark.parametrize("program", MAINS)
def test_an_overview_names_every_command(program, capsys):
    with pytest.raises(SystemExit) as ended:
        MAINS[program].main(["--help"])
    shown = capsys.readouterr().out
    first_words = {line.split()[0] for line in shown.splitlines() if line.strip()}
    assert ended.value.code == 0 and MAINS[program].COMMANDS.keys() <= first_words


@pytest.mark.parametrize("program", MAINS)
@pytest.mark.parametrize("arguments", [["fly"], []])
def test_an_unknown_command_is_refused(program, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        MAINS[program].main(arguments)
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and not out and f"usage: python -m {program}" in err


def test_old_spellings_go_on_working(capsys):
    size = ["--variant", "sdxl", "--largest", "512x512", "--json"]
    codes, shown = [], []
    for arguments in (["forecast", "--placement", "8gb"], ["plan", "--placement", "8gb"], ["forecast", "--profile", "8gb"]):
        codes.append(export.main([*arguments, *size]))
        shown.append(json.loads(capsys.readouterr().out))
    assert codes == [0, 0, 0] and shown[0]["placement"] == "8gb" and shown[0] == shown[1] == shown[2]


@pytest.mark.parametrize("error", [ExportError("the face is missing"), FileNotFoundError(2, "No such file", "a.onnx")])
def test_what_a_user_can_mend_is_told_in_its_own_words_and_code_1(error, monkeypatch, capsys):
    def run(_args):
        raise error

    module = argparse.Namespace(__doc__="Fails.", add_arguments=lambda parser: None, run=run)
    monkeypatch.setattr(importlib, "import_module", lambda name: module)
    assert run_command("python -m x", "", {"fail": Command("x.fail", "")}, ["fail"]) == 1
    assert capsys.readouterr() == ("", f"error: {error}\n")


def test_a_users_error_is_one_line(tmp_path, capsys):
    """Of every command that fails before any work: what it needs is not there."""
    nothing = str(tmp_path / "nothing")
    for arguments in (
        ["onnx", "--variant", "sdxl", "--component", "face_encoder", "--output", nothing],
        ["engine", "--components", nothing],
        ["verify", "--components", nothing],
        ["inspect", "--components", nothing],
        ["inspect", "--json", nothing],
        ["ranges", "--variant", "tiny-sdxl", "--components", nothing],
        ["picture", "--components", nothing],
        ["quantize", "--mode", "int8", "--components", nothing],
        ["repository", "--components", nothing, "--output", nothing],
        ["download"],
    ):
        assert export.main(arguments) == 1, arguments
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert nothing in line or "licences" in line or "published weights" in line


@pytest.mark.parametrize("command", ["soak", "serving", "overhead", "parity"])
def test_a_measurement_without_a_server_is_one_line(command, monkeypatch, capsys, tmp_path):
    def none(_workspace):
        raise installation.InstallationError("no tritonserver here: pip install it")

    (tmp_path / "faceclip").mkdir()
    shutil.copy(MODEL_REPOSITORY / "faceclip" / "config.pbtxt", tmp_path / "faceclip")
    monkeypatch.setattr(from_nothing, "build_repository", lambda *_args, **_options: tmp_path)
    monkeypatch.setattr(installation, "find", none)
    assert benchmarks.main([command, "--variant", "tiny-sdxl"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: no tritonserver here: pip install it"


def test_damaged_documents_are_one_line(tmp_path, capsys):
    for text in ("{", "[]"):
        (tmp_path / "plan.json").write_text(text)
        assert export.main(["inspect", "--json", str(tmp_path / "plan.json")]) == 1
    assert benchmarks.main(["quality", "--pictures", str(tmp_path / "none"), "--recogniser", "x.onnx"]) == 1
    assert benchmarks.main(["quality", "--pictures", str(tmp_path), "--recogniser", str(tmp_path / "plan.json")]) == 1
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["error"] * 4


TWICE = """
import atexit, os, signal, sys
from export.commandline import exit_code

class Again:
    def write(self, text): os.kill(os.getpid(), signal.SIGINT)
    def flush(self): pass

def work():
    if sys.argv[1] == "while it is told": sys.stderr = Again()
    else: atexit.register(Again().write, "")
    os.kill(os.getpid(), signal.SIGINT)

sys.exit(exit_code(work))
"""


@pytest.mark.parametrize("when", ["while it is told", "while Python takes leave"])
def test_a_second_ctrl_c_ends_a_command_as_the_first_does(when):
    done = subprocess.run([sys.executable, "-c", TWICE, when], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "") and done.stderr in ("", "stopped\n")


def test_a_fault_of_ours_is_not_hidden(monkeypatch):
    def run(_args):
        raise KeyError("ours")

    module = argparse.Namespace(__doc__="", add_arguments=lambda parser: None, run=run)
    monkeypatch.setattr(importlib, "import_module", lambda name: module)
    with pytest.raises(KeyError):
        run_command("python -m x", "", {"fail": Command("x.fail", "")}, ["fail"])
