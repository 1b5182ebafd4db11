"""Are mouth and eyes of a drawn portrait well formed, like a render's? By pixels: a detector's points lie well on a smeared mouth too.

A part is a window of the picture with its mean taken off, so that skin and light hardly count. It is compared with that part of
thousands of renders, mirrored as well, in the space of their principal components; what lies outside of that space counts too. Where
the part lies is not asked of a detector, which is wrong by a mouth's height for one render in twelve: every place is tried in which
`nano` draws one, and the nearest counts. A part is well formed where nineteen of twenty renders of other people are as far or
further in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ..measure.pictures import Picture

SIDE = 128
"""Of the pictures, pixels."""
RENDERS = 3000
"""People whose parts others are compared with."""
_OTHERS = 200
"""People that tell the bounds."""
_WITHIN = 0.95
_COMPONENTS = 64
_FAINT = 2.0
"""Contrast, in steps of CIELAB, below which a part tells little: two faint ones are alike."""
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Place:
    """Where the middle of a part is sought, and how large it is; pixels."""

    x: tuple[int, int]
    y: tuple[int, int]
    width: int
    height: int

    def windows(self, lab: Floats) -> Floats:
        """Of a picture in CIELAB: [places, width * height * 3], each channel's mean 0."""
        rows = slice(self.y[0] - self.height // 2, self.y[1] + self.height // 2)
        columns = slice(self.x[0] - self.width // 2, self.x[1] + self.width // 2)
        size = (self.height, self.width, 3)
        return centred(
            np.lib.stride_tricks.sliding_window_view(lab[rows, columns], size).reshape(-1, self.height * self.width, 3)
        )

    def window(self, lab: Floats, middle: NDArray[np.float64]) -> Floats:
        """The one around a point (x, y): [width * height * 3]."""
        cut = cv2.getRectSubPix(lab, (self.width, self.height), (float(middle[0]), float(middle[1])))
        row: Floats = centred(np.asarray(cut, np.float32).reshape(1, -1, 3))[0]
        return row


MOUTH = Place((54, 74), (72, 98), 24, 12)
LEFT_EYE = Place((44, 60), (56, 70), 18, 14)
"""As seen in the picture; the right one is sought in the mirrored picture."""


def centred(windows: Floats) -> Floats:
    """[n, pixels, 3] -> [n, pixels * 3], each channel's mean 0."""
    flat: Floats = (windows - windows.mean(1, keepdims=True)).reshape(len(windows), -1)
    return flat


def lab_of(picture: Picture) -> Floats:
    """Pictures of another size are brought to `SIDE`."""
    small = picture if picture.shape[0] == SIDE else cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


@dataclass(frozen=True)
class Part:
    """What a part looks like."""

    place: Place
    axes: Floats
    """Principal components, [width * height * 3, components]."""
    known: Floats
    """Of renders, by these: [n, components]."""
    bound: float = np.inf

    def distance(self, lab: Floats) -> float:
        """From the nearest render's, at the best place: squared, against the contrast of both; 0: the same, 1: as different as others."""
        seen = self.place.windows(lab)
        own, known = np.square(seen).sum(1)[:, None], np.square(self.known).sum(1)
        apart = own + known - 2 * (seen @ self.axes) @ self.known.T
        return float((apart / (own + known + 2 * _FAINT**2 * seen.shape[1])).min())

    def holds(self, lab: Floats) -> bool:
        return self.distance(lab) <= self.bound


def _fit(place: Place, known: Sequence[Floats], others: Sequence[Floats]) -> Part:
    """`known`: windows of renders; `others`: pictures of other people, which tell the bound."""
    rows = np.stack(known)
    _, axes = np.linalg.eigh(rows.T @ rows)
    axes = np.ascontiguousarray(axes[:, -_COMPONENTS:])
    part = Part(place, axes, rows @ axes)
    return replace(part, bound=float(np.quantile([part.distance(lab) for lab in others], _WITHIN)))


@dataclass(frozen=True)
class Parts:
    """Of well-formed faces."""

    mouth: Part
    eye: Part

    def hold(self, picture: Picture) -> tuple[bool, bool]:
        """Whether the mouth is well formed, and whether both eyes are."""
        lab = lab_of(picture)
        return self.mouth.holds(lab), self.eye.holds(lab) and self.eye.holds(mirrored(lab))

    def shares(self, pictures: Sequence[Picture] | NDArray[np.uint8]) -> dict[str, float]:
        """Of pictures."""
        mouths, eyes = np.mean([self.hold(picture) for picture in pictures], axis=0)
        return {"mouths_well_formed": round(float(mouths), 4), "eyes_well_formed": round(float(eyes), 4)}


def mirrored(lab: Floats) -> Floats:
    return np.ascontiguousarray(lab[:, ::-1])


def rendered_parts(renders: int = RENDERS) -> Parts:
    """Of people that no training saw, with every expression, in every light, without a hat."""
    drawn = _drawn("parts", renders)
    mouths, eyes = [], []
    for lab, points in drawn:
        for seen, marks in ((lab, points), (mirrored(lab), points[[1, 0, 2, 4, 3]] * [-1, 1] + [SIDE - 1, 0])):
            mouths.append(MOUTH.window(seen, marks[3:].mean(0)))
            eyes.append(LEFT_EYE.window(seen, marks[0]))
    others = [lab for lab, _ in _drawn("other parts", min(_OTHERS, renders), first=renders)]
    return Parts(_fit(MOUTH, mouths, others), _fit(LEFT_EYE, eyes, [*others, *map(mirrored, others)]))


def _drawn(key: str, count: int, first: int = 0) -> Iterator[tuple[Floats, NDArray[np.float64]]]:
    """Renders in CIELAB, and their landmarks."""
    from training.pictures.dataset import SPLITS
    from training.world.people import EXPRESSIONS, sample_identity, sample_scene
    from training.world.render import render

    for i in range(first, first + count):
        scene = replace(sample_scene(key, i, pose=0.3), hat="none", expression=EXPRESSIONS[i % len(EXPRESSIONS)])
        shot = render(sample_identity(SPLITS["validation"] + i), scene, SIDE, supersampling=2)
        yield lab_of(shot.image), shot.landmarks.astype(np.float64)
