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


def save(picture: Picture, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(file)


def sheet(rows: Sequence[Sequence[Picture]], above: Sequence[str], side: int = 192, left: Sequence[str] = ()) -> Picture:
    """Pictures in rows of equal length, each `side` pixels, with a label above every column and, if given, left of every row."""
    if any(len(row) != len(above) for row in rows) or (left and len(left) != len(rows)):
        raise ValueError(f"sheet: expected {len(above)} pictures in each row and a label for each of {len(rows)} rows or none")
    font = _font(max(11, side // 14))
    lines = [textwrap.wrap(label, max(8, int(side / font.size * 2.05))) or [""] for label in above]
    line_height = int(font.size * 1.35)
    top = _MARGIN + line_height * max(map(len, lines)) + 6
    edge = _MARGIN + (int(max(font.getlength(label) for label in left)) + _MARGIN if left else 0)
    step = side + _MARGIN
    canvas = Image.new("RGB", (edge + step * len(above), top + step * len(rows)), PAPER)
    pen = ImageDraw.Draw(canvas)
    for column, label in enumerate(lines):
        for i, line in enumerate(label):
            y = top - 6 - line_height * (len(label) - i)
            pen.text((edge + step * column + side / 2, y), line, INK, font, anchor="ma")
    for r, row in enumerate(rows):
        if left:
            pen.text((edge - _MARGIN, top + step * r + side / 2), left[r], INK, font, anchor="rm")
        for c, picture in enumerate(row):
            cell = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)
            canvas.paste(cell, (edge + step * c, top + step * r))
    return np.asarray(canvas, np.uint8)


def curve(points: Sequence[Mapping[str, Any]], name: str, usual: Any = None) -> Picture:
    """Identity similarity (red, with its standard error) and text accuracy (blue), 0 to 1, over the values of a parameter; grey:
    seconds per picture, from the bottom, against the slowest. `usual`: the value that is the default, marked."""
    width, height, scale = 560, 330, 2
    canvas = Image.new("RGB", (width * scale, height * scale), PAPER)
    pen, font, small = ImageDraw.Draw(canvas), _font(14 * scale), _font(12 * scale)
    left, right, top, bottom = 46 * scale, (width - 20) * scale, 48 * scale, (height - 62) * scale

    def height_of(share: float) -> float:
        return bottom - (bottom - top) * min(max(share, 0.0), 1.0)

    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        pen.line([(left, height_of(share)), (right, height_of(share))], PALE, scale)
        pen.text((left - 6 * scale, height_of(share)), f"{share:g}", GREY, small, anchor="rm")
    step = (right - left) / len(points)
    xs = [left + step * (i + 0.5) for i in range(len(points))]
    slowest = max(float(point["seconds_per_picture"]) for point in points) or 1.0
    for x, point in zip(xs, points, strict=True):
        seconds = float(point["seconds_per_picture"])
        bar = [(x - step * 0.18, height_of(0.22 * seconds / slowest)), (x + step * 0.18, bottom)]
        pen.rectangle(bar, (236, 238, 241))
        pen.text((x, bottom - 4 * scale), f"{seconds:.2f} s", GREY, _font(10 * scale), anchor="ms")
        is_usual = point["value"] == usual
        label = str(point["value"]).removesuffix("Scheduler").replace("Discrete", "").replace("Multistep", "")
        pen.text((x, bottom + 8 * scale), label + (" (default)" if is_usual else ""), INK, small, anchor="ma")
    for key, colour in (("text_accuracy", BLUE), ("id_similarity", RED)):
        ys = [height_of(float(point[key])) for point in points]
        pen.line(list(zip(xs, ys, strict=True)), colour, 3 * scale, joint="curve")
        for x, y, point in zip(xs, ys, points, strict=True):
            error = (bottom - top) * float(point.get(f"{key}_error", 0.0))
            pen.line([(x, y - error), (x, y + error)], colour, 2 * scale)
            pen.ellipse([x - 4 * scale, y - 4 * scale, x + 4 * scale, y + 4 * scale], colour)
            pen.text((x + 6 * scale, y - 6 * scale), f"{float(point[key]):.2f}", colour, _font(11 * scale), anchor="lb")
    pen.text((left, 12 * scale), name, INK, font)
    legend = right
    for text, colour in (("text accuracy", BLUE), ("identity similarity", RED)):
        pen.text((legend, 14 * scale), text, colour, small, anchor="ra")
        legend -= small.getlength(text) + 16 * scale
    pen.text((left, (height - 24) * scale), "bars: seconds per picture", GREY, _font(10 * scale))
    return np.asarray(canvas.resize((width, height), Image.Resampling.LANCZOS), np.uint8)


def _font(size: float) -> Any:
    return ImageFont.load_default(size)
