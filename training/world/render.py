"""Identity and scene -> picture, with the five landmarks that align its face. Deterministic: equal inputs, equal pixels.

Knows the order in which things are drawn and the framing of a portrait; the shapes are in `places`, `wardrobe` and `face`.
"""

from __future__ import annotations

from dataclasses import dataclass

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


def head_frame(scene: Scene) -> Frame:
    return Frame(0.5 + scene.x, 0.49 + scene.y, HEAD * scene.scale, scene.turn)


def landmarks(identity: Identity, scene: Scene) -> Points:
    """[5, 2], in picture units."""
    return head_frame(scene)(features(identity, scene)[0])


def render(identity: Identity, scene: Scene, size: int = 128, supersampling: int | None = None) -> Portrait:
    """A portrait of `size` x `size` pixels."""
    canvas = Canvas(size, supersampling or max(2, -(-512 // size)))
    places.DRAW[scene.place](canvas, scene.time, generator("place", scene.place, scene.detail))
    head = head_frame(scene)
    upright = Frame(head.x, head.y, head.scale, 0.0)
    drift = 0.35 * float(np.sin(scene.yaw))
    wardrobe.hair_behind(canvas, identity, head)
    wardrobe.body(canvas, identity, scene, upright)
    face(canvas, identity, scene, head)
    wardrobe.hair_in_front(canvas, identity, head, drift)
    if scene.hat != "none":
        canvas.soft(oval(drift, -0.62, 0.9 * identity.face_width, 0.12), (30, 16, 16), 0.12, head, 0.35)
        wardrobe.hat(canvas, identity, scene, head, drift)
    _relight(canvas, scene)
    return Portrait(canvas.picture(), (landmarks(identity, scene) * size).astype(np.float32))


def _relight(canvas: Canvas, scene: Scene) -> None:
    """The hour and the light, over everything; gentle, so that skin and cloth stay recognisable."""
    whole = points((0, 0), (1, 0), (1, 1), (0, 1))
    if scene.time == "sunset":
        canvas.fill(whole, (255, 150, 90), opacity=0.1)
    elif scene.time == "night":
        canvas.fill(whole, (30, 40, 110), opacity=0.16)
    if scene.light == "golden":
        canvas.soft(points((-0.2, -0.2), (0.55, -0.2), (0.2, 1.2), (-0.2, 1.2)), (255, 206, 110), 0.35, opacity=0.22)
    elif scene.light == "side":
        canvas.soft(points((0.62, -0.2), (1.2, -0.2), (1.2, 1.2), (0.5, 1.2)), (16, 12, 30), 0.3, opacity=0.36)
