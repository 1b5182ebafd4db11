"""A repository that is not there, or has no model, is no repository whose plans fit."""

from export.__main__ import main


def test_a_folder_without_a_model_is_refused(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "missing"):
        assert main(["inspect", "--repository", str(folder)]) == 1
        said = capsys.readouterr()
        assert said.out == "" and f"{folder}, without a model" in said.err
