"""How far a face is from those that were learnt, without an encoder: what counts, what is told, what is read."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.names import STATISTICS_FILE
from faceclip_serving.contract.tensors import DType, Tensor
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.face.familiarity import FEATURE, FaceStatistics, read_statistics

PATCHES, WIDTH, BOUND = 9, 6, 1.5
FEATURES = (Tensor(FEATURE, DType.FP32, ("faces", PATCHES, WIDTH), "face patches"),)
VARIANT = replace(TINY_SDXL, face_features=FEATURES)
SPREAD = np.geomspace(0.1, 10, WIDTH).astype(np.float32)
"""Standard deviation of each direction among learnt faces."""


@pytest.fixture(scope="module")
def usual():
    return np.random.default_rng(0).normal(0, 1, (PATCHES, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def learnt(usual):
    """Of faces whose patches vary independently of each other."""
    factors = np.diag(1 / SPREAD) / np.sqrt(WIDTH)
    return FaceStatistics(usual, *(np.asarray(f, np.float32) for f in (factors, factors * np.sqrt(PATCHES))), BOUND)


def faces(usual, count, scale=1.0):
    return (usual + scale * SPREAD * np.random.default_rng(1).normal(0, 1, (count, PATCHES, WIDTH))).astype(np.float32)


def test_a_learnt_face_is_about_one_away_and_twice_as_varied_a_one_twice_as_far(learnt, usual):
    near, far = (learnt.distances(faces(usual, 500, scale)) for scale in (1.0, 2.0))
    assert near.shape == (500,) and 0.9 < np.median(near) < 1.4
    np.testing.assert_allclose(far, 2 * near, rtol=1e-4)
    assert learnt.distances(usual[None]) == [0.0]


def test_what_learnt_faces_hardly_ever_do_counts_most_and_one_patch_alone_is_seen(learnt, usual):
    face = faces(usual, 1)
    rare, frequent, one = face.copy(), face.copy(), face.copy()
    rare[..., 0] += 3
    frequent[..., -1] += 3
    one[:, 4] += 5 * SPREAD
    was = learnt.distances(face)
    assert learnt.distances(rare) > 4 * was and abs(learnt.distances(frequent) - was) < 0.3 * was
    assert learnt.distances(one) > 1.3 * was


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
def test_every_family_has_the_feature_with_or_without_branches(variant):
    (tensor,) = [each for each in variant.face_features if each.name == FEATURE]
    *_, patches, width = tensor.axes
    statistics = FaceStatistics(*(np.ones(s, np.float32) for s in ((patches, width), (width, width), (width, width))), BOUND)
    assert statistics.distances(np.ones(tensor.shape({"faces": 3}), np.float32)).shape == (3,)


def test_of_several_branches_the_one_that_is_farthest_counts(learnt, usual):
    near, far = faces(usual, 4), faces(usual, 4, 3.0)
    both = np.stack([near, far], 1)
    np.testing.assert_array_equal(learnt.distances(both), learnt.distances(far))
    np.testing.assert_array_equal(learnt.distances(both[:, ::-1]), learnt.distances(far))


def test_faces_beyond_the_bound_are_named_and_told_how_far_they_are(learnt, usual):
    sent = np.concatenate([usual[None], faces(usual, 1, 4.0), usual[None], faces(usual, 1, 9.0)])
    names = ["face_images[0]", "face_images[1]", "identity[0]", "identity[1]"]
    first, second = learnt.warnings(sent, names)
    assert first.startswith("face_images[1]: ") and second.startswith("identity[1]: ")
    for warning, distance in zip((first, second), learnt.distances(sent)[[1, 3]], strict=True):
        assert f"{distance:.1f} from them" in warning and "farther than 1.5;" in warning and "not a likeness" in warning
    at_bound = FaceStatistics(learnt.mean, learnt.factors, learnt.factors_of_mean, float(learnt.distances(sent)[1]))
    assert len(at_bound.warnings(sent[:2], names[:2])) == 0


def test_a_file_is_read_as_it_was_written_and_none_is_none(learnt, tmp_path):
    assert read_statistics(tmp_path, VARIANT) is None
    tensors = {"mean": learnt.mean, "factors": learnt.factors, "factors_of_mean": learnt.factors_of_mean}
    save_file(
        {**{n: t.astype(np.float16) for n, t in tensors.items()}, "bound": np.float16([BOUND])}, tmp_path / STATISTICS_FILE
    )
    found = read_statistics(tmp_path, VARIANT)
    assert found.bound == BOUND and {t.dtype for t in (found.mean, found.factors, found.factors_of_mean)} == {
        np.dtype("float32")
    }
    np.testing.assert_allclose(found.distances(learnt.mean[None] + 1), learnt.distances(learnt.mean[None] + 1), rtol=1e-2)


@pytest.mark.parametrize("name", ["mean", "factors", "factors_of_mean", "bound"])
@pytest.mark.parametrize("wrong", ["of other faces", "not a number"])
def test_a_file_of_another_models_faces_is_refused_when_it_is_read_not_when_a_face_comes(learnt, tmp_path, name, wrong):
    tensors = {"mean": learnt.mean, "factors": learnt.factors, "factors_of_mean": learnt.factors_of_mean, "bound": np.ones(1)}
    tensors[name] = np.full_like(tensors[name], np.nan) if wrong == "not a number" else np.ones((2, 3))
    save_file(tensors, tmp_path / STATISTICS_FILE)
    with pytest.raises(UserError, match=STATISTICS_FILE):
        read_statistics(tmp_path, VARIANT)


@pytest.mark.parametrize("wrong", [None, "mean", "more"])
def test_a_file_that_holds_something_else_is_refused_by_its_name(learnt, tmp_path, wrong):
    tensors = {"mean": learnt.mean, "factors": learnt.factors, "factors_of_mean": learnt.factors_of_mean, "bound": np.ones(1)}
    if wrong is None:
        (tmp_path / STATISTICS_FILE).write_text("no tensors")
    else:
        {"mean": tensors.pop, "more": lambda name: tensors.update({name: np.ones(1)})}[wrong](wrong)
        save_file(tensors, tmp_path / STATISTICS_FILE)
    with pytest.raises(UserError, match=rf"{STATISTICS_FILE}: expected mean, factors, factors_of_mean and bound"):
        read_statistics(tmp_path, VARIANT)
