"""A face: head, eyes, brows, nose, mouth, beard, glasses, in head units (see `wardrobe`), and where its five landmarks are.

A turn of the head moves features as points on a sphere would: those at the front travel, those at the side become narrow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Colour, Frame, Points, darker, lighter, mirrored, mix, oval, points, smooth
from .people import EYE_COLOURS, HAIR_COLOURS, Identity, Scene, generator

EYES_Y, MOUTH_Y = 0.0, 0.84
_THROAT: Colour = (112, 30, 40)
_SKULL = ((0, -1.3), (0.6, -1.16), (0.96, -0.6), (1.0, 0.0), (0.97, 0.42))
_BEARD_EDGE = ((-0.74, 0.52), (-0.4, 0.66), (0, 0.62), (0.4, 0.66), (0.74, 0.52))


@dataclass(frozen=True)
class Turn:
    """Where features go when the head turns. `yaw` to the right, `pitch` downwards, radians."""

    yaw: float
    pitch: float

    def place(self, x: float, y: float) -> tuple[float, float, float]:
        """Position on the frontal face -> (x, y, relative width)."""
        theta = float(np.arcsin(np.clip(x * 0.86, -0.99, 0.99)))
        turned = np.clip(theta + self.yaw, -1.45, 1.45)
        return float(np.sin(turned) / 0.86), y + 0.8 * self.pitch, float(np.cos(turned) / np.cos(theta))


def features(identity: Identity, scene: Scene) -> tuple[Points, Turn]:
    """The five landmarks in head units: left eye, right eye, nose tip, left and right mouth corner, as seen in the picture."""
    turn = Turn(scene.yaw, scene.pitch)
    w = identity.face_width
    eye, mouth = 0.42 * identity.eye_spacing * w, 0.34 * identity.mouth_width * w
    nose = 0.46 * identity.nose_length
    spots = [(-eye, EYES_Y), (eye, EYES_Y), (0.0, nose), (-mouth, MOUTH_Y), (mouth, MOUTH_Y)]
    placed = [turn.place(x, y)[:2] for x, y in spots]
    placed[2] = (placed[2][0] * 1.15, placed[2][1])
    stretch = points((1, identity.face_length))
    return np.array(placed) * stretch, turn


def face(canvas: Canvas, identity: Identity, scene: Scene, frame: Frame) -> None:
    """Everything from the ears to the glasses; hair and hat come later."""
    skin, w, h = identity.skin_colour, identity.face_width, identity.face_length
    marks, turn = features(identity, scene)
    for side in (-1, 1):
        x = side * (1.0 - 0.1 * side * scene.yaw) * w
        r = 0.22 * identity.ear_size
        canvas.fill(oval(x, 0.16 * h, r * 0.8, r * 1.35), darker(skin, 0.08), frame)
        canvas.fill(oval(x, 0.16 * h, r * 0.4, r * 0.8), darker(skin, 0.26), frame)
    jaw, chin = 0.74 * identity.jaw, 0.36 * identity.chin
    half = points(*_SKULL, (min(jaw, 0.96), 0.86), (min(chin, jaw), 1.22), (0, 1.28))
    outline = smooth(mirrored(half * [w, h]))
    canvas.fill(outline, skin, frame)
    _shade(canvas, identity, scene, frame)
    _cheeks(canvas, identity, turn, frame)
    if identity.beard in ("stubble", "full"):
        _beard(canvas, identity, outline, turn, frame)
    _nose(canvas, identity, marks, frame)
    _mouth(canvas, identity, scene, marks, frame)
    for side in (0, 1):
        _eye(canvas, identity, scene, marks[side], side * 2 - 1, turn, frame)
    if identity.glasses != "none":
        _glasses(canvas, identity, marks, frame)


def _shade(canvas: Canvas, identity: Identity, scene: Scene, frame: Frame) -> None:
    skin, w = identity.skin_colour, identity.face_width
    strength = 0.85 if scene.light == "side" else 0.38
    band = points((0.62 * w, -1.0), (1.0 * w, -0.4), (1.0 * w, 0.3), (0.66 * w, 1.0), (0.36 * w, 1.2), (0.7 * w, 0.2))
    canvas.soft(smooth(band), darker(skin, 0.42), 0.24, frame, strength)
    if scene.light == "golden":
        canvas.soft(oval(-0.6 * w, -0.2, 0.3, 0.8), (255, 206, 120), 0.34, frame, 0.55)


def _cheeks(canvas: Canvas, identity: Identity, turn: Turn, frame: Frame) -> None:
    skin, w, h = identity.skin_colour, identity.face_width, identity.face_length
    for side in (-1, 1):
        x, y, narrow = turn.place(0.56 * w * side, 0.44)
        canvas.soft(oval(x, y * h, 0.2 * narrow, 0.15), mix(skin, (232, 84, 84), 0.5), 0.14, frame, 0.75 * identity.blush)
        if identity.freckles > 0.15:
            r = generator("freckles", identity.number, side)
            for _ in range(round(12 * identity.freckles)):
                fx, fy, _ = turn.place((0.42 + 0.26 * r.uniform(-1, 1)) * w * side, 0.34 + 0.16 * r.uniform(-1, 1))
                canvas.fill(oval(fx, fy * h, 0.032, 0.032), mix(skin, (128, 62, 30), 0.6), frame)
    if identity.mole:
        spot = [(-0.5, 0.58), (0.5, 0.58), (0.2, 1.06)][identity.mole - 1]
        x, y, _ = turn.place(spot[0] * w, spot[1])
        canvas.fill(oval(x, y * h, 0.055, 0.055), darker(skin, 0.62), frame)


def _beard(canvas: Canvas, identity: Identity, outline: Points, turn: Turn, frame: Frame) -> None:
    colour, w, h = HAIR_COLOURS[identity.hair_colour], identity.face_width, identity.face_length
    lower = outline[outline[:, 1] > 0.3 * h]
    right, left = lower[lower[:, 0] >= 0], lower[lower[:, 0] < 0]
    ring = np.concatenate([right[np.argsort(right[:, 1])], left[np.argsort(-left[:, 1])]])
    drift = turn.place(0.0, 0.0)[0] * 0.6
    inner = points(*((x * w + drift, y * h) for x, y in _BEARD_EDGE))
    shape = np.concatenate([ring, inner])
    if identity.beard == "full":
        longer = shape.copy()
        longer[:, 1] += np.clip(longer[:, 1] - 0.8 * h, 0, None) * 0.32
        canvas.fill(longer, colour, frame)
    else:
        canvas.soft(shape, darker(colour, 0.2), 0.08, frame, 0.36)


def _nose(canvas: Canvas, identity: Identity, marks: Points, frame: Frame) -> None:
    skin = identity.skin_colour
    x, y = marks[2]
    top_x = 0.5 * (marks[0, 0] + marks[1, 0])
    half = 0.17 * identity.nose_width
    canvas.soft(points((top_x + 0.04, 0.1), (x + half, y), (x - half * 0.2, y + 0.04)), darker(skin, 0.42), 0.08, frame, 0.55)
    canvas.fill(oval(x, y - 0.02, half, 0.12), mix(skin, darker(skin, 0.3), 0.25), frame)
    canvas.soft(oval(x - 0.03, y - 0.08, half * 0.5, 0.05), lighter(skin, 0.6), 0.06, frame, 0.7)
    canvas.stroke(oval(x, y - 0.02, half, 0.12, 20, 160), darker(skin, 0.42), 0.045, frame)


def _mouth(canvas: Canvas, identity: Identity, scene: Scene, marks: Points, frame: Frame) -> None:
    """The mouth between its corners, with what beard lies around it."""
    (x0, y), (x1, _) = marks[3], marks[4]
    x, half = (x0 + x1) / 2, (x1 - x0) / 2
    lips = 0.075 * identity.lip_fullness
    lip = mix(darker(identity.skin_colour, 0.2), (198, 62, 74), 0.62 if identity.noun == "woman" else 0.34)
    if identity.beard in ("moustache", "goatee", "full"):
        _moustache(canvas, identity, x, y, half, frame)
    if scene.expression == "laughing":
        _laugh(canvas, x, y, half, lip, lips, frame)
    elif scene.expression == "surprised":
        canvas.fill(oval(x, y + 0.06, half * 0.56 + lips, 0.2 + lips), lip, frame)
        canvas.fill(oval(x, y + 0.06, half * 0.56, 0.2), _THROAT, frame)
    else:
        bend = {"smiling": 0.2, "sad": -0.17}.get(scene.expression, 0.015)
        reach = half * (1.12 if scene.expression == "smiling" else 0.94)
        corner, inner = -bend * 0.5, bend * 0.3
        spots = _around(x, y, reach, (-1, corner), (-0.5, inner), (0, bend * 0.55), (0.5, inner), (1, corner))
        line = smooth(spots, closed=False)
        canvas.stroke(line + np.array([0, lips * 0.6]), lip, lips * 2, frame)
        canvas.stroke(line, darker(lip, 0.55), 0.05, frame)


def _around(x: float, y: float, reach: float, *offsets: tuple[float, float]) -> Points:
    """Points around (x, y): sideways in units of `reach`, up and down in head units."""
    return points(*((x + reach * dx, y + dy) for dx, dy in offsets))


def _moustache(canvas: Canvas, identity: Identity, x: float, y: float, half: float, frame: Frame) -> None:
    """And the goatee below it. `x`, `y`, `half`: the mouth's middle and half its width."""
    hair = HAIR_COLOURS[identity.hair_colour]
    if identity.beard == "goatee":
        chin = _around(x, y, 1.0, (-0.3, 0.1), (0, 0.12), (0.3, 0.1), (0.22, 0.5), (0, 0.62), (-0.22, 0.5))
        canvas.fill(smooth(chin), hair, frame)
    wing = _around(x, y, half, (0, -0.2), (0.8, -0.14), (1.25, 0.06), (0.5, -0.04), (0, -0.06))
    canvas.fill(smooth(np.concatenate([wing, (wing[-2:0:-1] - [x, 0]) * [-1, 1] + [x, 0]])), hair, frame)


