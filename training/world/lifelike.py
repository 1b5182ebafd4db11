"""The same people as a photograph would show them: natural proportions, soft light, skin, strands of hair, any background.

From pairs of a lifelike face and the drawn one of the same person, the face encoder learns what of a photograph the drawn world has words
for. Nobody's photograph is needed. Shapes of hair and clothes are those of `wardrobe`; light, texture and the face itself are made here.
Deterministic: equal inputs, equal pixels.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from . import places, wardrobe
from .canvas import Canvas, Frame, Points, lighter, mirrored, oval, points, smooth
from .natural_face import NaturalFace
from .paint import Mask, Pixels, Random, blurred
from .people import Identity, generator, sample_scene
from .render import Portrait

_SCALE = 0.235
"""Half the width of an average head, as a share of the picture."""
_STRAND = {"curly": (2.2, 2.2), "afro": (1.2, 1.2), "wavy": (1.2, 6.0), "spiky": (1.0, 5.0)}
"""Style -> the grain of its hair across and along, pixels of 256; others are straight."""


def lifelike(identity: Identity, number: int, size: int = 256) -> Portrait:
    """One of a person's lifelike portraits, RGB [size, size, 3], with the five landmarks."""
    r = generator("lifelike", identity.number, number)
    turn = float(r.normal(0, 0.08))
    x, y = 0.5 + float(r.uniform(-0.05, 0.05)), 0.5 + float(r.uniform(-0.05, 0.05))
    return _Portrait(identity, Frame(x, y, _SCALE * float(r.uniform(0.85, 1.1)), turn), r, size).paint()


