"""A bar chart as SVG and PNG, without a plotting library: one bar per case, with a mark and a whisker.

The layout is a list of rectangles, lines and texts, made once and drawn twice. Knows nothing of what is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np

WIDTH, LABEL_WIDTH, VALUE_WIDTH, ROW, BAR, TOP = 960, 330, 110, 34, 18, 62
INK, BAR_COLOUR, MARK_COLOUR, GRID = (40, 40, 40), (70, 120, 180), (210, 80, 40), (220, 220, 220)
Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""


@dataclass(frozen=True)
class Bar:
    """One case. `value` is the bar's length; `mark` a line across it (the floor), `whisker` how far it may go (a percentile)."""

    label: str
    value: float
    mark: float | None = None
    whisker: float | None = None


@dataclass(frozen=True)
class Box:
    x: float
    y: float
    width: float
    height: float
    colour: Colour


@dataclass(frozen=True)
class Text:
    x: float
    """Left end; right end where `right`."""
    y: float
    """Baseline."""
    text: str
    size: int = 13
    right: bool = False


def layout(title: str, unit: str, bars: Sequence[Bar]) -> list[Box | Text]:
    """Everything to draw. Raises `ValueError` where there is nothing, or a value is not a finite number from 0 on."""
    values = [value for bar in bars for value in (bar.value, bar.mark, bar.whisker) if value is not None]
    if not bars or not all(0 <= value < float("inf") for value in values):
        raise ValueError(f"chart: expected bars of finite values from 0 on, got {list(bars)}")
    longest = max(values) or 1.0
    scale = (WIDTH - LABEL_WIDTH - VALUE_WIDTH) / longest
    drawn: list[Box | Text] = [
        Text(12, 24, title, 16),
        Text(12, 46, f"bar: median, {unit}; thin line: p99; red: physical floor", 12),
    ]
    for i, bar in enumerate(bars):
        y = TOP + i * ROW
        middle = y + BAR / 2
        drawn += [
            Box(LABEL_WIDTH, y + BAR + 7, WIDTH - LABEL_WIDTH, 1, GRID),
            Text(LABEL_WIDTH - 10, y + BAR - 4, bar.label, right=True),
            Box(LABEL_WIDTH, y, max(bar.value * scale, 1), BAR, BAR_COLOUR),
        ]
        end = bar.value
        if bar.whisker is not None and bar.whisker > bar.value:
            end = bar.whisker
            drawn += [
                Box(LABEL_WIDTH + bar.value * scale, middle - 1, (end - bar.value) * scale, 2, INK),
                Box(LABEL_WIDTH + end * scale - 1, y + 3, 2, BAR - 6, INK),
            ]
        if bar.mark is not None:
            drawn.append(Box(LABEL_WIDTH + bar.mark * scale - 1, y - 3, 3, BAR + 6, MARK_COLOUR))
        drawn.append(Text(LABEL_WIDTH + end * scale + 8, y + BAR - 4, f"{bar.value:.4g}"))
    return drawn


def height_of(bars: int) -> int:
    return TOP + bars * ROW + 12


def svg(shapes: Sequence[Box | Text], height: int) -> str:
    """The layout as an SVG document."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for shape in shapes:
        if isinstance(shape, Box):
            fill = "#{:02x}{:02x}{:02x}".format(*shape.colour)
            lines.append(
                f'<rect x="{shape.x:.1f}" y="{shape.y:.1f}" width="{shape.width:.1f}" height="{shape.height:.1f}" fill="{fill}"/>'
            )
        else:
            anchor = ' text-anchor="end"' if shape.right else ""
            lines.append(
                f'<text x="{shape.x:.1f}" y="{shape.y:.1f}" font-size="{shape.size}"{anchor}>{escape(shape.text)}</text>'
            )
    return "\n".join([*lines, "</svg>", ""])


def png(shapes: Sequence[Box | Text], height: int) -> bytes:
    """The layout as a PNG file."""
    canvas = np.full((height, WIDTH, 3), 255, np.uint8)
    for shape in shapes:
        if isinstance(shape, Box):
            corner = (round(shape.x), round(shape.y))
            opposite = (round(shape.x + shape.width), round(shape.y + shape.height) - 1)
            cv2.rectangle(canvas, corner, opposite, shape.colour[::-1], cv2.FILLED)
        else:
            scale = shape.size / 30
            (width, _), _ = cv2.getTextSize(shape.text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
            left = round(shape.x - width if shape.right else shape.x)
            cv2.putText(canvas, shape.text, (left, round(shape.y)), cv2.FONT_HERSHEY_SIMPLEX, scale, INK, 1, cv2.LINE_AA)
    return bytes(cv2.imencode(".png", canvas)[1])


def write(path: Path, title: str, unit: str, bars: Sequence[Bar]) -> tuple[Path, Path]:
    """`path` with the endings .svg and .png."""
    shapes, height = layout(title, unit, bars), height_of(len(bars))
    path.parent.mkdir(parents=True, exist_ok=True)
    found = path.with_name(path.name + ".svg"), path.with_name(path.name + ".png")
    found[0].write_text(svg(shapes, height), encoding="utf-8")
    found[1].write_bytes(png(shapes, height))
    return found