def _laugh(canvas: Canvas, x: float, y: float, half: float, lip: Colour, lips: float, frame: Frame) -> None:
    """An open mouth with teeth and tongue. `lips`: how thick they are, head units."""
    shape = smooth(_around(x, y, half, (-1.2, -0.06), (0, -0.01), (1.2, -0.06), (0.7, 0.22), (0, 0.3), (-0.7, 0.22)))
    canvas.fill(shape, _THROAT, frame)
    teeth = _around(x, y, half, (-1, -0.03), (0, 0.01), (1, -0.03), (0.8, 0.09), (-0.8, 0.09))
    canvas.fill(teeth, (255, 252, 246), frame)
    canvas.fill(oval(x, y + 0.23, half * 0.45, 0.07), (222, 104, 106), frame)
    canvas.stroke(shape, lip, lips * 0.8, frame, closed=True)


def _eye(canvas: Canvas, identity: Identity, scene: Scene, mark: Points, side: int, turn: Turn, frame: Frame) -> None:
    """One eye with its brow; `side` -1 is the picture's left."""
    x, y = mark
    narrow = turn.place(0.42 * side * identity.face_width, 0)[2] ** 0.7
    wide = {"surprised": 1.25, "laughing": 0.72}.get(scene.expression, 1.0)
    rx, ry = 0.225 * identity.eye_size * narrow, 0.165 * identity.eye_size * wide
    slant = side * identity.eye_slant
    local = Frame(x, y, 1.0, -slant)
    upper = ((-rx, 0.02), (-rx * 0.5, -ry * 0.86), (0, -ry), (rx * 0.5, -ry * 0.86))
    lower = ((rx, 0.02), (rx * 0.5, ry * 0.8), (0, ry), (-rx * 0.5, ry * 0.8))
    white = smooth(points(*upper, *lower))
    canvas.fill(local(white), (252, 250, 246), frame)
    iris, r = EYE_COLOURS[identity.eye_colour], 0.125 * identity.eye_size
    gaze = 0.05 * np.sin(scene.yaw)
    height = min(r, ry * 0.98)
    canvas.fill(local(oval(gaze, 0, r, height)), iris, frame)
    canvas.fill(local(oval(gaze, 0, r * 0.52, min(r * 0.52, height))), (24, 20, 26), frame)
    canvas.fill(local(oval(gaze - r * 0.36, -height * 0.4, r * 0.3, r * 0.3)), (255, 255, 255), frame)
    lid = smooth(
        points((-rx * 1.05, 0.04), (-rx * 0.55, -ry * 0.9), (0, -ry * 1.06), (rx * 0.55, -ry * 0.9), (rx * 1.05, 0.04)),
        closed=False,
    )
    canvas.stroke(local(lid), (46, 30, 32), 0.065 if identity.noun == "woman" else 0.05, frame)
    lift = {"surprised": -0.12, "sad": -0.02}.get(scene.expression, 0.0)
    inner = {"sad": -0.12}.get(scene.expression, 0.0)
    level, arch = -0.36 - 0.05 * identity.eye_size + lift, 0.11 * identity.brow_arch
    brow = smooth(
        points((-side * rx * 1.15, level + 0.04 + inner), (0, level - arch), (side * rx * 1.3, level + 0.07 - inner * 0.6)),
        closed=False,
    )
    colour = darker(HAIR_COLOURS[identity.hair_colour], 0.3)
    canvas.stroke(brow + np.array([x, y]), colour, 0.085 * identity.brow_thickness, frame)


