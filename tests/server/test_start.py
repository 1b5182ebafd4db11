"""What is said before a server starts, and of one that did not: folders, ports, logs."""

from pathlib import Path

import pytest

from faceclip_serving.contract.errors import UserError
from server import installation
from server.__main__ import main
from server.log import Log
from server.repository import interfaces

ROOT = Path(__file__).resolve().parents[2]
ENSEMBLE = 'name: "faceclip" platform: "ensemble" parameters { key: "interface" value { string_value: "{}" } }'


@pytest.fixture
def folder(tmp_path):
    """A repository, as far as it is read before a start."""
    (tmp_path / "faceclip").mkdir()
    (tmp_path / "faceclip" / "config.pbtxt").write_text(ENSEMBLE)
    return tmp_path


def test_the_public_models_are_read_from_the_folder(folder):
    (folder / "deployments.json").write_text("{}")
    assert interfaces(folder) == {"faceclip": {}}


def refusal(folder, capsys):
    """The one line on stderr."""
    assert main(["run", str(folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: repository: {folder}")
    return line


def test_a_folder_without_models_is_named(tmp_path, capsys):
    assert "does not exist" in refusal(tmp_path / "absent", capsys)
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refusal(tmp_path / "file", capsys)
    (tmp_path / "empty").mkdir()
    assert "holds no models" in refusal(tmp_path / "empty", capsys)


def test_models_of_others_alone_are_named(folder, capsys):
    (folder / "faceclip" / "config.pbtxt").write_text('name: "resnet"')
    assert "no FaceCLIP model, only faceclip" in refusal(folder, capsys)


@pytest.mark.parametrize("stray", ["lost+found", ".cache"])
def test_a_stray_folder_is_named(folder, stray, capsys):
    (folder / stray).mkdir()
    assert f"holds '{stray}', which is no model" in refusal(folder, capsys)


def test_a_port_that_is_taken_is_one_sentence_with_the_cure(folder, capsys):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert main(["run", str(folder), f"--health-port={port}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: health port {port} on 127.0.0.1: ") and line.endswith("--health-port")


def test_the_wheels_backend_is_linked_for_each_server_so_it_is_never_old_nor_half_written(tmp_path):
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        found.append(installation.find(tmp_path / name))
    for each in found:
        files = {path.name: path for path in (each.backends / "python").iterdir()}
        assert {"libtriton_python.so", "triton_python_backend_utils.py", "triton_python_backend_stub"} == files.keys()
        assert all(path.is_symlink() and path.exists() for path in files.values())


AT = r"\n\nAt:\n  /x/model.py(18): initialize\n"
LOG = f"""
E1126 01:01:22.123420 2299 server.cc:241] "CudaDriverHelper has not been initialized."
I1126 01:01:22.200000 2299 server.cc:241] "something"
E1126 01:01:26.022350 2299 backend_model.cc:692] "ERROR: Failed to create instance: RuntimeError: finish: expected A{AT}"
E1126 01:01:26.022487 2299 model_lifecycle.cc:642] "failed to load 'finish' version 1: Internal: expected A, got B; assemble{AT}"
I1126 01:01:44.884899 2299 server.cc:345] "Timeout 18: Found 0 live models and 0 in-flight non-inference requests"
error: creating server: Internal - failed to load all models
"""


def test_of_a_log_the_first_decisive_error_is_kept_without_its_traceback():
    assert Log(LOG.splitlines()).reason() == "\n  failed to load 'finish' version 1: Internal: expected A, got B; assemble"


def test_a_log_without_errors_gives_its_last_lines():
    assert Log(f"line {i}" for i in range(100)).reason().splitlines()[-1] == "  line 99"
    assert Log().reason() == ""


def test_health_says_no_in_one_line(capsys):
    assert main(["health", "--url", "localhost:1"]) == 1
    assert capsys.readouterr().err.startswith("error: localhost:1: ready: no answer")


def test_errors_of_a_folder_are_errors_that_a_user_can_mend(tmp_path):
    with pytest.raises(UserError):
        interfaces(tmp_path)
