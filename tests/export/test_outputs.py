"""Nothing is replaced or deleted that was not made here."""

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import benchmarks.__main__ as benchmarks
import export.__main__ as export
import server.__main__ as server
import training.__main__ as training
from export.checkpoint.tensor_files import write_tensors
from export.engine.build import require_own_plan
from export.engine.errors import EngineError
from export.onnx.record import METADATA
from export.outputs import OutputError, appearing, filling, replacing
from export.paths import ROOT
from export.repository.deployments import RECORD, DeploymentError, install
from faceclip_serving.contract.placements import PLAN_FILE
from training import contact_sheet
from training.run.weights import _require_same
from training.run.work import claim


def foreign(folder):
    for name in ("thesis/chapter.tex", "resnet/1/model.onnx"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("mine")
    return folder


def content(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def models(folder, *names):
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(name)
    return folder


def test_a_foreign_folder_is_refused_by_the_command_and_keeps_its_content(tmp_path, capsys):
    before = content(foreign(tmp_path))
    assert export.main(["repository", "--variant", "tiny-sdxl", "--output", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: output: expected ") and "resnet, thesis" in told and "choose another folder" in told
    assert content(tmp_path) == before


def test_a_foreign_model_in_a_repository_of_ours_is_kept(tmp_path):
    repository = tmp_path / "repository"
    install(models(tmp_path / "a", "faceclip"), repository, "faceclip", "one")
    models(repository, "sampler")
    before = content(repository)
    with pytest.raises(DeploymentError, match=r"needs models \['sampler'\].*not made here"):
        install(models(tmp_path / "b", "faceclip", "sampler"), repository, "faceclip", "two")
    assert content(repository) == before
    shutil.rmtree(repository / "sampler")
    install(tmp_path / "b", repository, "faceclip", "two")
    assert set(content(repository)) == {RECORD, "faceclip/config.pbtxt", "sampler/config.pbtxt"}


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        install(models(tmp_path / "a", "faceclip"), tmp_path / "file", "faceclip", "one")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_exported_component_replaces_only_one_that_was_exported(tmp_path):
    before = content(foreign(tmp_path / "denoiser"))
    with pytest.raises(OutputError, match=METADATA), appearing(tmp_path / "denoiser", METADATA):
        pytest.fail("work was begun")
    assert content(tmp_path / "denoiser") == before
    for version in ("one", "two"):
        with appearing(tmp_path / "face_encoder", METADATA) as partial:
            (partial / METADATA).write_text(version)
    assert content(tmp_path / "face_encoder") == {METADATA: "two"}


def test_an_interrupted_export_leaves_the_old_component_whole(tmp_path):
    destination = tmp_path / "denoiser"
    for fault in (KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")):
        models(tmp_path / "denoiser").mkdir(exist_ok=True)
        (destination / METADATA).write_text("old")
        with pytest.raises((KeyboardInterrupt, OutputError)), appearing(destination, METADATA) as partial:
            (partial / METADATA).write_text("half")
            raise fault
        assert content(tmp_path) == {f"denoiser/{METADATA}": "old"}
        assert [path.name for path in tmp_path.iterdir()] == ["denoiser"]


def test_an_interrupted_install_leaves_the_old_deployment_whole(tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    install(models(tmp_path / "a", "faceclip", "sampler"), repository, "faceclip", "one")
    before = content(repository)
    move, moved = Path.replace, []

    def interrupted(path, target):
        if path.parent == tmp_path / "b" and len(moved) == 1:
            moved.append(path)
            raise KeyboardInterrupt
        moved.extend([path] if path.parent == tmp_path / "b" else [])
        return move(path, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        install(models(tmp_path / "b", "faceclip", "sampler", "tiles"), repository, "faceclip", "two")
    assert content(repository) == before and len(moved) == 2


def test_a_named_file_is_replaced_by_a_whole_one_or_not_at_all(tmp_path):
    file = tmp_path / "picture.png"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(file) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert content(tmp_path) == {"picture.png": "old"}
    with replacing(file) as partial:
        partial.write_text("new")
    assert content(tmp_path) == {"picture.png": "new"}
    with pytest.raises(OutputError, match="is a folder; choose another name"), replacing(tmp_path):
        pytest.fail("work was begun")


def test_a_report_joins_only_a_folder_of_reports_and_keeps_what_else_lies_there(tmp_path):
    theirs = foreign(tmp_path / "theirs")
    before = content(theirs)
    assert benchmarks.main(["quality", "--output", str(theirs)]) == 1
    assert content(theirs) == before
    for version in ("one", "two"):
        with filling(tmp_path / "ours", "quality.json") as folder:
            (folder / "quality.json").write_text(version)
        (tmp_path / "ours" / "notes.txt").write_text("mine")
    assert content(tmp_path / "ours") == {"notes.txt": "mine", "quality.json": "two"}


def test_outputs_that_cannot_be_are_told_before_the_work(tmp_path, capsys):
    """Of every command with an output of its own: a file in the place of a folder, or a folder in the place of a file."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "latency.svg").mkdir()
    inside = str(tmp_path / "file" / "inside")
    for main, arguments in (
        (export.main, ["download", "--accept-license", "--to", inside]),
        (export.main, ["repository", "--output", inside]),
        (benchmarks.main, ["quality", "--output", inside]),
        (benchmarks.main, ["latency", "--chart", inside]),
        (benchmarks.main, ["latency", "--chart", str(tmp_path / "latency")]),
        (training.main, ["face", "--work", inside]),
        (training.main, ["weights", "--work", str(tmp_path), "--output", inside]),
        (contact_sheet.main, ["--output", inside]),
        (contact_sheet.main, ["--output", str(tmp_path)]),
    ):
        assert main(arguments) == 1, arguments
        told = capsys.readouterr().err
        assert told.startswith("error: output: ") and "choose another" in told and told.count("\n") == 1, arguments
    assert (tmp_path / "file").read_text() == "mine"


def test_training_takes_only_folders_of_training(tmp_path, capsys):
    theirs = foreign(tmp_path / "theirs")
    before = content(theirs)
    assert training.main(["face", "--work", str(theirs)]) == 1
    assert "training.json in it" in capsys.readouterr().err and content(theirs) == before
    older = tmp_path / "older" / "checkpoints"
    older.mkdir(parents=True)
    (older / "face.pt").write_bytes(b"from before there were records")
    for folder in (tmp_path / "new", older.parent):
        claim(folder)
        (folder / "log.txt").write_text("mine")
        claim(folder)  # resumed


def test_foreign_weights_are_not_replaced(tmp_path):
    file = tmp_path / "unet.safetensors"
    write_tensors({"somebody.else": torch.zeros(1)}, file)
    with pytest.raises(OutputError, match="found other weights; choose another folder"):
        _require_same(file, {"ours": torch.zeros(1)})
    _require_same(file, {"somebody.else": torch.ones(1)})


def test_a_foreign_plan_is_not_replaced(tmp_path):
    (tmp_path / PLAN_FILE).write_text("by trtexec")
    with pytest.raises(EngineError, match=r"has model\.plan that this command did not make .*; move it away"):
        require_own_plan(tmp_path)
    (tmp_path / METADATA).write_text("a component that was exported here")
    require_own_plan(tmp_path)


def test_a_full_disk_is_one_line_and_the_old_result_stays(tmp_path):
    """In a process of its own, whose files may have so many bytes only."""
    script = (
        "import resource, sys; from pathlib import Path; from export.commandline import exit_code; from export.outputs import replacing\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "def work():\n"
        "    with replacing(Path(sys.argv[1])) as partial:\n"
        "        partial.write_bytes(bytes(5000))\n"
        "sys.exit(exit_code(work))"
    )
    (tmp_path / "model").write_text("old")
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "model")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: output: {tmp_path / 'model'}: File too large; free some space")
    assert content(tmp_path) == {"model": "old"}


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_another_users_folder_is_refused_with_its_name_and_the_cure(tmp_path):
    """Called in a folder that may not be written to, by a user without a home."""
    tmp_path.chmod(0o755)
    script = "import os, sys; from pathlib import Path; from export.commandline import exit_code\n"
    script += "from export.outputs import require_own; os.setuid(65534)\n"
    script += "sys.exit(exit_code(lambda: require_own(Path('build/x'), 'r')))"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert (
        f"expected a folder that may be written to, {tmp_path} may not" in done.stderr and "folder of your own" in done.stderr
    )


@pytest.mark.proof
def test_a_reader_who_has_left_is_told_nothing():
    command = [sys.executable, "-m", "export", "forecast", "--variant", "sdxl", "--json"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 1


@pytest.mark.parametrize("program", [export, benchmarks, training, server])
def test_every_program_tells_its_version(program, capsys):
    with pytest.raises(SystemExit) as ended:
        program.main(["--version"])
    assert ended.value.code == 0 and re.fullmatch(r"faceclip-triton \d+\.\d+\.\d+\n", capsys.readouterr().out)


# ------------------------------------------------------------------------------------------------------ where it is written
@pytest.fixture
def volume(tmp_path):
    """A link to an empty folder of another file system."""
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs another file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=elsewhere) as folder:
        (tmp_path / "volume").symlink_to(folder)
        yield tmp_path / "volume"


@contextmanager
def mounted(folder):
    """`folder` as a mount point of its own, of the same file system, whose name nothing can be moved over."""
    done = subprocess.run(["mount", "--bind", folder, folder], capture_output=True)
    if done.returncode:
        pytest.skip("needs the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def written_twice(destination):
    """As a command does that owns a folder: a component, a report, a deployment."""
    for version in ("one", "two"):
        with appearing(destination / "component", METADATA) as partial:
            (partial / METADATA).write_text(version)
    for way in (appearing, filling):
        folder = destination / way.__name__
        folder.mkdir()
        for version in ("one", "two"):
            with way(folder, "record.json") as partial:
                (partial / "record.json").write_text(version)
                (partial / "data").write_text(version)
            assert content(folder) == {"record.json": version, "data": version}
        assert sorted(path.name for path in folder.iterdir()) == ["data", "record.json"]


def in_place(destination, way):
    """The same, where the empty destination itself is given; then interrupted once."""
    for version in ("one", "two"):
        with way(destination, "record.json") as partial:
            (partial / "record.json").write_text(version)
            (partial / f"data-{version}").mkdir()
            (partial / f"data-{version}" / "file").write_text(version)
    expected = content(destination)
    assert expected["record.json"] == "two" and expected["data-two/file"] == "two"
    assert ("data-one/file" in expected) == (way is filling)
    with pytest.raises(KeyboardInterrupt), way(destination, "record.json") as partial:
        (partial / "record.json").write_text("three")
        raise KeyboardInterrupt
    assert content(destination) == expected and not [path for path in destination.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("way", [appearing, filling])
def test_a_volume_that_is_empty_is_filled_and_the_link_to_it_stays(volume, way):
    in_place(volume, way)
    assert volume.is_symlink() and [path.name for path in volume.parent.iterdir()] == ["volume"]


@pytest.mark.parametrize("way", [appearing, filling])
def test_a_mount_point_is_filled(tmp_path, way):
    (tmp_path / "out").mkdir()
    with mounted(tmp_path / "out"):
        in_place(tmp_path / "out", way)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("way", [appearing, filling])
def test_the_folder_that_a_command_is_called_in_is_filled(tmp_path, way, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    in_place(Path(), way)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_new_folders_and_known_ones_are_filled_beside(tmp_path):
    written_twice(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["appearing", "component", "filling"]


def test_a_repository_is_assembled_in_a_volume(repository, volume, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert export.main(["repository", "--output", str(volume)]) == 0
    assert (volume / RECORD).is_file() and (volume / "sampler" / "1" / "denoiser" / "model.onnx").is_file()
    assert not [path for path in volume.iterdir() if path.name.startswith(".")] and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_an_own_empty_folder_in_anothers_is_filled():
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        os.chmod(parent, 0o755)
        own = Path(parent) / "own"
        own.mkdir()
        os.chown(own, 65534, 65534)
        script = "import os, sys; from pathlib import Path; from export.outputs import appearing; os.setuid(65534)\n"
        script += "with appearing(Path(sys.argv[1]), 'r') as partial:\n    (partial / 'r').write_text('done')\n"
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", script, own], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert content(Path(parent)) == {"own/r": "done"}


def test_a_linked_component_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "denoiser").symlink_to(tmp_path / "disk")
    in_place(tmp_path / "denoiser", appearing)
    assert (tmp_path / "denoiser").is_symlink() and sorted(path.name for path in tmp_path.iterdir()) == ["denoiser", "disk"]


def test_what_a_killed_process_left_in_a_folder_does_not_make_it_foreign(tmp_path):
    (tmp_path / ".123.partial").mkdir()
    (tmp_path / ".123.partial" / "half").write_text("half")
    with appearing(tmp_path, METADATA) as partial:
        (partial / METADATA).write_text("whole")
    assert content(tmp_path)[METADATA] == "whole"


@pytest.mark.parametrize("text", ['{"a": 1}', "[]", "mine", '{"a": {"identity": "b", "models": ["../thesis"]}}'])
def test_another_programs_deployments_are_refused_in_one_line(tmp_path, capsys, text):
    (tmp_path / RECORD).write_text(text)
    assert export.main(["repository", "--output", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: output: ") and "choose another folder" in told and told.count("\n") == 1
    assert content(tmp_path) == {RECORD: text}


def test_a_gpu_below_zero_is_refused_in_one_line(tmp_path, capsys):
    assert export.main(["repository", "--gpu", "-1", "--output", str(tmp_path / "r")]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: gpu: expected 0 or more") and told.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_repository_that_lost_a_file_is_made_whole(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    out, lost = tmp_path / "r", tmp_path / "r" / "sampler" / "1" / "denoiser" / "model.onnx"
    arguments = ["repository", "--output", str(out)]
    assert export.main(arguments) == 0
    before, config = lost.stat().st_size, out / "prepare" / "config.pbtxt"
    config.write_text(config.read_text() + "# mine\n")
    assert export.main(arguments) == 0
    assert config.read_text().endswith("# mine\n"), "a whole one is left alone, and what a person changed in it"
    for spoil in (lost.unlink, lambda: (lost.unlink(), lost.write_bytes(b"half"))):
        spoil()
        assert export.main(arguments) == 0
        assert lost.stat().st_size == before