def _glasses(canvas: Canvas, identity: Identity, marks: Points, frame: Frame) -> None:
    frame_colour = [(34, 32, 40), (146, 50, 52), (168, 122, 56)][identity.number % 3]
    (x0, y0), (x1, y1) = marks[0], marks[1]
    gap = (x1 - x0) / 2
    for x, y in ((x0, y0), (x1, y1)):
        if identity.glasses == "round":
            lens = oval(x, y + 0.02, gap * 0.78, 0.34)
        else:
            rx, ry = (gap * 0.8, 0.27) if identity.glasses == "square" else (gap * 0.86, 0.2)
            lens = points((x - rx, y - ry), (x + rx, y - ry), (x + rx * 0.92, y + ry + 0.06), (x - rx * 0.92, y + ry + 0.06))
        canvas.fill(lens, (226, 240, 250), frame, 0.22)
        canvas.stroke(lens, frame_colour, 0.075, frame, closed=True)
    w = identity.face_width
    for side, x, y in ((-1, x0, y0), (1, x1, y1)):
        canvas.stroke(points((x + side * gap * 0.8, y - 0.02), (side * 1.0 * w, y - 0.02)), frame_colour, 0.065, frame)
    canvas.stroke(points((x0 + gap * 0.78, y0), (x1 - gap * 0.78, y1)), frame_colour, 0.065, frame)
