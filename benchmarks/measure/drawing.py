"""Pictures about pictures: labelled sheets and curves, as RGB arrays. Knows Pillow; nothing of what is shown."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
INK, PALE, PAPER = (34, 37, 43), (222, 225, 230), (255, 255, 255)
RED, BLUE, GREY = (204, 62, 68), (44, 98, 190), (140, 146, 156)
_MARGIN = 12
_WIDTH, _HEIGHT, _SHARP = 560, 370, 2
"""Of a curve, in pixels; drawn larger and reduced, for smooth edges."""


def save(picture: Picture, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(file)


def sheet(rows: Sequence[Sequence[Picture]], above: Sequence[str], side: int = 192, left: Sequence[str] = ()) -> Picture:
    """Pictures in rows of equal length, each `side` pixels, with a label above every column and, if given, left of every row."""
    if any(len(row) != len(above) for row in rows) or (left and len(left) != len(rows)):
        raise ValueError(f"sheet: expected {len(above)} pictures in each row and a label for each of {len(rows)} rows or none")
    font = _font(max(12, side // 14))
    letters, line_height = max(8, int(side / font.size * 2.05)), int(font.size * 1.35)
    heads = [textwrap.wrap(label, letters) or [""] for label in above]
    top = _MARGIN + line_height * max(map(len, heads)) + 6
    edge = _MARGIN + (side + _MARGIN if left else 0)
    step = side + _MARGIN
    canvas = Image.new("RGB", (edge + step * len(above), top + step * len(rows)), PAPER)
    pen = ImageDraw.Draw(canvas)

    def write(lines: Sequence[str], x: float, y: float, anchor: str) -> None:
        for i, line in enumerate(lines):
            pen.text((x, y + line_height * i), line, INK, font, anchor=anchor)

    for column, lines in enumerate(heads):
        write(lines, edge + step * column + side / 2, top - 6 - line_height * len(lines), "ma")
    for r, row in enumerate(rows):
        if left:
            lines = textwrap.wrap(left[r], letters)
            write(lines, edge - _MARGIN, top + step * r + (side - line_height * len(lines)) / 2, "ra")
        for c, picture in enumerate(row):
            cell = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)
            canvas.paste(cell, (edge + step * c, top + step * r))
    return np.asarray(canvas, np.uint8)


def curve(points: Sequence[Mapping[str, Any]], name: str, usual: Any = None) -> Picture:
    """Identity similarity (red, with its standard error) and text accuracy (blue) over the values of a parameter; below, as bars,
    seconds per picture. `usual`: the value that is the default, marked."""
    lines = (("id_similarity", "identity similarity", RED, -1), ("text_accuracy", "text accuracy", BLUE, 1))
    canvas = Image.new("RGB", (_WIDTH * _SHARP, _HEIGHT * _SHARP), PAPER)
    pen = ImageDraw.Draw(canvas)
    left, right, top, bottom, floor = (_SHARP * v for v in (48, _WIDTH - 16, 50, _HEIGHT - 118, _HEIGHT - 30))
    lowest = -0.25 if min(float(point[key]) for point in points for key, *_ in lines) < 0 else 0.0
    xs = [left + (right - left) / len(points) * (i + 0.5) for i in range(len(points))]

    def y_of(value: float) -> float:
        return bottom - (bottom - top) * (min(max(value, lowest), 1.0) - lowest) / (1 - lowest)

    def text(x: float, y: float, words: str, colour: Any, size: int, anchor: str) -> None:
        pen.text((x, y), words, colour, _font(size * _SHARP), anchor=anchor)

    for value in np.arange(lowest, 1.01, 0.25):
        pen.line([(left, y_of(value)), (right, y_of(value))], PALE, _SHARP)
        text(left - 6 * _SHARP, y_of(value), f"{value:g}", GREY, 11, "rm")
    slowest = max(float(point["seconds_per_picture"]) for point in points) or 1.0
    for x, point in zip(xs, points, strict=True):
        label = str(point["value"]).removesuffix("Scheduler").removesuffix("Multistep").removesuffix("Discrete")
        text(x, bottom + 9 * _SHARP, label, INK, 12, "ma")
        if point["value"] == usual:
            text(x, bottom + 25 * _SHARP, "default", GREY, 10, "ma")
        seconds = float(point["seconds_per_picture"])
        bar = floor - 30 * _SHARP * seconds / slowest
        pen.rectangle([(x - 16 * _SHARP, bar), (x + 16 * _SHARP, floor)], PALE)
        text(x, bar - 2 * _SHARP, f"{seconds:.2f} s", GREY, 10, "ms")
    for key, _, colour, side in lines:
        ys = [y_of(float(point[key])) for point in points]
        pen.line(list(zip(xs, ys, strict=True)), colour, 3 * _SHARP, joint="curve")
        others = [y_of(float(point[other])) for point in points for other, *_ in lines if other != key]
        for x, y, other, point in zip(xs, ys, others, points, strict=True):
            error, value = float(point.get(f"{key}_error", 0.0)), float(point[key])
            pen.line([(x, y_of(value - error)), (x, y_of(value + error))], colour, 2 * _SHARP)
            pen.ellipse([x - 4 * _SHARP, y - 4 * _SHARP, x + 4 * _SHARP, y + 4 * _SHARP], colour)
            away = side if other == y else (1 if y > other else -1)  # the lower of two figures stands below its point
            text(x + 8 * _SHARP, y + away * 5 * _SHARP, f"{value:.2f}", colour, 11, "la" if away > 0 else "ls")
    text(left, 12 * _SHARP, name, INK, 14, "la")
    text(left, _HEIGHT * _SHARP - 8 * _SHARP, "seconds per picture", GREY, 10, "ls")
    for i, (_, words, colour, _) in enumerate(lines):
        text(right, (8 + 16 * i) * _SHARP, words, colour, 12, "ra")
    return np.asarray(canvas.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS), np.uint8)


def _font(size: float) -> Any:
    return ImageFont.load_default(size)
