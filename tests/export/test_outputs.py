"""Nothing is replaced or deleted that was not made here."""

import shutil

import pytest

from export.__main__ import main
from export.onnx.record import METADATA
from export.outputs import OutputError, appearing
from export.repository.deployments import RECORD, DeploymentError, install


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
    assert main(["repository", "--variant", "tiny-sdxl", "--output", str(tmp_path)]) == 1
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
