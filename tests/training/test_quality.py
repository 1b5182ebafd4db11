"""The columns of the quality table on inputs whose answer is known."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from benchmarks import quality
from benchmarks import quality_metrics as metrics
from training.diffusion import Guidance


def test_identity_scores_separate_own_and_other_people() -> None:
    people = np.eye(3, dtype=np.float32)
    generated = np.array([[2, 0, 0], [0, 3, 0], [0, 1, 1]], np.float32)
    same, other = metrics.identity_scores(generated, people, np.array([0, 1, 2]))
    assert np.allclose(same, [1, 1, 2**-0.5]) and len(other) == 6
    # The third picture is as near to person 1 as to its own, and nearer to both than the others are to anybody else.
    assert metrics.verification_auc(same, other) == pytest.approx((1 + 1 + 5.5 / 6) / 3)


def test_text_accuracy_ignores_what_was_not_asked() -> None:
    found = {"hat": np.array([1, 2, 3]), "time": np.array([0, 0, 0])}
    asked = {"hat": np.array([1, 2, 0]), "time": np.array([-1, -1, 1])}
    shares = metrics.text_accuracy(found, asked)
    assert shares["hat"] == pytest.approx(2 / 3) and shares["time"] == 0.0 and shares["mean"] == pytest.approx(1 / 3)


def test_copying_the_reference_is_counted_only_where_it_differs_from_the_prompt() -> None:
    found, asked, reference = np.array([5, 5, 1, 7]), np.array([1, 5, 1, 1]), np.array([5, 5, 2, 5])
    assert metrics.copy_paste_rate(found, asked, reference) == pytest.approx(1 / 3)
    assert metrics.copy_paste_rate(asked, asked, asked) == 0.0


def test_kernel_distance_tells_distributions_apart() -> None:
    r = np.random.default_rng(0)
    a, b, shifted = (r.normal(size=(300, 16)).astype(np.float32) + shift for shift in (0, 0, 1))
    assert abs(metrics.kernel_distance(a, b)) < 0.05 < metrics.kernel_distance(a, shifted)


def test_psnr_of_known_error() -> None:
    black, grey = np.zeros((1, 4, 4, 3), np.uint8), np.full((1, 4, 4, 3), 51, np.uint8)
    assert metrics.psnr_db(black, grey) == pytest.approx(13.979, abs=1e-3)
    assert metrics.psnr_db(grey, grey) == float("inf")


def test_every_sweep_changes_what_it_names() -> None:
    usual = Guidance()
    for name, values in quality.SWEEPS.items():
        settings = {quality.setting(name, value, usual) for value in values}
        assert len(settings) == (1 if name == "references" else len(values))


def test_the_command_is_registered_and_photographs_need_a_recogniser(tmp_path: object) -> None:
    parser = argparse.ArgumentParser()
    quality.add_command(parser.add_subparsers())
    arguments = parser.parse_args(["quality", "--pictures", str(tmp_path)])
    with pytest.raises(ValueError, match="--recogniser"):
        arguments.run(arguments)
