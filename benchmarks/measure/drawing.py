"""Sheets of pictures with labels, as RGB arrays. Knows Pillow; nothing of what is shown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from export.outputs import replacing

from .pictures import Picture

INK, PAPER = (34, 37, 43), (255, 255, 255)
_MARGIN = 12


def save(picture: Picture, file: Path) -> None:
    with replacing(file) as partial:
        Image.fromarray(picture).save(partial)


def sheet(rows: Sequence[Sequence[Picture]], above: Sequence[str], side: int = 192, left: Sequence[str] = ()) -> Picture:
    """Pictures in rows of equal length, each `side` pixels, with a label above every column and, if given, left of every row."""
    if any(len(row) != len(above) for row in rows) or (left and len(left) != len(rows)):
        raise ValueError(f"sheet: expected {len(above)} pictures in each row and a label for each of {len(rows)} rows or none")
    size = max(12, side // 14)
    font = ImageFont.load_default(size)
    letters, line_height = max(8, int(side / size * 2.05)), int(size * 1.35)
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