class _Portrait(NaturalFace):
    """A person at natural proportions, from the background to the glasses."""

    def paint(self) -> Portrait:
        person, r = self.person, self.r
        self.pixels[:] = _background(self.size, r)
        drift = 0.35 * float(np.sin(self.turn.yaw))
        shaped = replace(person, face_width=self.width * float(r.uniform(0.97, 1.08)))
        behind = self.drawn(lambda canvas: wardrobe.hair_behind(canvas, shaped, self.frame))[0]
        self._hair(behind, 0.75)
        scene = sample_scene("lifelike", person.number, int(r.integers(1 << 30)))
        covered, cloth = self.drawn(lambda canvas: wardrobe.body(canvas, person, scene, replace(self.frame, turn=0.0)))
        self.put(covered, cloth * self.grain(1.5, 1.5, 0.08))
        marks = self.landmarks()
        self._head(marks)
        if person.hair_style != "bald":
            front = self.drawn(lambda canvas: wardrobe.hair_in_front(canvas, shaped, self._hairline(), drift))[0]
            shadow = np.roll(front, round(0.07 * self.frame.scale * self.size), 0)
            self.put(blurred(shadow, 0.05 * self.size * self.frame.scale) * (1 - front), self.shaded(0.5), 0.5)
            self._hair(front, 1.0, float(r.uniform(0.75, 1.0)) if person.hair_style == "short" else 1.0)
        if person.glasses != "none":
            self.glasses(marks)
        image = np.clip(self.pixels, 0, 255).astype(np.uint8)
        return Portrait(image, (self.frame(marks) * self.size).astype(np.float32))

    def _hairline(self) -> Frame:
        """The hair sits higher on a natural forehead, and not always as high."""
        up = float(self.r.uniform(0.05, 0.3))
        if self.person.hair_style == "fringe":
            up = float(self.r.uniform(-0.1, 0.15))
        return replace(self.frame, y=self.frame.y - up * self.frame.scale)

    def _head(self, marks: Points) -> None:
        p, r, w, h = self.person, self.r, self.width, self.length
        for side in (-1, 1):
            ear = oval(side * 1.0 * w, 0.2 * h, 0.16 * p.ear_size, 0.3 * p.ear_size)
            self.put(self.mask(ear, 0.03), self.shaded(0.75))
        jaw, chin = 0.76 * p.jaw, 0.34 * p.chin
        half = points(
            (0, -1.55),
            (0.6, -1.4),
            (0.93, -0.8),
            (0.99, 0.0),
            (0.95, 0.5),
            (min(jaw, 0.94), 1.0),
            (min(chin, jaw), 1.4),
            (0, 1.5),
        )
        outline = smooth(mirrored(half * [w, h]))
        head = self.mask(outline, 0.02)
        self.put(np.roll(blurred(head, 0.12 * self.unit), round(0.18 * self.unit), 0), self.shaded(0.45), 0.7)
        light = self._light()
        pores, patches = self.grain(0.8, 0.8, float(r.uniform(0, 0.03))), self.grain(9, 9, float(r.uniform(0, 0.05)))
        self.put(head, np.array(self.skin, np.float32) * light * pores * patches)
        self.cheeks()
        for side in (0, 1):
            self.eye(marks[side], side * 2 - 1)
        self.nose(marks)
        self.beard(outline, marks, below_lips=True)
        self.mouth(marks)
        self.beard(outline, marks, below_lips=False)
        self._folds()

    def _folds(self) -> None:
        """Beside the mouth and over the brows, of some people."""
        r, w = self.r, self.width
        if r.uniform() < 0.4:
            for side in (-1, 1):
                fold = points((side * 0.2 * w, 0.6), (side * 0.42 * w, 0.95))
                self.line(fold, 0.03, self.shaded(0.65), 0.03, float(r.uniform(0.1, 0.5)))
            for y in (-0.55, -0.68):
                self.line(
                    points((-0.5 * w, y), (0, y - 0.03), (0.5 * w, y)), 0.02, self.shaded(0.7), 0.02, float(r.uniform(0, 0.4))
                )

    def _light(self) -> Pixels:
        """A lamp at a random place over the head as an ellipsoid: [size, size, 3], mean about 1 where the face is."""
        r = self.r
        x, y = self.grid()
        nx, ny = np.clip(x / (1.12 * self.width), -1, 1), np.clip((y - 0.05) / 1.75, -1, 1)
        nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0.02, 1))
        angle, tilt = r.uniform(-1.1, 1.1), r.uniform(-0.2, 0.8)
        lamp = np.array([np.sin(angle), -np.sin(tilt), np.cos(angle) * np.cos(tilt) + 0.3])
        lamp /= np.linalg.norm(lamp)
        ambient = r.uniform(0.35, 0.85)
        lit = ambient + (1 - ambient) * np.clip(nx * lamp[0] + ny * lamp[1] + nz * lamp[2], 0, 1) * 1.2
        warm = 1 + (lit[..., None] - 1) * np.array([0.9, 1.0, 1.08])
        return np.asarray(warm, np.float32)

    def _hair(self, mask: Mask, bright: float, opacity: float = 1.0) -> None:
        across, along = _STRAND.get(self.person.hair_style, (0.9, 9.0))
        grain = self.grain(across, along, float(self.r.uniform(0.05, 0.35))) * self.grain(12, 12, 0.12)
        colour = np.array(self.hair, np.float32) * bright * grain
        soft = blurred(mask, 0.02 * self.unit)
        x, y = self.grid()
        shine = np.exp(-(((x + 0.3) / 0.6) ** 2) - ((y + 1.1) / 0.2) ** 2)[..., None] * float(self.r.uniform(0, 0.35))
        self.put(soft, colour + (np.array(lighter(self.hair, 0.5), np.float32) - colour) * shine * grain, opacity)


def _background(size: int, r: Random) -> Pixels:
    """A plain wall, a blurred place of the world, or spots of light: [size, size, 3]."""
    kind = r.uniform()
    if kind < 0.4:
        scene = sample_scene("lifelike background", int(r.integers(1 << 30)))
        canvas = Canvas(size, 1)
        places.DRAW[scene.place](canvas, scene.time, r)
        return blurred(canvas.picture().astype(np.float32), float(r.uniform(0.5, 8)) * size / 256)
    a, b = (r.uniform(0, 255) + r.uniform(-40, 40, 3) for _ in range(2))
    ramp = np.linspace(0, 1, size)
    share = (ramp[:, None] if r.uniform() < 0.5 else ramp[None, :]) * np.ones((size, size))
    wall = np.clip(a + (b - a) * share[..., None], 0, 255).astype(np.float32)
    if kind < 0.7:
        spots = r.standard_normal((12, 12, 3)).astype(np.float32) * float(r.uniform(10, 60))
        wall = wall + np.asarray(cv2.resize(spots, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)
    return np.asarray(np.clip(wall, 0, 255), np.float32)
