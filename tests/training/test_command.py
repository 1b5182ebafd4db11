"""The command line: quick to explain itself, and one line for what a user can mend."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.__main__ import main
from training.recipe import PEERS, STAGES
from training.run import stages
from training.run.stages import _MAKERS
from training.run.work import Work

STARTS = {
    "decoder": "vae",
    "align": "face",
    "natural": "face",
    "unet": "face",
    "base": "face",
    "text_only": "face",
    "adapter": "text_only",
}
"""Stage -> the first of those that it is built on, in the words of the error."""


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """One person, two pictures."""
    person = tmp_path / "photographs" / "someone"
    person.mkdir(parents=True)
    for k in range(2):
        cv2.imwrite(str(person / f"{k}.png"), np.full((64, 64, 3), 90 * k, np.uint8))
        (person / f"{k}.txt").write_text("A woman on a beach.")
    return person.parent


def test_help_needs_no_torch_and_has_an_example_of_every_kind() -> None:
    script = "import sys; from training.__main__ import main\ntry: main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(f"\n  {name} " in done.stdout for name in STAGES)
    for part in ("training all --work", "--seconds", "training weights --work", "--photographs"):
        assert part in done.stdout.split("examples:")[1]


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [("--seconds", "nan", "number of seconds"), ("--seconds", "0", "number of seconds"), ("--share", "inf", "number")],
)
def test_a_number_that_is_none_is_refused(option: str, value: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["all", "--work", "work", option, value])
    assert capsys.readouterr().err.endswith(f"{option}: expected a finite {expected} above 0, got '{value}'\n")


def test_every_stage_of_the_recipe_can_be_made() -> None:
    assert list(_MAKERS) == list(STAGES)


@pytest.mark.parametrize(("stage", "missing"), STARTS.items())
def test_a_missing_stage_is_one_line(stage: str, missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([stage, "--work", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith(f"error: stage '{missing}': expected ")
    assert f"python -m training {missing} --work" in error


@pytest.mark.parametrize("stage", ["face", "recogniser"])
def test_too_few_people_are_one_line(stage: str, tmp_path: Path, photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([stage, "--work", str(tmp_path / "work"), "--photographs", str(photographs)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"error: stage '{stage}': expected at least " in error and "got 1" in error


@pytest.mark.parametrize("folder", ["nothing", "photographs/someone"])
def test_a_wrong_folder_of_photographs_is_one_line(
    folder: str, tmp_path: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["face", "--work", str(tmp_path / "work"), "--photographs", str(tmp_path / folder)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and folder in error and "<person>/<picture>" in error


def test_a_file_in_place_of_the_folder_of_training_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["vae", "--work", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_options_may_stand_before_the_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--work", str(tmp_path), "weights"]) == 1
    assert "python -m training vae --work" in capsys.readouterr().err


@pytest.mark.parametrize("which", ["all", "peers"])
def test_the_peers_are_trained_apart(which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    monkeypatch.setattr(stages, "train", lambda work, stage, left: trained.append(stage))
    assert main([which, "--work", str(tmp_path)]) == 0
    assert trained == [stage for stage in STAGES if (stage in PEERS) == (which == "peers")]


def test_the_seconds_are_those_of_all_stages_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def train(work: Work, stage: str, left: float) -> None:
        given.append(left)
        time.sleep(0.15)

    monkeypatch.setattr(stages, "train", train)
    assert main(["all", "--work", str(tmp_path), "--seconds", "0.2"]) == 0
    assert len(given) == 2 and 0 < given[1] < given[0] - 0.1
