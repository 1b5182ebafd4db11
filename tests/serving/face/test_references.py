import numpy as np
import pytest

from faceclip_serving.face.references import face_weights, odd_ones_out


def faces(*groups, branches=2, width=64):
    """Identity vectors: one base vector per group number, with a little noise."""
    rng = np.random.default_rng(0)
    bases = rng.standard_normal((8, branches, width))
    vectors = np.stack([bases[group] + 0.3 * rng.standard_normal((branches, width)) for group in groups])
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize(
    ("groups", "odd"), [((0, 0, 0), []), ((0, 0, 1), [2]), ((0, 1), [0, 1]), ((0,), []), ((0, 1, 0, 0), [1])]
)
def test_the_odd_one_out_is_named(groups, odd):
    warnings = odd_ones_out(faces(*groups))
    assert [int(warning[len("face_images[")]) for warning in warnings] == odd


def test_weights_sum_to_one_and_quality_prefers_the_clear_frontal_photograph():
    reports = [{"score": 0.9, "frontality": 0.9}, {"score": 0.9, "frontality": 0.3}, {"score": None, "frontality": None}]
    assert face_weights(reports, "equal") == pytest.approx([1 / 3] * 3)
    weights = face_weights(reports, "quality")
    assert sum(weights) == pytest.approx(1)
    assert weights[2] > weights[0] > weights[1]
    assert face_weights([], "equal") == []


def test_a_quality_that_is_unknown_counts_as_a_good_one_and_none_counts_nothing():
    known = [{"score": 1.0, "frontality": 0.5}, {"score": 0.5, "frontality": 1.0}, {"score": 0.0, "frontality": 0.9}]
    unknown = [{"frontality": 0.5}, {"score": 0.5, "frontality": None}, {"score": 0.0, "frontality": 0.9}]
    assert face_weights(known, "quality") == face_weights(unknown, "quality")
    assert face_weights(known, "quality") == pytest.approx([0.5 / 1.05, 0.5 / 1.05, 0.05 / 1.05])


def test_the_warning_says_the_mean_likeness_and_the_limit_and_begins_below_it():
    def unit(cosine):
        return [[cosine, (1 - cosine**2) ** 0.5]]

    (warning,) = odd_ones_out(np.array([unit(1.0), unit(1.0), unit(0.125)]))
    assert warning.startswith("face_images[2]: its mean likeness to the other references is 0.12; below 0.25 it")
    assert odd_ones_out(np.array([unit(1.0), unit(0.25)])) == []
