"""The same people as a photograph would show them: natural proportions, soft light, skin, strands of hair, any background.

From pairs of a lifelike face and the drawn one of the same person, the face encoder learns what of a photograph the drawn world has words
for. Nobody's photograph is needed. Shapes of hair and clothes are those of `wardrobe`; light, texture and the face itself are made here.
Deterministic: equal inputs, equal pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from . import places, wardrobe
from .canvas import Canvas, Colour, Frame, Points, darker, lighter, mirrored, mix, oval, points, smooth
from .face import Turn
from .people import EYE_COLOURS, EXPRESSIONS, Identity, generator, sample_scene
from .render import Portrait

Mask = NDArray[np.float32]
Random = np.random.Generator

_HAIR: Mapping[str, tuple[Colour, Colour]] = {
    "black": ((18, 15, 17), (62, 52, 50)), "brown": ((50, 33, 24), (122, 86, 62)), "auburn": ((84, 42, 28), (156, 84, 54)),
    "red": ((136, 68, 36), (216, 124, 72)), "blonde": ((138, 108, 70), (238, 208, 152)), "grey": ((96, 94, 94), (174, 172, 172)),
    "white": ((186, 182, 178), (246, 243, 240)), "blue": ((36, 56, 108), (92, 134, 204)),
}  # fmt: skip
"""Name of a drawn colour -> the darkest and the lightest hair that goes by it."""
_SCALE = 0.235
"""Half the width of an average head, as a share of the picture."""
_STRAND = {"curly": (2.2, 2.2), "afro": (1.2, 1.2), "wavy": (1.2, 6.0), "spiky": (1.0, 5.0)}
"""Style -> the grain of its hair across and along, pixels of 256; others are straight."""


def lifelike(identity: Identity, number: int, size: int = 256) -> Portrait:
    """One of a person's lifelike portraits, RGB [size, size, 3], with the five landmarks."""
    r = generator("lifelike", identity.number, number)
    return _Portrait(identity, r, size).paint()


