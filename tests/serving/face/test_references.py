import numpy as np
import pytest

from faceclip_serving.face.references import averaged, face_weights, names_of, odd_ones_out


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
    warnings = odd_ones_out(faces(*groups), range(len(groups)))
    assert [int(warning[len("face_images[")]) for warning in warnings] == odd


def test_faces_are_called_as_they_were_sent_photographs_first():
    photograph, sealed = {"photo": {}}, {"identity": {}}
    assert names_of([]) == []
    assert names_of([photograph] * 2) == ["face_images[0]", "face_images[1]"]
    assert names_of([sealed]) == ["identity"]
    assert names_of([photograph, sealed]) == ["face_images[0]", "identity"]
    assert names_of([photograph, sealed, sealed]) == ["face_images[0]", "identity[0]", "identity[1]"]


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

    (warning,) = odd_ones_out(np.array([unit(1.0), unit(1.0), unit(0.125)]), [0, 1, 2])
    assert warning.startswith("face_images[2]: its mean likeness to the other references is 0.12; below 0.25 it")
    assert odd_ones_out(np.array([unit(1.0), unit(0.25)]), [0, 1]) == []


def test_features_of_several_references_are_averaged_by_weight_and_one_is_returned_as_it_is():
    unit = faces(0, 1, 2).astype(np.float32)
    patches = np.random.default_rng(1).standard_normal((3, 2, 5, 7)).astype(np.float32)
    told = {"class_token": unit, "patch_token": patches}
    one = {name: array[:1] for name, array in told.items()}
    assert all(found is one[name] for name, found in averaged(one, "class_token", [1.0]).items())
    weights = [0.5, 0.3, 0.2]
    found = averaged(told, "class_token", weights)
    assert {name: (array.shape, array.dtype) for name, array in found.items()} == {
        name: ((1, *array.shape[1:]), np.float32) for name, array in told.items()
    }
    np.testing.assert_allclose(
        found["patch_token"][0], sum(w * each for w, each in zip(weights, patches, strict=True)), atol=1e-6
    )
    np.testing.assert_allclose(np.linalg.norm(found["class_token"], axis=-1), 1.0, atol=1e-6)
    mean = sum(w * each for w, each in zip(weights, unit, strict=True))
    np.testing.assert_allclose(found["class_token"][0], mean / np.linalg.norm(mean, axis=-1, keepdims=True), atol=1e-6)
    alike = averaged({"class_token": np.repeat(unit[:1], 2, 0)}, "class_token", [0.5, 0.5])
    np.testing.assert_allclose(alike["class_token"], unit[:1], atol=1e-6)
