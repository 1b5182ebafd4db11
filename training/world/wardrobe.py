"""What a person wears, and the hair: drawn behind, around and above a face.

Head units: the origin is between the eyes' height and the head's middle, x = 1 the side of an average head, y downwards, the
chin near y = 1.3. Clothes are drawn in the upright frame of the body, hair and hats in the turned frame of the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .canvas import Canvas, Colour, Frame, Points, darker, lighter, mirrored, oval, points, smooth, symmetric
from .people import COLOURS, HAIR_COLOURS, Identity, Scene

_DARK: Colour = (52, 50, 60)
_GOLD: Colour = (242, 196, 70)
_STRAW: Colour = (232, 200, 128)


@dataclass(frozen=True)
class _Cap:
    """Hair that covers the skull down to an edge. Head units, for an average face."""

    edge: tuple[tuple[float, float], ...]
    """The hairline from right to left; it follows a turn of the head."""
    top: float = -1.46
    side: float = 1.1

    def outline(self, w: float, drift: float) -> Points:
        """For a face of width `w`."""
        x = self.side * w
        skull = [(-x, 0.02), (-x, -0.62), (-0.78 * w, -1.2), (0, self.top), (0.78 * w, -1.2), (x, -0.62), (x, 0.02)]
        return smooth(points(*skull, *[(x * w + drift, y) for x, y in self.edge]), per_segment=6)


_LONG = _Cap(((1.0, 0.3), (0.88, -0.4), (0.12, -1.02), (-0.5, -0.66), (-0.9, -0.3), (-1.0, 0.3)), top=-1.54, side=1.16)
_CAPS: Mapping[str, _Cap] = {
    "short": _Cap(((0.97, -0.25), (0.84, -0.66), (0.4, -0.84), (-0.4, -0.84), (-0.84, -0.66), (-0.97, -0.25)), side=1.05),
    "parted": _Cap(((0.98, -0.1), (0.86, -0.5), (0.3, -0.7), (-0.42, -0.98), (-0.8, -0.6), (-0.98, -0.1)), top=-1.56),
    "long": _LONG,
    "wavy": _LONG,
    "bob": _Cap(((0.98, 0.4), (0.86, -0.3), (0.5, -0.62), (-0.3, -0.86), (-0.86, -0.3), (-0.98, 0.4)), top=-1.56, side=1.2),
    "fringe": _Cap(
        ((0.98, 0.3), (0.9, -0.34), (0.45, -0.4), (0.0, -0.36), (-0.45, -0.4), (-0.9, -0.34), (-0.98, 0.3)),
        top=-1.56,
        side=1.16,
    ),
    "bun": _Cap(
        ((0.98, -0.2), (0.82, -0.72), (0.3, -0.98), (-0.3, -0.98), (-0.82, -0.72), (-0.98, -0.2)), top=-1.44, side=1.04
    ),
    "afro": _Cap(((0.98, -0.1), (0.86, -0.6), (0.4, -0.8), (-0.4, -0.8), (-0.86, -0.6), (-0.98, -0.1)), top=-1.6, side=1.16),
}
"""Style -> its shape over the forehead."""
_WAVES = ((1.0, -1.2), (1.36, -0.5), (1.22, 0.1), (1.5, 0.6), (1.3, 1.1), (1.5, 1.65))
_CURLS = (
    (-1.0, -0.45), (-0.86, -0.9), (-0.5, -1.2), (0.0, -1.32), (0.5, -1.2), (0.86, -0.9), (1.0, -0.45), (-0.36, -0.94), (0.3, -0.96),
)  # fmt: skip
_SPIKES = (
    (-1.04, -0.1), (-1.2, -0.8), (-0.86, -0.92), (-0.9, -1.56), (-0.44, -1.28), (-0.2, -1.86), (0.12, -1.34), (0.52, -1.76),
    (0.6, -1.2), (1.06, -1.34), (0.94, -0.84), (1.22, -0.72), (1.04, -0.1),
)  # fmt: skip
_CROWN = ((-0.96, -0.78), (-1.06, -1.7), (-0.55, -1.26), (0, -1.9), (0.55, -1.26), (1.06, -1.7), (0.96, -0.78), (0, -0.9))
_UNDER_SPIKES = ((0.86, -0.62), (0.5, -0.66), (0.3, -0.86), (0.0, -0.7), (-0.3, -0.88), (-0.56, -0.66), (-0.86, -0.62))


def body(canvas: Canvas, identity: Identity, scene: Scene, frame: Frame) -> None:
    """Shoulders, neck and the garment."""
    colour = COLOURS[scene.garment_colour]
    shade, skin = darker(colour, 0.22), identity.skin_colour
    wide = 1.9 if identity.noun == "man" else 1.66
    shoulders = mirrored(points((0, 1.52), (0.5, 1.56), (wide * 0.75, 1.85), (wide, 2.4), (wide + 0.1, 3.6), (0, 3.6)))
    garment = scene.garment
    if garment == "hoodie":
        canvas.fill(symmetric((0, 1.0), (0.85, 1.12), (1.18, 1.62), (0.7, 2.2), (0, 2.3)), shade, frame)
    if garment == "coat":
        canvas.fill(symmetric((0, 1.0), (0.8, 1.16), (0.95, 1.7), (0, 2.1)), shade, frame)
    canvas.fill(smooth(shoulders), colour, frame)
    canvas.soft(points((-wide - 0.2, 2.3), (-wide * 0.55, 2.2), (-wide * 0.7, 3.8), (-wide - 0.4, 3.8)), shade, 0.3, frame, 0.7)
    if garment == "striped sweater":
        for y in (2.12, 2.46, 2.8, 3.14):
            line = smooth(points((-wide, y + 0.12), (0, y), (wide, y + 0.12)), closed=False)
            canvas.stroke(line, (248, 244, 236) if scene.garment_colour != "white" else (120, 130, 160), 0.13, frame)
    open_neck = {"t-shirt": 1.74, "shirt": 1.95, "suit": 1.8, "coat": 1.7}.get(garment, 1.64)
    neck = 0.52 if identity.noun == "man" else 0.43
    canvas.fill(symmetric((0, 0.7), (neck, 0.8), (neck, 1.45), (neck + 0.04, 1.56), (0, open_neck)), skin, frame)
    canvas.soft(oval(0, 1.3, neck, 0.26), darker(skin, 0.45), 0.16, frame, 0.75)
    if garment in ("shirt", "suit"):
        cloth = colour if garment == "shirt" else (246, 246, 248)
        if garment == "suit":
            canvas.fill(points((0, 1.62), (0.52, 1.52), (0.3, 2.2), (0, 3.2), (-0.3, 2.2), (-0.52, 1.52)), cloth, frame)
            canvas.fill(points((-0.1, 1.78), (0.1, 1.78), (0.16, 2.9), (0, 3.2), (-0.16, 2.9)), (150, 44, 56), frame)
        for side in (-1, 1):
            collar = points((side * 0.1, 1.76), (side * 0.56, 1.42), (side * 0.66, 1.66), (side * 0.34, 2.02))
            canvas.fill(collar, lighter(cloth, 0.25), frame)
            canvas.stroke(collar, darker(cloth, 0.25), 0.035, frame, closed=True)
            if garment == "suit":
                canvas.fill(
                    points((side * 0.6, 1.56), (side * 0.92, 1.82), (side * 0.62, 2.2), (side * 0.1, 3.2)), shade, frame
                )
        if garment == "shirt":
            canvas.stroke(points((0, 1.95), (0, 3.4)), shade, 0.04, frame)
            for y in (2.2, 2.6, 3.0):
                canvas.fill(oval(0.0, y, 0.05, 0.05), (250, 248, 240), frame)
    elif garment == "hoodie":
        for x in (-0.3, 0.3):
            canvas.stroke(points((x, 1.8), (x * 1.1, 2.6)), (246, 244, 238), 0.06, frame)
    elif garment == "coat":
        canvas.stroke(points((0.08, 1.7), (0.08, 3.4)), shade, 0.05, frame)
        for side in (-1, 1):
            canvas.fill(points((side * 0.06, 1.78), (side * 0.62, 1.4), (side * 0.98, 1.8), (side * 0.3, 2.5)), shade, frame)
        for y in (2.6, 3.0):
            canvas.fill(oval(0.26, y, 0.07, 0.07), _GOLD, frame)
    else:
        hem = smooth(points((-neck - 0.04, 1.54), (0, open_neck), (neck + 0.04, 1.54)), closed=False)
        canvas.stroke(hem, shade, 0.09 if garment == "t-shirt" else 0.15, frame)


def hair_behind(canvas: Canvas, identity: Identity, frame: Frame) -> None:
    """The hair that the head and shoulders cover."""
    colour = darker(HAIR_COLOURS[identity.hair_colour], 0.14)
    w, style = identity.face_width, identity.hair_style
    halves = {
        "long": ((0.95 * w, -1.2), (1.25 * w, -0.2), (1.3 * w, 1.2), (1.12 * w, 2.2), (0, 2.0)),
        "wavy": (*((x * w, y) for x, y in _WAVES), (0.9, 2.0), (0, 1.7)),
        "bob": ((1.0 * w, -1.2), (1.34 * w, -0.2), (1.36 * w, 0.9), (0.9 * w, 1.16), (0, 1.0)),
        "fringe": ((0.95 * w, -1.25), (1.22 * w, -0.3), (1.2 * w, 0.7), (1.05 * w, 1.5), (0, 1.3)),
    }
    if style in halves:
        canvas.fill(symmetric((0, -1.5), *halves[style]), colour, frame)
    elif style == "bun":
        canvas.fill(oval(0, -1.66, 0.46, 0.42), colour, frame)
        canvas.fill(oval(0.02, -1.7, 0.3, 0.26), lighter(colour, 0.12), frame)
    elif style == "afro":
        canvas.fill(oval(0, -0.55, 1.62 * w, 1.38), colour, frame)
        canvas.soft(oval(-0.4, -1.2, 0.7 * w, 0.4), lighter(colour, 0.3), 0.4, frame, 0.5)
    elif style == "curly":
        for x, y in ((-1.1, -0.3), (1.1, -0.3), (-1.2, 0.2), (1.2, 0.2), (-1.05, 0.62), (1.05, 0.62)):
            canvas.fill(oval(x * w, y, 0.36, 0.36), colour, frame)


def hair_in_front(canvas: Canvas, identity: Identity, frame: Frame, drift: float) -> None:
    """The hair over the forehead. `drift`: how far it follows a turn of the head, head units."""
    style, w = identity.hair_style, identity.face_width
    base = HAIR_COLOURS[identity.hair_colour]
    if style in _CAPS:
        canvas.fill(_CAPS[style].outline(w, drift), base, frame)
        canvas.soft(oval(-0.32 + drift, -1.16, 0.36, 0.1), lighter(base, 0.28), 0.12, frame, 0.55)
    elif style == "curly":
        for x, y in _CURLS:
            canvas.fill(oval(x * w + drift * 0.5, y, 0.36, 0.34), base, frame)
            canvas.stroke(oval(x * w + drift * 0.5, y, 0.2, 0.18, 180, 320), lighter(base, 0.28), 0.045, frame)
    elif style == "spiky":
        canvas.fill(points(*[(x * w, y) for x, y in _SPIKES], *[(x * w + drift, y) for x, y in _UNDER_SPIKES]), base, frame)
    elif style == "bald":
        canvas.soft(oval(-0.34 + drift, -0.98, 0.26, 0.12), lighter(identity.skin_colour, 0.5), 0.14, frame, 0.55)


def hat(canvas: Canvas, identity: Identity, scene: Scene, frame: Frame, drift: float) -> None:
    colour = COLOURS[scene.hat_colour]
    shade, w = darker(colour, 0.25), identity.face_width * (1.16 if identity.hair_style in ("afro", "curly", "spiky") else 1.04)
    if scene.hat == "cap":
        canvas.fill(symmetric((0, -1.86), (0.72 * w, -1.66), (1.12 * w, -1.0), (1.08 * w, -0.62), (0, -0.74)), colour, frame)
        near, far = drift * 2, drift * 3
        front = ((far + 0.7 * w, -0.46), (0, -0.54), (far - 0.7 * w, -0.46))
        brim = points((near - 0.95 * w, -0.72), (0, -0.9), (near + 0.95 * w, -0.72), *front)
        canvas.fill(smooth(brim), shade, frame)
        canvas.fill(oval(0, -1.84, 0.1, 0.07), shade, frame)
    elif scene.hat == "beanie":
        canvas.fill(symmetric((0, -1.98), (0.72 * w, -1.76), (1.14 * w, -1.1), (1.12 * w, -0.66), (0, -0.8)), colour, frame)
        canvas.fill(symmetric((0, -1.0), (1.16 * w, -0.92), (1.17 * w, -0.52), (0, -0.62)), shade, frame)
        canvas.fill(oval(0, -2.02, 0.26, 0.24), lighter(colour, 0.5), frame)
    elif scene.hat == "straw hat":
        canvas.fill(symmetric((0, -1.96), (0.66 * w, -1.84), (0.98 * w, -1.2), (1.0 * w, -0.8), (0, -0.8)), _STRAW, frame)
        canvas.fill(points((-1.0 * w, -1.12), (1.0 * w, -1.12), (1.03 * w, -0.8), (-1.03 * w, -0.8)), colour, frame)
        canvas.fill(oval(0, -0.76, 1.86, 0.25), darker(_STRAW, 0.1), frame)
        canvas.stroke(oval(0, -0.76, 1.8, 0.22), lighter(_STRAW, 0.4), 0.05, frame, closed=True)
    elif scene.hat == "crown":
        canvas.fill(points(*[(x * w, y) for x, y in _CROWN]), _GOLD, frame)
        canvas.stroke(points((-0.96 * w, -0.84), (0, -0.96), (0.96 * w, -0.84)), darker(_GOLD, 0.3), 0.08, frame)
        for x, y in ((-1.06, -1.7), (0.0, -1.9), (1.06, -1.7), (0.0, -1.22)):
            canvas.fill(oval(x * w, y, 0.13, 0.13), colour, frame)
    elif scene.hat == "top hat":
        tall = [(-0.8, -0.8), (-0.88, -2.1), (0.88, -2.1), (0.8, -0.8)]
        canvas.fill(points(*[(x * w, y) for x, y in tall]), _DARK, frame)
        canvas.fill(points((-0.81 * w, -0.86), (-0.83 * w, -1.16), (0.83 * w, -1.16), (0.81 * w, -0.86)), colour, frame)
        canvas.fill(oval(0, -0.8, 1.34 * w, 0.16), lighter(_DARK, 0.08), frame)