class _Portrait:
    """A picture in the making: floats in 0-255, and the frames in which its parts lie."""

    def __init__(self, identity: Identity, r: Random, size: int) -> None:
        self.person, self.r, self.size = identity, r, size
        turn = float(r.normal(0, 0.08))
        x, y, scale = 0.5 + float(r.uniform(-0.05, 0.05)), 0.5 + float(r.uniform(-0.05, 0.05)), _SCALE * float(r.uniform(0.85, 1.1))
        self.frame, self.upright = Frame(x, y, scale, turn), Frame(x, y, scale)
        self.turn = Turn(float(np.clip(r.normal(0, 0.22), -0.55, 0.55)), float(r.normal(0, 0.08)))
        self.hair = mix(*_HAIR[identity.hair_colour], float(r.uniform()))
        self.skin = _jittered(identity.skin_colour, r, 0.05)
        self.expression = str(r.choice(EXPRESSIONS))
        self.width, self.length = identity.face_width * float(r.uniform(0.86, 1.02)), identity.face_length * float(r.uniform(0.97, 1.08))
        self.pixels = np.zeros((size, size, 3), np.float32)

    def paint(self) -> Portrait:
        person, r = self.person, self.r
        self.pixels[:] = _background(self.size, r)
        drift = 0.35 * float(np.sin(self.turn.yaw))
        shaped = replace(person, face_width=self.width * float(r.uniform(0.97, 1.08)))
        behind = self._drawn(lambda canvas: wardrobe.hair_behind(canvas, shaped, self.frame))[0]
        self._hair(behind, 0.75)
        scene = sample_scene("lifelike", person.number, int(r.integers(1 << 30)))
        covered, cloth = self._drawn(lambda canvas: wardrobe.body(canvas, person, scene, self.upright))
        self._put(covered, cloth * self._grain(1.5, 1.5, 0.08))
        marks = self._landmarks()
        self._head(marks)
        if person.hair_style != "bald":
            front = self._drawn(lambda canvas: wardrobe.hair_in_front(canvas, shaped, self._hairline(), drift))[0]
            shadow = np.roll(front, round(0.07 * self.frame.scale * self.size), 0)
            self._put(_blurred(shadow, 0.05 * self.size * self.frame.scale) * (1 - front), self._shade(0.5), 0.5)
            self._hair(front, 1.0, float(r.uniform(0.75, 1.0)) if person.hair_style == "short" else 1.0)
        if person.glasses != "none":
            self._glasses(marks)
        image = np.clip(self.pixels, 0, 255).astype(np.uint8)
        return Portrait(image, (self.frame(marks) * self.size).astype(np.float32))

    def _hairline(self) -> Frame:
        """The hair sits higher on a natural forehead, and not always as high."""
        up = float(self.r.uniform(0.05, 0.3))
        if self.person.hair_style == "fringe":
            up = float(self.r.uniform(-0.1, 0.15))
        return replace(self.frame, y=self.frame.y - up * self.frame.scale)

    def _landmarks(self) -> Points:
        """In head units, as `face.features`; a natural mouth lies lower, and the eyes nearer to each other."""
        p, r, w = self.person, self.r, self.width
        eye, mouth = 0.41 * p.eye_spacing**0.7 * w, 0.35 * p.mouth_width * w * float(r.uniform(0.9, 1.1))
        nose, lips = 0.56 * p.nose_length**0.7 * float(r.uniform(0.92, 1.08)), 0.93 * float(r.uniform(0.94, 1.06))
        spots = [(-eye, 0.0), (eye, 0.0), (0.0, nose), (-mouth, lips), (mouth, lips)]
        placed = [self.turn.place(x, y)[:2] for x, y in spots]
        placed[2] = (placed[2][0] + 0.22 * float(np.sin(self.turn.yaw)), placed[2][1])
        return np.array(placed) * points((1, self.length))

    # -- parts ------------------------------------------------------------------------------------------------------------------

    def _head(self, marks: Points) -> None:
        p, r, w, h = self.person, self.r, self.width, self.length
        for side in (-1, 1):
            ear = oval(side * 1.0 * w, 0.2 * h, 0.16 * p.ear_size, 0.3 * p.ear_size)
            self._put(self._mask(ear, 0.03), self._shade(0.75))
        jaw, chin = 0.76 * p.jaw, 0.34 * p.chin
        half = points((0, -1.55), (0.6, -1.4), (0.93, -0.8), (0.99, 0.0), (0.95, 0.5), (min(jaw, 0.94), 1.0), (min(chin, jaw), 1.4), (0, 1.5))
        outline = smooth(mirrored(half * [w, h]))
        head = self._mask(outline, 0.02)
        self._put(np.roll(_blurred(head, 0.12 * self._unit), round(0.18 * self._unit), 0), self._shade(0.45), 0.7)
        light = self._light(outline)
        skin = np.array(self.skin, np.float32) * light * self._grain(0.8, 0.8, float(r.uniform(0, 0.03))) * self._grain(9, 9, float(r.uniform(0, 0.05)))
        self._put(head, skin)
        self._cheeks()
        for side in (0, 1):
            self._eye(marks[side], side * 2 - 1)
        self._nose(marks)
        self._beard(outline, marks, below_lips=True)
        self._mouth(marks)
        self._beard(outline, marks, below_lips=False)
        if r.uniform() < 0.4:
            for side in (-1, 1):  # folds beside the mouth, and lines of the forehead
                fold = points((side * 0.2 * w, 0.6), (side * 0.42 * w, 0.95))
                self._line(fold, 0.03, self._shade(0.65), 0.03, float(r.uniform(0.1, 0.5)))
            for y in (-0.55, -0.68):
                self._line(points((-0.5 * w, y), (0, y - 0.03), (0.5 * w, y)), 0.02, self._shade(0.7), 0.02, float(r.uniform(0, 0.4)))

    def _light(self, outline: Points) -> NDArray[np.float32]:
        """A lamp at a random place over the head as an ellipsoid: [size, size, 3], mean about 1 where the face is."""
        r = self.r
        x, y = self._grid()
        nx, ny = np.clip(x / (1.12 * self.width), -1, 1), np.clip((y - 0.05) / 1.75, -1, 1)
        nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0.02, 1))
        angle, tilt = r.uniform(-1.1, 1.1), r.uniform(-0.2, 0.8)
        lamp = np.array([np.sin(angle), -np.sin(tilt), np.cos(angle) * np.cos(tilt) + 0.3])
        lamp /= np.linalg.norm(lamp)
        ambient = r.uniform(0.35, 0.85)
        lit = ambient + (1 - ambient) * np.clip(nx * lamp[0] + ny * lamp[1] + nz * lamp[2], 0, 1) * 1.2
        warm = 1 + (lit[..., None] - 1) * np.array([0.9, 1.0, 1.08])
        return np.asarray(warm, np.float32)

    def _cheeks(self) -> None:
        p, w, h = self.person, self.width, self.length
        for side in (-1, 1):
            x, y, narrow = self.turn.place(0.55 * w * side, 0.5)
            cheek = self._mask(oval(x, y * h, 0.26 * narrow, 0.18), 0.16)
            self._put(cheek, np.array(mix(self.skin, (214, 92, 84), 0.4), np.float32), 0.55 * p.blush)
            if p.freckles > 0.15:
                for _ in range(round(26 * p.freckles)):
                    dot = oval(x + 0.34 * self.r.normal() * narrow, 0.42 * h + 0.2 * self.r.normal(), 0.02, 0.02)
                    self._put(self._mask(dot, 0.02), self._shade(0.6), 0.7)
        if p.mole:
            spot = [(-0.5, 0.62), (0.5, 0.62), (0.2, 1.2)][p.mole - 1]
            x, y, _ = self.turn.place(spot[0] * w, spot[1])
            self._put(self._mask(oval(x, y * h, 0.035, 0.035), 0.02), self._shade(0.35), 0.9)

    def _eye(self, mark: Points, side: int) -> None:
        p, r = self.person, self.r
        x, y = mark
        narrow = self.turn.place(0.42 * side * self.width, 0)[2] ** 0.7
        wide = {"surprised": 1.25, "laughing": 0.66, "smiling": 0.85}.get(self.expression, 1.0)
        size = p.eye_size**0.8 * float(r.uniform(0.9, 1.1))
        rx, ry = 0.2 * size * narrow, 0.08 * size * wide * float(r.uniform(0.8, 1.25))
        self._put(self._mask(oval(x, y - 0.05, rx * 1.4, 0.2), 0.16), self._shade(0.6), float(r.uniform(0.15, 0.5)))
        local = Frame(x, y, 1.0, -side * 0.6 * p.eye_slant)
        almond = local(smooth(points((-rx, 0.015), (-rx * 0.4, -ry), (rx * 0.4, -ry), (rx, 0.01), (rx * 0.4, ry * 0.8), (-rx * 0.4, ry * 0.8))))
        inside = self._mask(almond, 0.012)
        self._put(inside, np.array((222, 214, 208), np.float32) * float(r.uniform(0.75, 1.0)))
        gaze, iris = 0.06 * float(r.normal()), 0.088 * size**0.5
        for radius, colour in ((iris, mix(darker(EYE_COLOURS[p.eye_colour], 0.3), (90, 80, 70), 0.25)), (iris * 0.45, (18, 15, 16))):
            self._put(self._mask(local(oval(gaze, -0.01, radius, radius)), 0.012) * inside, np.array(colour, np.float32))
        self._put(self._mask(local(oval(gaze - 0.03, -0.04, 0.02, 0.02)), 0.012) * inside, np.array((250, 250, 250), np.float32), 0.9)
        lashes = 0.034 if p.noun == "woman" else 0.02
        lid = local(smooth(points((-rx * 1.05, 0.02), (-rx * 0.45, -ry * 1.05), (rx * 0.45, -ry * 1.05), (rx * 1.08, 0.0)), closed=False))
        self._line(lid, lashes * float(r.uniform(0.8, 1.6)), (34, 24, 22), 0.015, 0.85)
        self._line(lid + [0, -0.06], 0.02, self._shade(0.6), 0.02, float(r.uniform(0.1, 0.6)))
        self._line(local(points((-rx * 0.9, 0.04), (0, ry + 0.02), (rx * 0.9, 0.03))), 0.02, self._shade(0.6), 0.02, float(r.uniform(0.2, 0.6)))
        lift, inner = {"surprised": -0.1}.get(self.expression, 0.0), {"sad": -0.08}.get(self.expression, 0.0)
        level, arch = -0.27 + lift + float(r.uniform(-0.05, 0.05)), 0.08 * p.brow_arch
        brow = smooth(points((-side * rx * 1.2, level + 0.05 + inner), (0, level - arch), (side * rx * 1.55, level + 0.06)), closed=False)
        colour = mix(darker(self.hair, 0.35), self.skin, float(r.uniform(0.05, 0.35)))
        self._line(brow + np.array([x, y]), 0.085 * p.brow_thickness * float(r.uniform(0.8, 1.2)), colour, 0.025, float(r.uniform(0.65, 0.95)))

    def _nose(self, marks: Points) -> None:
        r = self.r
        x, y = marks[2]
        top_x, half = 0.5 * (marks[0, 0] + marks[1, 0]), 0.23 * self.person.nose_width**0.8
        side = 1 if r.uniform() < 0.5 else -1
        edge = points((top_x + side * 0.12, 0.05), (top_x + side * 0.02, 0.05), (x + side * 0.02, y - 0.1), (x + side * half, y + 0.04))
        self._put(self._mask(edge, 0.09), self._shade(0.62), float(r.uniform(0.2, 0.65)))
        ridge = points((top_x - 0.03, 0.1), (top_x + 0.03, 0.1), (x + 0.05, y - 0.06), (x - 0.05, y - 0.06))
        self._put(self._mask(ridge, 0.06), np.array(lighter(self.skin, 0.5), np.float32), float(r.uniform(0.1, 0.5)))
        self._put(self._mask(oval(x, y + 0.08, half * 0.9, 0.05), 0.05), self._shade(0.5), float(r.uniform(0.35, 0.7)))
        for wing in (-1, 1):
            self._put(self._mask(oval(x + wing * half * 0.5, y + 0.06, half * 0.28, 0.035), 0.025), self._shade(0.25), 0.75)
            curve = oval(x + wing * half * 0.8, y, half * 0.28, 0.1, -70 if wing > 0 else 110, 70 if wing > 0 else 250)
            self._line(curve, 0.025, self._shade(0.6), 0.03, float(r.uniform(0.3, 0.7)))

    def _mouth(self, marks: Points) -> None:
        p, r = self.person, self.r
        (x0, y0), (x1, y1) = marks[3], marks[4]
        x, y, half = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2
        made_up = p.noun == "woman" and r.uniform() < 0.6
        lip = mix(darker(self.skin, 0.16), (186, 66, 74), float(r.uniform(0.4, 0.75) if made_up else r.uniform(0.2, 0.45)))
        full, bend = 0.085 * p.lip_fullness, {"smiling": 0.12, "laughing": 0.14, "sad": -0.09}.get(self.expression, 0.0)
        half *= 1.12 if bend > 0 else 1.0
        gap = {"laughing": 0.17, "surprised": 0.2}.get(self.expression, 0.1 if self.expression == "smiling" and r.uniform() < 0.5 else 0.0)
        corner = -bend * 0.6
        upper = ((-half, corner), (-half * 0.3, -full + bend * 0.2), (0, -full * 0.8 + bend * 0.25), (half * 0.3, -full + bend * 0.2), (half, corner))
        lower = ((half * 0.55, full * 1.1 + gap + bend * 0.35), (0, full * 1.4 + gap + bend * 0.5), (-half * 0.55, full * 1.1 + gap + bend * 0.35))
        at = np.array([x, y])
        self._put(self._mask(smooth(points(*upper, *lower)) + at, 0.025), np.array(lip, np.float32) * self._grain(1, 1, 0.06))
        if gap:
            hole = smooth(points((-half * 0.88, corner), (0, bend * 0.4), (half * 0.88, corner), (half * 0.45, gap + bend * 0.4), (-half * 0.45, gap + bend * 0.4)))
            inside = self._mask(hole + at, 0.015)
            self._put(inside, np.array((62, 24, 26), np.float32))
            teeth = self._mask(smooth(points((-half * 0.8, corner - 0.02), (half * 0.8, corner - 0.02), (half * 0.4, gap * 0.75 + bend * 0.4), (-half * 0.4, gap * 0.75 + bend * 0.4))) + at, 0.02)
            if self.expression != "surprised":
                self._put(inside * teeth, np.array((232, 226, 218), np.float32) * float(r.uniform(0.8, 1.0)))
        else:
            line = smooth(points((-half, corner), (-half * 0.4, bend * 0.25), (0, bend * 0.35), (half * 0.4, bend * 0.25), (half, corner)), closed=False)
            self._line(line + at, 0.025, darker(lip, 0.6), 0.02, 0.85)
        self._put(self._mask(oval(x, y + full * 1.4 + gap + 0.1, half * 0.6, 0.04), 0.06), self._shade(0.6), float(r.uniform(0.2, 0.5)))

    def _beard(self, outline: Points, marks: Points, below_lips: bool) -> None:
        """What grows around the mouth, `below_lips`, and over it."""
        p, r, w, h = self.person, self.r, self.width, self.length
        if p.beard == "none":
            return
        (x0, y), (x1, _) = marks[3], marks[4]
        x, half = (x0 + x1) / 2, (x1 - x0) / 2
        hair = np.array(mix(darker(self.hair, 0.2), self.skin, 0.1), np.float32) * self._grain(0.8, 2.2, 0.3)
        drift = 0.5 * (x0 + x1)
        if below_lips and p.beard in ("full", "stubble"):
            edge = 0.55 + float(r.uniform(-0.1, 0.12))
            lower = outline[outline[:, 1] > edge * h]
            right, left = lower[lower[:, 0] >= 0], lower[lower[:, 0] < 0]
            ring = np.concatenate([right[np.argsort(right[:, 1])], left[np.argsort(-left[:, 1])]])
            if p.beard == "full":
                ring[:, 1] += np.clip(ring[:, 1] - 0.9 * h, 0, None) * float(r.uniform(0.0, 0.45))
            inner = points((-0.72 * w, edge * h), (-0.46 * w + drift, 0.78 * h), (drift, 0.78 * h), (0.46 * w + drift, 0.78 * h), (0.72 * w, edge * h))
            mask = self._mask(np.concatenate([ring, inner]), 0.06)
            thick = float(r.uniform(0.75, 0.97)) if p.beard == "full" else float(r.uniform(0.2, 0.45))
            self._put(mask[..., None] * np.clip(self._grain(0.7, 1.2, 0.25), 0, 1.3), hair, thick)
        elif below_lips and p.beard == "goatee":
            chin = smooth(points((-0.3, 0.12), (0.3, 0.12), (0.3, 0.45), (0, 0.62), (-0.3, 0.45)) + np.array([x, y]))
            self._put(self._mask(chin, 0.06), hair, float(r.uniform(0.6, 0.95)))
        if not below_lips and p.beard in ("moustache", "goatee", "full"):
            wing = points((0, -0.2), (0.7, -0.17), (1.2, 0.02), (1.1, 0.08), (0.5, -0.07), (0, -0.08)) * [half, 1]
            shape = smooth(mirrored(wing)) + np.array([x, y])
            self._put(self._mask(shape, 0.04), hair, float(r.uniform(0.6, 0.95)))

    def _glasses(self, marks: Points) -> None:
        p, r = self.person, self.r
        colour = [(30, 28, 32), (120, 50, 48), (150, 116, 70), (110, 110, 116)][int(r.integers(4))]
        (x0, y0), (x1, y1) = marks[0], marks[1]
        gap, thick = (x1 - x0) / 2, float(r.uniform(0.025, 0.075))
        for x, y in ((x0, y0), (x1, y1)):
            rx, ry = {"round": (gap * 0.74, 0.3), "square": (gap * 0.78, 0.25), "wide": (gap * 0.84, 0.19)}[p.glasses]
            lens = oval(x, y + 0.03, rx, ry)
            if p.glasses != "round":
                lens = smooth(points((-rx, -ry), (rx, -ry), (rx * 0.9, ry), (-rx * 0.9, ry)) + np.array([x, y + 0.03]), per_segment=3)
            self._put(self._mask(lens, 0.02), np.array((225, 236, 244), np.float32), float(r.uniform(0.02, 0.25)))
            self._line(lens, thick, colour, 0.01, 0.95, closed=True)
        for side, x, y in ((-1, x0, y0), (1, x1, y1)):
            self._line(points((x + side * gap * 0.78, y - 0.02), (side * self.width, y)), thick, colour, 0.01, 0.9)
        self._line(points((x0 + gap * 0.74, y0), (x1 - gap * 0.74, y1)), thick, colour, 0.01, 0.95)

    def _hair(self, mask: Mask, bright: float, opacity: float = 1.0) -> None:
        across, along = _STRAND.get(self.person.hair_style, (0.9, 9.0))
        grain = self._grain(across, along, float(self.r.uniform(0.05, 0.35))) * self._grain(12, 12, 0.12)
        colour = np.array(self.hair, np.float32) * bright * grain
        soft = _blurred(mask, 0.02 * self._unit)
        x, y = self._grid()
        shine = np.exp(-(((x + 0.3) / 0.6) ** 2) - ((y + 1.1) / 0.2) ** 2)[..., None] * float(self.r.uniform(0, 0.35))
        self._put(soft, colour + (np.array(lighter(self.hair, 0.5), np.float32) - colour) * shine * grain, opacity)

    # -- paint ------------------------------------------------------------------------------------------------------------------

    @property
    def _unit(self) -> float:
        """Pixels of one head unit."""
        return self.frame.scale * self.size

    def _grid(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Head units of every pixel."""
        v, u = np.mgrid[0 : self.size, 0 : self.size] / self.size
        u, v = (u - self.frame.x) / self.frame.scale, (v - self.frame.y) / self.frame.scale
        c, s = np.cos(self.frame.turn), np.sin(self.frame.turn)
        return u * c + v * s, v * c - u * s

    def _shade(self, share: float) -> NDArray[np.float32]:
        """What lies there, darkened to `share`, reddish as shadows on skin are: [size, size, 3]."""
        return np.asarray(self.pixels * np.array([share**0.85, share, share**1.05], np.float32), np.float32)

    def _put(self, mask: Mask, colour: NDArray[np.float32], opacity: float = 1.0) -> None:
        share = (mask if mask.ndim == 3 else mask[..., None]) * np.float32(opacity)
        self.pixels += (colour - self.pixels) * np.clip(share, 0, 1)

    def _mask(self, shape: Points, blur: float) -> Mask:
        """1 within a shape in head units, its edge blurred over `blur` units."""
        mask = np.zeros((self.size, self.size), np.uint8)
        cv2.fillPoly(mask, [np.round(self.frame(shape) * self.size * 16).astype(np.int32)], 255.0, cv2.LINE_AA, 4)
        return _blurred(mask.astype(np.float32) / 255, blur * self._unit)

    def _line(self, line: Points, width: float, colour: Colour | NDArray[np.float32], blur: float, opacity: float, closed: bool = False) -> None:
        mask = np.zeros((self.size, self.size), np.uint8)
        placed = np.round(self.frame(line) * self.size * 16).astype(np.int32)
        cv2.polylines(mask, [placed], closed, 255.0, max(1, round(width * self._unit)), cv2.LINE_AA, 4)
        self._put(_blurred(mask.astype(np.float32) / 255, blur * self._unit), np.asarray(colour, np.float32), opacity)

    def _grain(self, across: float, along: float, strength: float) -> NDArray[np.float32]:
        """Noise around 1, [size, size, 1]; its spots are `across` x `along` pixels of 256, turned a little."""
        noise = self.r.standard_normal((self.size, self.size), np.float32)
        share = self.size / 256
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), max(across * share, 0.3), sigmaY=max(along * share, 0.3)), np.float32)
        if across != along:
            turn = cv2.getRotationMatrix2D((self.size / 2, self.size / 2), float(self.r.uniform(-30, 30)), 1.3)
            noise = np.asarray(cv2.warpAffine(noise, turn, (self.size, self.size), borderMode=cv2.BORDER_REFLECT), np.float32)
        return np.asarray((1 + strength * noise / (noise.std() + 1e-6))[..., None], np.float32)

    def _drawn(self, draw: object) -> tuple[Mask, NDArray[np.float32]]:
        """Where a drawing of the world covers what is there, and its colours."""
        canvas = Canvas(self.size, 2)
        canvas.pixels[:] = np.clip(self.pixels, 0, 255).astype(np.uint8).repeat(2, 0).repeat(2, 1)
        before = canvas.picture()
        draw(canvas)  # type: ignore[operator]
        after = canvas.picture()
        return (after != before).any(2).astype(np.float32), after.astype(np.float32)


def _blurred(mask: Mask, sigma: float) -> Mask:
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), sigma), np.float32) if sigma > 0.3 else mask


def _jittered(colour: Colour, r: Random, spread: float) -> Colour:
    a, b, c = (float(np.clip(value * r.uniform(1 - spread, 1 + spread), 0, 255)) for value in colour)
    return a, b, c


def _background(size: int, r: Random) -> NDArray[np.float32]:
    """A plain wall, a blurred place of the world, or spots of light: [size, size, 3]."""
    kind = r.uniform()
    if kind < 0.4:
        scene = sample_scene("lifelike background", int(r.integers(1 << 30)))
        canvas = Canvas(size, 1)
        places.DRAW[scene.place](canvas, scene.time, r)
        return _blurred(canvas.picture().astype(np.float32), float(r.uniform(0.5, 8)) * size / 256)
    a, b = (r.uniform(0, 255) + r.uniform(-40, 40, 3) for _ in range(2))
    ramp = np.linspace(0, 1, size)
    share = (ramp[:, None] if r.uniform() < 0.5 else ramp[None, :]) * np.ones((size, size))
    wall = np.clip(a + (b - a) * share[..., None], 0, 255).astype(np.float32)
    if kind < 0.7:
        spots = r.standard_normal((12, 12, 3)).astype(np.float32) * float(r.uniform(10, 60))
        wall = wall + np.asarray(cv2.resize(spots, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)
    return np.clip(wall, 0, 255)
