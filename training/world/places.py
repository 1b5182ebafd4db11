"""The background of a picture: one drawing function per place, and the colours of the sky.

Everything is in picture units: x and y in [0, 1], y downwards. The person covers the middle; what tells places apart is at the
sides and above.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .canvas import Canvas, Colour, Points, darker, lighter, mix, oval, points, smooth

Random = np.random.Generator
SKY: Mapping[str, tuple[Colour, Colour]] = {
    "day": ((104, 178, 238), (206, 234, 250)),
    "sunset": ((128, 92, 158), (255, 178, 104)),
    "night": ((14, 20, 52), (48, 62, 112)),
}
TINT: Mapping[str, tuple[Colour, float]] = {
    "day": ((255, 255, 255), 0.0),
    "sunset": ((232, 108, 62), 0.24),
    "night": ((14, 20, 62), 0.56),
}
"""What the hour does to the colours of a place: a colour and its share."""


def lit(colour: Colour, time: str) -> Colour:
    tint, share = TINT[time]
    return mix(colour, tint, share)


def _box(x0: float, y0: float, x1: float, y1: float) -> Points:
    return points((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def _sky(canvas: Canvas, time: str, r: Random, clouds: int = 3) -> None:
    canvas.gradient(*SKY[time])
    x = float(r.choice([r.uniform(0.1, 0.25), r.uniform(0.75, 0.9)]))
    if time == "night":
        for _ in range(26):
            star = float(r.uniform(0.002, 0.006))
            canvas.fill(oval(float(r.uniform(0, 1)), float(r.uniform(0, 0.55)), star, star), (236, 238, 255))
        canvas.fill(oval(x, 0.16, 0.055, 0.055), (250, 244, 214))
        canvas.fill(oval(x + 0.024, 0.148, 0.046, 0.046), SKY["night"][0])
        return
    low = time == "sunset"
    canvas.soft(oval(x, 0.42 if low else 0.15, 0.12, 0.12), (255, 240, 190), 0.1, opacity=0.6)
    canvas.fill(oval(x, 0.42 if low else 0.15, 0.055, 0.055), (255, 214, 120) if low else (255, 244, 196))
    for _ in range(clouds):
        cx, cy = float(r.uniform(0, 1)), float(r.uniform(0.06, 0.34))
        for dx, radius in ((-0.06, 0.03), (0.0, 0.045), (0.06, 0.032)):
            canvas.fill(oval(cx + dx, cy, radius * 1.5, radius * 0.8), (255, 196, 170) if low else (255, 255, 255), opacity=0.8)


def _ground(canvas: Canvas, horizon: float, colour: Colour, time: str) -> None:
    canvas.gradient(lit(lighter(colour, 0.12), time), lit(darker(colour, 0.15), time), horizon, 1.0)


def _beach(canvas: Canvas, time: str, r: Random) -> None:
    _sky(canvas, time, r)
    _ground(canvas, 0.46, (38, 140, 186), time)
    for y in (0.52, 0.58, 0.64):
        canvas.stroke(points((0, y), (1, y)), lit((170, 220, 232), time), 0.006)
    canvas.fill(smooth(points((0, 0.72), (0.3, 0.69), (0.7, 0.71), (1, 0.68)), closed=False), lit((240, 246, 240), time))
    _ground(canvas, 0.71, (240, 214, 156), time)
    side = float(r.choice([0.08, 0.92]))
    lean = 0.05 if side < 0.5 else -0.05
    trunk = smooth(points((side, 0.8), (side + lean * 0.3, 0.55), (side + lean, 0.3)), closed=False)
    canvas.stroke(trunk, lit((136, 96, 58), time), 0.03)
    for angle in range(-170, 20, 38):
        tip = np.radians(angle)
        end = (side + lean + 0.17 * np.cos(tip), 0.3 + 0.13 * np.sin(tip) + 0.05)
        leaf = smooth(points((side + lean, 0.29), ((side + lean + end[0]) / 2, (0.3 + end[1]) / 2 - 0.05), end), closed=False)
        canvas.stroke(leaf, lit((62, 144, 80), time), 0.026)


def _forest(canvas: Canvas, time: str, r: Random) -> None:
    canvas.gradient(lit((176, 212, 170), time), lit((102, 158, 104), time))
    for layer in range(3):
        green = lit(mix((124, 176, 116), (26, 84, 54), layer / 2), time)
        for x in np.linspace(-0.05, 1.05, 8 - layer) + r.uniform(-0.05, 0.05, 8 - layer):
            height, base = 0.36 + 0.12 * layer, 0.62 + 0.13 * layer
            canvas.fill(_box(x - 0.012, base - 0.1, x + 0.012, base + 0.1), lit((92, 64, 44), time))
            for k in range(3):
                top, half = base - height + k * height * 0.24, (0.05 + 0.028 * k) * (1 + 0.2 * layer)
                canvas.fill(points((x, top), (x + half, top + height * 0.42), (x - half, top + height * 0.42)), green)
    _ground(canvas, 0.84, (72, 118, 64), time)


def _city(canvas: Canvas, time: str, r: Random) -> None:
    _sky(canvas, time, r, clouds=2)
    for layer, shade in enumerate(((150, 164, 186), (96, 106, 130))):
        x = -0.05
        while x < 1.05:
            width, top = float(r.uniform(0.1, 0.17)), float(r.uniform(0.14, 0.36) + 0.12 * layer)
            canvas.fill(_box(x, top, x + width, 1), lit(mix(shade, (120, 92, 84), float(r.uniform(0, 0.5))), time))
            glow = (255, 220, 128) if time != "day" else (206, 226, 240)
            for wx in np.arange(x + 0.02, x + width - 0.025, 0.036):
                for wy in np.arange(top + 0.03, 0.8, 0.06):
                    if r.uniform() < (0.75 if layer else 0.5):
                        canvas.fill(_box(wx, wy, wx + 0.018, wy + 0.03), glow)
            x += width + 0.008
    _ground(canvas, 0.86, (92, 94, 104), time)


def _mountains(canvas: Canvas, time: str, r: Random) -> None:
    _sky(canvas, time, r)
    for layer, shade in enumerate(((132, 150, 184), (92, 106, 144))):
        for x in (r.uniform(0.0, 0.2), r.uniform(0.4, 0.6), r.uniform(0.8, 1.0)):
            top, half = float(r.uniform(0.14, 0.26) + 0.16 * layer), float(r.uniform(0.26, 0.36))
            slope = (0.86 - top) / half
            canvas.fill(points((x, top), (x + half, 0.86), (x - half, 0.86)), lit(shade, time))
            canvas.fill(points((x, top), (x + half, 0.86), (x + 0.05, 0.86)), lit(darker(shade, 0.2), time))
            cap = 0.1
            zigzag = [
                (x + cap / slope * k, top + cap * (1.25 if j % 2 else 0.75)) for j, k in enumerate((0.9, 0.35, -0.2, -0.7))
            ]
            canvas.fill(points((x, top), *zigzag), lit((246, 250, 255), time))
    _ground(canvas, 0.8, (108, 156, 92), time)


def _desert(canvas: Canvas, time: str, r: Random) -> None:
    _sky(canvas, time, r, clouds=0)
    for y, shade in ((0.5, (232, 172, 104)), (0.62, (222, 152, 84)), (0.76, (206, 132, 70))):
        wave = smooth(
            points((0, y), (0.25, y - r.uniform(0, 0.07)), (0.6, y + 0.03), (1, y - r.uniform(0, 0.07))), closed=False
        )
        canvas.fill(np.concatenate([wave, points((1, 1), (0, 1))]), lit(shade, time))
    for x in (float(r.uniform(0.06, 0.14)), float(r.uniform(0.84, 0.94))):
        green, h = lit((78, 132, 76), time), float(r.uniform(0.22, 0.3))
        canvas.stroke(points((x, 0.78), (x, 0.78 - h)), green, 0.042)
        canvas.stroke(points((x, 0.68), (x + 0.055, 0.66), (x + 0.055, 0.58)), green, 0.026)
        canvas.stroke(points((x, 0.64), (x - 0.055, 0.62), (x - 0.055, 0.54)), green, 0.026)


def _snow(canvas: Canvas, time: str, r: Random) -> None:
    canvas.gradient(lit((172, 196, 222), time), lit((228, 236, 244), time))
    for x in (0.04, 0.2, 0.8, 0.96):
        x = x + float(r.uniform(-0.03, 0.03))
        top = float(r.uniform(0.26, 0.38))
        for k in range(3):
            y, half = top + 0.13 * k, 0.07 + 0.03 * k
            canvas.fill(points((x, y), (x + half, y + 0.2), (x - half, y + 0.2)), lit((70, 112, 116), time))
            canvas.fill(
                points((x, y), (x + half * 0.55, y + 0.11), (x, y + 0.085), (x - half * 0.55, y + 0.11)),
                lit((250, 252, 255), time),
            )
    hill = smooth(points((0, 0.76), (0.3, 0.7), (0.7, 0.74), (1, 0.7)), closed=False)
    canvas.fill(np.concatenate([hill, points((1, 1), (0, 1))]), lit((246, 250, 255), time))
    for _ in range(50):
        flake = float(r.uniform(0.004, 0.009))
        canvas.fill(oval(float(r.uniform(0, 1)), float(r.uniform(0, 1)), flake, flake), lit((255, 255, 255), time))


def _library(canvas: Canvas, time: str, r: Random) -> None:
    canvas.gradient((112, 74, 50), (88, 56, 38))
    for shelf in range(5):
        y, x = 0.02 + shelf * 0.2, 0.0
        while x < 1:
            width, height = float(r.uniform(0.022, 0.045)), float(r.uniform(0.11, 0.155))
            cover = [(176, 70, 60), (64, 104, 142), (206, 172, 98), (88, 130, 92), (128, 92, 132), (222, 210, 186)][
                int(r.integers(6))
            ]
            canvas.fill(_box(x, y + 0.165 - height, x + width - 0.004, y + 0.165), cover)
            x += width
        canvas.fill(_box(0, y + 0.165, 1, y + 0.185), (150, 104, 68))


def _garden(canvas: Canvas, time: str, r: Random) -> None:
    _sky(canvas, time, r)
    for x in np.linspace(0, 1, 6):
        hedge = float(r.uniform(0.13, 0.18))
        canvas.fill(oval(x, 0.62 + float(r.uniform(-0.05, 0.05)), hedge, hedge), lit((84, 152, 84), time))
    _ground(canvas, 0.62, (110, 176, 92), time)
    for _ in range(46):
        x, y = float(r.uniform(0, 1)), float(r.uniform(0.5, 1))
        petal = [(240, 112, 150), (250, 206, 90), (246, 246, 250), (178, 112, 208), (238, 92, 80)][int(r.integers(5))]
        for angle in np.arange(5) * 1.257:
            canvas.fill(oval(x + 0.016 * np.cos(angle), y + 0.016 * np.sin(angle), 0.012, 0.012), lit(petal, time))
        canvas.fill(oval(x, y, 0.009, 0.009), lit((250, 220, 120), time))


def _space(canvas: Canvas, time: str, r: Random) -> None:
    canvas.gradient((16, 10, 40), (44, 22, 74))
    canvas.soft(oval(float(r.uniform(0.1, 0.9)), 0.4, 0.3, 0.16), (124, 60, 150), 0.2, opacity=0.55)
    for _ in range(60):
        star = float(r.uniform(0.002, 0.007))
        canvas.fill(oval(float(r.uniform(0, 1)), float(r.uniform(0, 1)), star, star), (240, 240, 255))
    x = float(r.choice([0.14, 0.86]))
    canvas.fill(oval(x, 0.24, 0.11, 0.11), (226, 150, 96))
    canvas.soft(oval(x + 0.04, 0.27, 0.08, 0.09), (120, 62, 70), 0.05, opacity=0.5)
    canvas.stroke(oval(x, 0.24, 0.18, 0.045), (240, 212, 160), 0.014, closed=True)
    canvas.fill(oval(1 - x, 0.62, 0.05, 0.05), (112, 176, 214))


def _stage(canvas: Canvas, time: str, r: Random) -> None:
    canvas.gradient((126, 22, 36), (92, 14, 30))
    for x in np.arange(0, 1.05, 0.1):
        canvas.soft(_box(x, 0, x + 0.04, 1), (190, 50, 58), 0.03, opacity=0.8)
    for x in (0.08, 0.92):
        beam = points((x - 0.02, 0), (x + 0.02, 0), (0.5 + 0.35 * (x - 0.5) + 0.16, 1), (0.5 + 0.35 * (x - 0.5) - 0.16, 1))
        canvas.soft(beam, (255, 240, 190), 0.03, opacity=0.35)
        canvas.fill(oval(x, 0.01, 0.05, 0.035), (255, 248, 220))
    for x in np.arange(0, 1.01, 0.125):
        canvas.fill(oval(x, 0.0, 0.075, 0.085), (232, 184, 84))
        canvas.fill(oval(x, -0.02, 0.065, 0.075), (160, 30, 44))


def _harbour(canvas: Canvas, time: str, r: Random) -> None:
    _sky(canvas, time, r)
    _ground(canvas, 0.56, (62, 112, 138), time)
    for x in (float(r.uniform(0.1, 0.2)), float(r.uniform(0.8, 0.9))):
        canvas.stroke(points((x, 0.62), (x, 0.2)), lit((96, 72, 56), time), 0.012)
        canvas.fill(points((x + 0.012, 0.22), (x + 0.13, 0.55), (x + 0.012, 0.55)), lit((248, 244, 234), time))
        canvas.fill(points((x - 0.012, 0.28), (x - 0.1, 0.55), (x - 0.012, 0.55)), lit((222, 92, 78), time))
        hull = points((x - 0.14, 0.58), (x + 0.15, 0.58), (x + 0.1, 0.66), (x - 0.09, 0.66))
        canvas.fill(hull, lit((142, 62, 52), time))
    _ground(canvas, 0.84, (150, 116, 82), time)
    for x in np.arange(0.03, 1, 0.11):
        canvas.stroke(points((x, 0.84), (x - 0.03, 1)), lit((108, 80, 56), time), 0.008)


def _kitchen(canvas: Canvas, time: str, r: Random) -> None:
    canvas.gradient((250, 238, 214), (238, 220, 190))
    for y in np.arange(0.0, 0.6, 0.1):
        for x in np.arange(0.05 * (round(y * 10) % 2) - 0.1, 1, 0.1):
            canvas.fill(_box(x + 0.004, y + 0.004, x + 0.096, y + 0.096), (222, 236, 234))
    for x in (0.0, 0.72):
        canvas.fill(_box(x, 0.0, x + 0.28, 0.25), (112, 158, 156))
        canvas.stroke(points((x + 0.14, 0.02), (x + 0.14, 0.23)), (82, 124, 124), 0.008)
    for x in np.arange(0.04, 1, 0.12):
        pot = [(214, 104, 72), (236, 186, 82), (88, 124, 170)][int(r.integers(3))]
        canvas.fill(_box(x, 0.47, x + 0.07, 0.57), pot)
        canvas.fill(_box(x - 0.006, 0.455, x + 0.076, 0.475), darker(pot, 0.25))
    canvas.fill(_box(0, 0.57, 1, 0.61), (150, 104, 70))
    canvas.fill(_box(0, 0.61, 1, 1), (124, 168, 164))
    for x in np.arange(0.0, 1, 0.25):
        canvas.stroke(_box(x + 0.02, 0.65, x + 0.23, 0.97), (92, 134, 132), 0.008, closed=True)


DRAW: Mapping[str, Callable[[Canvas, str, Random], None]] = {
    "beach": _beach, "forest": _forest, "city": _city, "mountains": _mountains, "desert": _desert, "snow": _snow,
    "library": _library, "garden": _garden, "space": _space, "stage": _stage, "harbour": _harbour, "kitchen": _kitchen,
}  # fmt: skip
"""Place -> its drawing."""
