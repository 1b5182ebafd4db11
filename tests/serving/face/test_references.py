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
