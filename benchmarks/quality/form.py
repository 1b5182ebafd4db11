"""Is a drawn face well formed? As far from the renderer's faces as these are from each other, or further: by the server's detector.

Of the aligned face are read: the detector's score, where its points lie off the template, and how much eyes, nose and mouth differ from
their mirror image. Over renders these have a mean and a covariance; a face's distance is that of Mahalanobis, squared. A face is well
formed where nineteen of twenty renders that did not fit the mean are as far or further in.

This tells many pictures from many others. Of one picture it tells little: a mouth can be smeared while its corners lie well, and an
eye that is painted over hardly counts where the detector goes on to see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from faceclip_serving.contract.variants.architectures import FACE_SIZE
from faceclip_serving.face.alignment import TEMPLATE, apply, fit_similarity, resample
from faceclip_serving.face.detectors import Detector, Face, YuNet
from faceclip_serving.face.search import find_faces

from ..measure.pictures import Picture

RENDERS = 160
"""Half of them tell what faces are like, the other half how far they lie apart."""
_WITHIN = 0.95
_CELLS = 56
"""Side of the aligned face where it is compared with its mirror image: as many details as a picture of 128 pixels has."""
_PARTS = {"eyes": np.s_[20:32, 8:28], "nose": np.s_[32:42, 18:28], "mouth": np.s_[42:54, 14:28]}
"""Rows and columns of the left half; the middle lies between 27 and 28."""
_TENTH = 10.0
"""Brings pixels and steps of CIELAB to about 1, for the inverse of the covariance."""
Floats = NDArray[np.float64]


def features(picture: Picture, face: Face) -> Floats:
    """Of a face found in a picture: [4 + 10]."""
    to_crop = fit_similarity(face.landmarks, TEMPLATE)
    crop = resample(picture, to_crop, FACE_SIZE, FACE_SIZE, cv2.BORDER_REPLICATE)
    lab = cv2.cvtColor(cv2.resize(crop, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB).astype(np.float64)
    unlike = np.abs(lab - lab[:, ::-1]).mean(2)
    off = apply(to_crop, face.landmarks) - TEMPLATE
    return np.array([_TENTH * face.score, *(unlike[part].mean() / _TENTH for part in _PARTS.values()), *(off.ravel() / _TENTH)])


@dataclass(frozen=True)
class Form:
    """What well-formed faces are like."""

    mean: Floats
    inverse: Floats
    """Of the covariance; where that is flat, since a similarity took four degrees of freedom, 0."""
    bound: float

    def distance(self, found: Floats) -> float:
        off = found - self.mean
        return float(off @ self.inverse @ off)

    def holds(self, picture: Picture, face: Face) -> bool:
        return self.distance(features(picture, face)) <= self.bound


def fit_form(pictures: Sequence[Picture], detect: Detector) -> Form:
    """Of pictures of well-formed faces; those in which none is found do not count."""
    faces = [(picture, found[0]) for picture in pictures if (found := find_faces(picture, detect))]
    rows = np.stack([features(picture, face) for picture, face in faces])
    first, second = rows[::2], rows[1::2]
    inverse = np.linalg.pinv(np.cov(first.T), rcond=1e-4, hermitian=True)
    form = Form(first.mean(0), np.asarray(inverse, np.float64), 0.0)
    return replace(form, bound=float(np.quantile([form.distance(row) for row in second], _WITHIN)))


def rendered_form(renders: int = RENDERS) -> Form:
    """Of people that no training saw, without a hat, calm or smiling, by day."""
    from training.pictures.dataset import SPLITS
    from training.world.people import sample_identity, sample_scene
    from training.world.render import render

    pictures = []
    for i in range(renders):
        scene = replace(sample_scene("form", i), hat="none", time="day", light="soft", expression=("neutral", "smiling")[i % 2])
        large = render(sample_identity(SPLITS["validation"] + i), scene, 256).image
        pictures.append(np.asarray(cv2.resize(large, (128, 128), interpolation=cv2.INTER_AREA), np.uint8))
    return fit_form(pictures, YuNet())
