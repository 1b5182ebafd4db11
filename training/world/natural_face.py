"""A face at natural proportions: cheeks, eyes, nose, mouth, beard and glasses, laid softly over skin that is there; and its landmarks.

In the head units of `wardrobe`, as `face` is, which draws the same people flat.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .canvas import Colour, Frame, Points, darker, lighter, mirrored, mix, oval, points, smooth
from .face import Turn
from .paint import Painting, Random
from .people import EXPRESSIONS, EYE_COLOURS, Identity

_HAIR: Mapping[str, tuple[Colour, Colour]] = {
    "black": ((18, 15, 17), (62, 52, 50)), "brown": ((50, 33, 24), (122, 86, 62)), "auburn": ((84, 42, 28), (156, 84, 54)),
    "red": ((136, 68, 36), (216, 124, 72)), "blonde": ((138, 108, 70), (238, 208, 152)), "grey": ((96, 94, 94), (174, 172, 172)),
    "white": ((186, 182, 178), (246, 243, 240)), "blue": ((36, 56, 108), (92, 134, 204)),
}  # fmt: skip
"""Name of a drawn colour -> the darkest and the lightest hair that goes by it."""


class NaturalFace(Painting):
    """A person's features; light, pose and expression are drawn from `r`."""

    def __init__(self, identity: Identity, frame: Frame, r: Random, size: int) -> None:
        super().__init__(size, frame, r)
        self.person = identity
        self.turn = Turn(float(np.clip(r.normal(0, 0.22), -0.55, 0.55)), float(r.normal(0, 0.08)))
        self.hair = mix(*_HAIR[identity.hair_colour], float(r.uniform()))
        self.skin = _jittered(identity.skin_colour, r, 0.05)
        self.expression = str(r.choice(EXPRESSIONS))
        self.width = identity.face_width * float(r.uniform(0.86, 1.02))
        self.length = identity.face_length * float(r.uniform(0.97, 1.08))

    def landmarks(self) -> Points:
        """In head units, as `face.features`; a natural mouth lies lower, and the eyes nearer to each other."""
        p, r, w = self.person, self.r, self.width
        eye, mouth = 0.41 * p.eye_spacing**0.7 * w, 0.35 * p.mouth_width * w * float(r.uniform(0.9, 1.1))
        nose, lips = 0.56 * p.nose_length**0.7 * float(r.uniform(0.92, 1.08)), 0.93 * float(r.uniform(0.94, 1.06))
        spots = [(-eye, 0.0), (eye, 0.0), (0.0, nose), (-mouth, lips), (mouth, lips)]
        placed = [self.turn.place(x, y)[:2] for x, y in spots]
        placed[2] = (placed[2][0] + 0.22 * float(np.sin(self.turn.yaw)), placed[2][1])
        return np.array(placed) * points((1, self.length))

    def cheeks(self) -> None:
        p, w, h = self.person, self.width, self.length
        for side in (-1, 1):
            x, y, narrow = self.turn.place(0.55 * w * side, 0.5)
            cheek = self.mask(oval(x, y * h, 0.26 * narrow, 0.18), 0.16)
            self.put(cheek, np.array(mix(self.skin, (214, 92, 84), 0.4), np.float32), 0.55 * p.blush)
            if p.freckles > 0.15:
                for _ in range(round(26 * p.freckles)):
                    dot = oval(x + 0.34 * self.r.normal() * narrow, 0.42 * h + 0.2 * self.r.normal(), 0.02, 0.02)
                    self.put(self.mask(dot, 0.02), self.shaded(0.6), 0.7)
        if p.mole:
            spot = [(-0.5, 0.62), (0.5, 0.62), (0.2, 1.2)][p.mole - 1]
            x, y, _ = self.turn.place(spot[0] * w, spot[1])
            self.put(self.mask(oval(x, y * h, 0.035, 0.035), 0.02), self.shaded(0.35), 0.9)

    def eye(self, mark: Points, side: int) -> None:
        p, r = self.person, self.r
        x, y = mark
        narrow = self.turn.place(0.42 * side * self.width, 0)[2] ** 0.7
        wide = {"surprised": 1.25, "laughing": 0.66, "smiling": 0.85}.get(self.expression, 1.0)
        size = p.eye_size**0.8 * float(r.uniform(0.9, 1.1))
        rx, ry = 0.2 * size * narrow, 0.08 * size * wide * float(r.uniform(0.8, 1.25))
        self.put(self.mask(oval(x, y - 0.05, rx * 1.4, 0.2), 0.16), self.shaded(0.6), float(r.uniform(0.15, 0.5)))
        local = Frame(x, y, 1.0, -side * 0.6 * p.eye_slant)
        almond = local(
            smooth(
                points((-rx, 0.015), (-rx * 0.4, -ry), (rx * 0.4, -ry), (rx, 0.01), (rx * 0.4, ry * 0.8), (-rx * 0.4, ry * 0.8))
            )
        )
        inside = self.mask(almond, 0.012)
        self.put(inside, np.array((222, 214, 208), np.float32) * float(r.uniform(0.75, 1.0)))
        gaze, iris = 0.06 * float(r.normal()), 0.088 * size**0.5
        for radius, colour in (
            (iris, mix(darker(EYE_COLOURS[p.eye_colour], 0.3), (90, 80, 70), 0.25)),
            (iris * 0.45, (18, 15, 16)),
        ):
            self.put(self.mask(local(oval(gaze, -0.01, radius, radius)), 0.012) * inside, np.array(colour, np.float32))
        self.put(
            self.mask(local(oval(gaze - 0.03, -0.04, 0.02, 0.02)), 0.012) * inside, np.array((250, 250, 250), np.float32), 0.9
        )
        lashes = 0.034 if p.noun == "woman" else 0.02
        lid = local(
            smooth(
                points((-rx * 1.05, 0.02), (-rx * 0.45, -ry * 1.05), (rx * 0.45, -ry * 1.05), (rx * 1.08, 0.0)), closed=False
            )
        )
        self.line(lid, lashes * float(r.uniform(0.8, 1.6)), (34, 24, 22), 0.015, 0.85)
        self.line(lid + np.array([0, -0.06]), 0.02, self.shaded(0.6), 0.02, float(r.uniform(0.1, 0.6)))
        self.line(
            local(points((-rx * 0.9, 0.04), (0, ry + 0.02), (rx * 0.9, 0.03))),
            0.02,
            self.shaded(0.6),
            0.02,
            float(r.uniform(0.2, 0.6)),
        )
        lift, inner = {"surprised": -0.1}.get(self.expression, 0.0), {"sad": -0.08}.get(self.expression, 0.0)
        level, arch = -0.27 + lift + float(r.uniform(-0.05, 0.05)), 0.08 * p.brow_arch
        brow = smooth(
            points((-side * rx * 1.2, level + 0.05 + inner), (0, level - arch), (side * rx * 1.55, level + 0.06)), closed=False
        )
        colour = mix(darker(self.hair, 0.35), self.skin, float(r.uniform(0.05, 0.35)))
        self.line(
            brow + np.array([x, y]),
            0.085 * p.brow_thickness * float(r.uniform(0.8, 1.2)),
            colour,
            0.025,
            float(r.uniform(0.65, 0.95)),
        )

    def nose(self, marks: Points) -> None:
        r = self.r
        x, y = marks[2]
        top_x, half = 0.5 * (marks[0, 0] + marks[1, 0]), 0.23 * self.person.nose_width**0.8
        side = 1 if r.uniform() < 0.5 else -1
        edge = points(
            (top_x + side * 0.12, 0.05), (top_x + side * 0.02, 0.05), (x + side * 0.02, y - 0.1), (x + side * half, y + 0.04)
        )
        self.put(self.mask(edge, 0.09), self.shaded(0.62), float(r.uniform(0.2, 0.65)))
        ridge = points((top_x - 0.03, 0.1), (top_x + 0.03, 0.1), (x + 0.05, y - 0.06), (x - 0.05, y - 0.06))
        self.put(self.mask(ridge, 0.06), np.array(lighter(self.skin, 0.5), np.float32), float(r.uniform(0.1, 0.5)))
        self.put(self.mask(oval(x, y + 0.08, half * 0.9, 0.05), 0.05), self.shaded(0.5), float(r.uniform(0.35, 0.7)))
        for wing in (-1, 1):
            self.put(self.mask(oval(x + wing * half * 0.5, y + 0.06, half * 0.28, 0.035), 0.025), self.shaded(0.25), 0.75)
            curve = oval(x + wing * half * 0.8, y, half * 0.28, 0.1, -70 if wing > 0 else 110, 70 if wing > 0 else 250)
            self.line(curve, 0.025, self.shaded(0.6), 0.03, float(r.uniform(0.3, 0.7)))

    def mouth(self, marks: Points) -> None:
        p, r = self.person, self.r
        (x0, y0), (x1, y1) = marks[3], marks[4]
        x, y, half = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2
        made_up = p.noun == "woman" and r.uniform() < 0.6
        lip = mix(darker(self.skin, 0.16), (186, 66, 74), float(r.uniform(0.4, 0.75) if made_up else r.uniform(0.2, 0.45)))
        full, bend = 0.085 * p.lip_fullness, {"smiling": 0.12, "laughing": 0.14, "sad": -0.09}.get(self.expression, 0.0)
        half *= 1.12 if bend > 0 else 1.0
        gap = {"laughing": 0.17, "surprised": 0.2}.get(
            self.expression, 0.1 if self.expression == "smiling" and r.uniform() < 0.5 else 0.0
        )
        corner = -bend * 0.6
        upper = (
            (-half, corner),
            (-half * 0.3, -full + bend * 0.2),
            (0, -full * 0.8 + bend * 0.25),
            (half * 0.3, -full + bend * 0.2),
            (half, corner),
        )
        lower = (
            (half * 0.55, full * 1.1 + gap + bend * 0.35),
            (0, full * 1.4 + gap + bend * 0.5),
            (-half * 0.55, full * 1.1 + gap + bend * 0.35),
        )
        at = np.array([x, y])
        self.put(self.mask(smooth(points(*upper, *lower)) + at, 0.025), np.array(lip, np.float32) * self.grain(1, 1, 0.06))
        if gap:
            hole = smooth(
                points(
                    (-half * 0.88, corner),
                    (0, bend * 0.4),
                    (half * 0.88, corner),
                    (half * 0.45, gap + bend * 0.4),
                    (-half * 0.45, gap + bend * 0.4),
                )
            )
            inside = self.mask(hole + at, 0.015)
            self.put(inside, np.array((62, 24, 26), np.float32))
            teeth = self.mask(
                smooth(
                    points(
                        (-half * 0.8, corner - 0.02),
                        (half * 0.8, corner - 0.02),
                        (half * 0.4, gap * 0.75 + bend * 0.4),
                        (-half * 0.4, gap * 0.75 + bend * 0.4),
                    )
                )
                + at,
                0.02,
            )
            if self.expression != "surprised":
                self.put(inside * teeth, np.array((232, 226, 218), np.float32) * float(r.uniform(0.8, 1.0)))
        else:
            line = smooth(
                points(
                    (-half, corner), (-half * 0.4, bend * 0.25), (0, bend * 0.35), (half * 0.4, bend * 0.25), (half, corner)
                ),
                closed=False,
            )
            self.line(line + at, 0.025, darker(lip, 0.6), 0.02, 0.85)
        self.put(
            self.mask(oval(x, y + full * 1.4 + gap + 0.1, half * 0.6, 0.04), 0.06), self.shaded(0.6), float(r.uniform(0.2, 0.5))
        )

    def beard(self, outline: Points, marks: Points, below_lips: bool) -> None:
        """What grows around the mouth, `below_lips`, and over it."""
        p, r, w, h = self.person, self.r, self.width, self.length
        if p.beard == "none":
            return
        (x0, y), (x1, _) = marks[3], marks[4]
        x, half = (x0 + x1) / 2, (x1 - x0) / 2
        hair = np.array(mix(darker(self.hair, 0.2), self.skin, 0.1), np.float32) * self.grain(0.8, 2.2, 0.3)
        drift = 0.5 * (x0 + x1)
        if below_lips and p.beard in ("full", "stubble"):
            edge = 0.55 + float(r.uniform(-0.1, 0.12))
            lower = outline[outline[:, 1] > edge * h]
            right, left = lower[lower[:, 0] >= 0], lower[lower[:, 0] < 0]
            ring = np.concatenate([right[np.argsort(right[:, 1])], left[np.argsort(-left[:, 1])]])
            if p.beard == "full":
                ring[:, 1] += np.clip(ring[:, 1] - 0.9 * h, 0, None) * float(r.uniform(0.0, 0.45))
            inner = points(
                (-0.72 * w, edge * h),
                (-0.46 * w + drift, 0.78 * h),
                (drift, 0.78 * h),
                (0.46 * w + drift, 0.78 * h),
                (0.72 * w, edge * h),
            )
            mask = self.mask(np.concatenate([ring, inner]), 0.06)
            thick = float(r.uniform(0.75, 0.97)) if p.beard == "full" else float(r.uniform(0.2, 0.45))
            self.put(mask[..., None] * np.clip(self.grain(0.7, 1.2, 0.25), 0, 1.3), hair, thick)
        elif below_lips and p.beard == "goatee":
            chin = smooth(points((-0.3, 0.12), (0.3, 0.12), (0.3, 0.45), (0, 0.62), (-0.3, 0.45)) + np.array([x, y]))
            self.put(self.mask(chin, 0.06), hair, float(r.uniform(0.6, 0.95)))
        if not below_lips and p.beard in ("moustache", "goatee", "full"):
            wing = points((0, -0.2), (0.7, -0.17), (1.2, 0.02), (1.1, 0.08), (0.5, -0.07), (0, -0.08)) * [half, 1]
            shape = smooth(mirrored(wing)) + np.array([x, y])
            self.put(self.mask(shape, 0.04), hair, float(r.uniform(0.6, 0.95)))

    def glasses(self, marks: Points) -> None:
        p, r = self.person, self.r
        colour = [(30, 28, 32), (120, 50, 48), (150, 116, 70), (110, 110, 116)][int(r.integers(4))]
        (x0, y0), (x1, y1) = marks[0], marks[1]
        gap, thick = (x1 - x0) / 2, float(r.uniform(0.025, 0.075))
        for x, y in ((x0, y0), (x1, y1)):
            rx, ry = {"round": (gap * 0.74, 0.3), "square": (gap * 0.78, 0.25), "wide": (gap * 0.84, 0.19)}[p.glasses]
            lens = oval(x, y + 0.03, rx, ry)
            if p.glasses != "round":
                lens = smooth(
                    points((-rx, -ry), (rx, -ry), (rx * 0.9, ry), (-rx * 0.9, ry)) + np.array([x, y + 0.03]), per_segment=3
                )
            self.put(self.mask(lens, 0.02), np.array((225, 236, 244), np.float32), float(r.uniform(0.02, 0.25)))
            self.line(lens, thick, colour, 0.01, 0.95, closed=True)
        for side, x, y in ((-1, x0, y0), (1, x1, y1)):
            self.line(points((x + side * gap * 0.78, y - 0.02), (side * self.width, y)), thick, colour, 0.01, 0.9)
        self.line(points((x0 + gap * 0.74, y0), (x1 - gap * 0.74, y1)), thick, colour, 0.01, 0.95)


def _jittered(colour: Colour, r: Random, spread: float) -> Colour:
    a, b, c = (float(np.clip(value * r.uniform(1 - spread, 1 + spread), 0, 255)) for value in colour)
    return a, b, c
