"""The geometry of the aligned crop, against closed forms."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from faceclip_serving.face.alignment import (
    TEMPLATE,
    align_face,
    apply,
    fit_similarity,
    invert,
    resample,
    scale_of,
    share_outside,
)

RIGHT = np.array([224.0, 0.0])


def similarity(degrees: float, scale: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    c, s = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return np.array([[c, -s, x], [s, c, y]])


def smooth_picture(height: int, width: int) -> np.ndarray:
    """Waves far longer than a pixel, so that every good way of resampling agrees."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 17 + 1), np.cos(y / 23), np.sin((x + y) / 31)]
    return np.rint(127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def test_the_template_is_arcface_times_four():
    assert TEMPLATE.shape == (5, 2)
    assert TEMPLATE[0].tolist() == pytest.approx([153.1784, 206.7852]) and TEMPLATE[4].tolist() == pytest.approx(
        [282.9196, 368.8164]
    )


@pytest.mark.parametrize("points", [2, 5])
@pytest.mark.parametrize("degrees", [-170, -33, 0, 20, 90])
@pytest.mark.parametrize("scale", [0.05, 1, 7.5])
def test_a_known_similarity_is_recovered_exactly(points, degrees, scale):
    known = similarity(degrees, scale, -300, 41.5)
    fitted = fit_similarity(TEMPLATE[:points], apply(known, TEMPLATE[:points]))
    assert fitted == pytest.approx(known, abs=1e-9) and scale_of(fitted) == pytest.approx(scale)
    assert apply(invert(fitted), apply(known, TEMPLATE)) == pytest.approx(TEMPLATE)


def test_no_other_similarity_is_nearer_to_noisy_points():
    rng = np.random.default_rng(3)
    source = apply(similarity(12, 0.4, 90, 30), TEMPLATE) + rng.normal(0, 6, (5, 2))
    best = fit_similarity(source, TEMPLATE)

    def error(matrix: np.ndarray) -> float:
        return float(((apply(matrix, source) - TEMPLATE) ** 2).sum())

    for _ in range(200):
        other = similarity(rng.normal(0, 1), 1 + rng.normal(0, 0.01), *rng.normal(0, 2, 2))
        changed = np.column_stack([other[:, :2] @ best[:, :2], apply(other, best[None, :, 2])[0]])
        assert error(changed) > error(best)


def test_a_mirrored_face_is_not_mirrored_back():
    fitted = fit_similarity(TEMPLATE * [-1, 1], TEMPLATE)
    assert np.linalg.det(fitted[:, :2]) > 0


@pytest.mark.parametrize("points", [np.full((5, 2), 7.0), np.full((5, 2), np.nan), TEMPLATE[:1], TEMPLATE[:3]])
def test_points_that_fix_nothing_are_refused(points):
    with pytest.raises(ValueError, match="landmarks: expected"):
        fit_similarity(points, TEMPLATE[: max(len(points), 1)] if len(points) != 3 else TEMPLATE)


def test_an_aligned_picture_stays_as_it_is():
    picture = np.random.default_rng(4).integers(0, 256, (448, 448, 3), np.uint8)
    crop = align_face(picture, TEMPLATE)
    assert crop.shape == (3, 448, 448) and crop.dtype == np.float32
    assert np.array_equal(np.rint(crop * 255), picture.transpose(2, 0, 1))


@pytest.mark.parametrize("scale", [0.2, 0.7, 1.5, 2.6])
@pytest.mark.parametrize("degrees", [0, -25, 90])
def test_turned_and_scaled_faces_come_back_pixel_for_pixel(scale, degrees):
    """The photograph is computed, not resampled: each of its pixels is the picture's value at the point that it shows."""
    picture = smooth_picture(448, 448)
    side = math.ceil(448 * scale * 1.5)
    to_photo = similarity(degrees, scale)
    to_photo[:, 2] = side / 2 - apply(to_photo, np.array([[224.0, 224.0]]))[0]
    y, x = np.mgrid[:side, :side]
    seen = apply(invert(to_photo), np.stack([x, y], axis=-1).reshape(-1, 2).astype(float)).reshape(side, side, 2)
    waves = [np.sin(seen[..., 0] / 17 + 1), np.cos(seen[..., 1] / 23), np.sin(seen.sum(axis=-1) / 31)]
    photo = np.rint(127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)
    crop = align_face(photo, apply(to_photo, TEMPLATE))
    error = np.abs(crop * 255 - picture.transpose(2, 0, 1))
    assert error.max() < 5 and error.mean() < 1


def test_fine_patterns_of_a_large_face_become_grey_not_moire():
    side = 448 * 5
    checks = (np.indices((side, side)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    for turn in (0.0, 3.0):
        middle = resample(checks, similarity(turn, 1 / 4.7, 20, 10), 400, 400)[80:320, 80:320].astype(int)
        assert abs(middle.mean() - 127.5) < 1 and np.abs(middle - 127.5).max() < 24
    naive = cv2.warpAffine(checks, similarity(3.0, 1 / 4.7, 20, 10), (400, 400))[80:320, 80:320].astype(int)
    assert np.abs(naive - 127.5).max() > 100


def test_outside_of_the_photograph_is_black_and_counted():
    white = np.full((448, 448, 3), 255, np.uint8)
    half = align_face(white, TEMPLATE + RIGHT)
    assert half[:, :, :220].min() == 1 and half[:, :, 228:].max() == 0
    assert share_outside(fit_similarity(TEMPLATE + RIGHT, TEMPLATE), 448, 448) == pytest.approx(0.5)
    assert share_outside(fit_similarity(TEMPLATE, TEMPLATE), 448, 448) == 0
    assert share_outside(fit_similarity(TEMPLATE + 5000, TEMPLATE), 448, 448) == 1
    assert align_face(white, TEMPLATE + 5000).max() == 0


@pytest.mark.parametrize("shape", [(1, 1), (2, 900), (900, 2), (7, 5)])
def test_the_smallest_pictures_are_resampled_too(shape):
    picture = np.full((*shape, 3), 200, np.uint8)
    middle = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    for scale in (0.02, 0.5, 1, 30):
        matrix = similarity(0, scale)
        matrix[:, 2] = np.array([10, 10]) - scale * np.array(middle)
        view = resample(picture, matrix, 21, 21, cv2.BORDER_REPLICATE)
        assert view.shape == (21, 21, 3) and (view == 200).all()
