"""Identity and scene -> picture, with the five landmarks that align its face. Deterministic: equal inputs, equal pixels.

Knows the order in which things are drawn and the framing of a portrait; the shapes are in `places`, `wardrobe` and `face`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from . import places, wardrobe
from .canvas import Canvas, Frame, Image, Points, oval, points
from .face import face, features
from .people import Identity, Scene, generator

HEAD = 0.212
"""Half the width of an average head, as a share of the picture."""


@dataclass(frozen=True)
class Portrait:
    image: Image
    """RGB [size, size, 3], 0-255."""
    landmarks: NDArray[np.float32]
    """[5, 2] pixels (x, y): left eye, right eye, nose, left and right mouth corner, left as seen in the picture."""


@dataclass(frozen=True)
class Standing:
    """Somebody in a picture that is wider than a portrait."""

    identity: Identity
    scene: Scene
    left: float = 0.0
    """Where the portrait of them alone would begin, as a share of the picture's height."""


@dataclass(frozen=True)
class Gathering:
    image: Image
    """RGB [size, across * size, 3], 0-255."""
    landmarks: NDArray[np.float32]
    """[people, 5, 2] pixels (x, y), as in `Portrait`."""


def head_frame(scene: Scene) -> Frame:
    return Frame(0.5 + scene.x, 0.49 + scene.y, HEAD * scene.scale, scene.turn)


def landmarks(identity: Identity, scene: Scene) -> Points:
    """[5, 2], in picture units."""
    return head_frame(scene)(features(identity, scene)[0])


def render(identity: Identity, scene: Scene, size: int = 128, supersampling: int | None = None) -> Portrait:
    """A portrait of `size` x `size` pixels."""
    picture = render_together([Standing(identity, scene)], 1.0, size, supersampling)
    return Portrait(picture.image, picture.landmarks[0])


def render_together(people: Sequence[Standing], across: float, size: int = 128, supersampling: int | None = None) -> Gathering:
    """People side by side, in the place, the hour and the light of the first; `across` times as wide as high, `size` pixels high.

    A place goes on beyond its border as its own reflection.
    """
    canvas = Canvas(size, supersampling or max(2, -(-512 // size)), across)
    common = people[0].scene
    square = Canvas(size, canvas.side // size)
    places.DRAW[common.place](square, common.time, generator("place", common.place, common.detail))
    for k, left in enumerate(range(0, canvas.pixels.shape[1], canvas.side)):
        part = canvas.pixels[:, left : left + canvas.side]
        part[:] = (square.pixels[:, ::-1] if k % 2 else square.pixels)[:, : part.shape[1]]
    for each in people:
        _person(canvas, each)
    _relight(canvas, common)
    marks = np.stack([landmarks(each.identity, each.scene) + points((each.left, 0)) for each in people])
    return Gathering(canvas.picture(), (marks * size).astype(np.float32))


def _person(canvas: Canvas, standing: Standing) -> None:
    identity, scene = standing.identity, standing.scene
    head = head_frame(scene)
    head = replace(head, x=head.x + standing.left)
    upright = Frame(head.x, head.y, head.scale, 0.0)
    drift = 0.35 * float(np.sin(scene.yaw))
    wardrobe.hair_behind(canvas, identity, head)
    wardrobe.body(canvas, identity, scene, upright)
    face(canvas, identity, scene, head)
    wardrobe.hair_in_front(canvas, identity, head, drift)
    if scene.hat != "none":
        canvas.soft(oval(drift, -0.62, 0.9 * identity.face_width, 0.12), (30, 16, 16), 0.12, head, 0.35)
        wardrobe.hat(canvas, identity, scene, head, drift)


def _relight(canvas: Canvas, scene: Scene) -> None:
    """The hour and the light, over everything; gentle, so that skin and cloth stay recognisable."""
    wide = np.array([canvas.across, 1.0])
    whole = points((0, 0), (1, 0), (1, 1), (0, 1)) * wide
    if scene.time == "sunset":
        canvas.fill(whole, (255, 150, 90), opacity=0.1)
    elif scene.time == "night":
        canvas.fill(whole, (30, 40, 110), opacity=0.16)
    if scene.light == "golden":
        canvas.soft(points((-0.2, -0.2), (0.55, -0.2), (0.2, 1.2), (-0.2, 1.2)) * wide, (255, 206, 110), 0.35, opacity=0.22)
    elif scene.light == "side":
        canvas.soft(points((0.62, -0.2), (1.2, -0.2), (1.2, 1.2), (0.5, 1.2)) * wide, (16, 12, 30), 0.3, opacity=0.36)
