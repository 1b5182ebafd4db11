"""Charts: times as bars beside their floor, and what a parameter does as curves. matplotlib is imported where one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.outputs import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, PALE, GREY, RED, BLUE = "#22252b", "#dee1e6", "#8c929c", "#cc3e44", "#2c62be"
DOTS_PER_INCH = 100
LINES = (("id_similarity", "identity similarity", RED), ("text_accuracy", "text accuracy", BLUE))
"""Of a curve: key of a point, its name, its colour."""


@dataclass(frozen=True)
class Bar:
    """One case. `value` is the bar's length; `floor` a line across it, `whisker` how far it may go (a percentile)."""

    label: str
    value: float
    floor: float | None = None
    whisker: float | None = None


def bar_chart(title: str, unit: str, bars: Sequence[Bar]) -> Figure:
    """A bar per case, from the top. Raises `ValueError` where there is nothing, or a value is not a finite number from 0 on."""
    values = [value for bar in bars for value in (bar.value, bar.floor, bar.whisker) if value is not None]
    if not bars or not all(0 <= value < float("inf") for value in values):
        raise ValueError(f"chart: expected bars of finite values from 0 on, got {list(bars)}")
    figure = _figure(960, 110 + 34 * len(bars))
    axes = figure.add_subplot(title=title, xlabel=f"{unit}; bar: median, thin line: 99th percentile, red: physical floor")
    axes.barh(range(len(bars)), [bar.value for bar in bars], 0.55, color=BLUE)
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * max(values) or 1.0)
    for row, bar in enumerate(bars):
        end = max(bar.value, bar.whisker or 0)
        axes.errorbar(bar.value, row, xerr=np.array([[0], [end - bar.value]]), color=INK, capsize=4)
        axes.annotate(f"{bar.value:.4g}", (end, row), (8, 0), textcoords="offset points", va="center")
        if bar.floor is not None:
            axes.vlines(bar.floor, row - 0.4, row + 0.4, RED, linewidth=3)
    return figure


def curve(points: Sequence[Mapping[str, Any]], name: str, usual: Any = None) -> Figure:
    """Identity similarity with its standard error, and text accuracy, over the values of a parameter; below, as bars, seconds
    per picture. `usual`: the value that is the default, marked."""
    figure = _figure(560, 370)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(4, 1))
    for key, label, colour in LINES:
        values = [float(point[key]) for point in points]
        errors = [float(point.get(f"{key}_error", 0.0)) for point in points]
        upper.errorbar(range(len(points)), values, errors, color=colour, label=label, marker="o", linewidth=2)
        for row, value in enumerate(values):
            others = [float(points[row][other]) for other, *_ in LINES if other != key]
            away = 6 if value > max(others) else -14  # the lower of two figures stands below its point
            upper.annotate(f"{value:.2f}", (row, value), (5, away), textcoords="offset points", color=colour, fontsize=8)
    upper.set_title(name, loc="left")
    upper.set_ylim(-0.3 if min(float(point[key]) for point in points for key, *_ in LINES) < 0 else 0, 1.1)
    upper.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=8, borderaxespad=0.2)
    bars = lower.bar(range(len(points)), [float(point["seconds_per_picture"]) for point in points], 0.4, color=PALE)
    lower.bar_label(bars, fmt="%.2f s", fontsize=8, color=GREY)
    lower.set_ylabel("seconds", fontsize=8, color=GREY)
    lower.set_yticks([])
    lower.margins(x=0.1, y=0.5)
    lower.set_xticks(range(len(points)), [_tick(point["value"], usual) for point in points])
    return figure


def save_figure(figure: Figure, file: Path) -> Path:
    """As the ending of `file` says, .svg or .png; the same figure gives the same bytes."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": file.name}), replacing(file) as partial:
        figure.savefig(partial, metadata={"Date": None} if file.suffix == ".svg" else None)
    return file


def _figure(width: int, height: int) -> Figure:
    """An empty one in pixels. Without pyplot it needs no screen: Agg draws it."""
    from matplotlib.figure import Figure

    return Figure((width / DOTS_PER_INCH, height / DOTS_PER_INCH), dpi=DOTS_PER_INCH, layout="constrained")


def _tick(value: Any, usual: Any) -> str:
    label = str(value).removesuffix("Scheduler").removesuffix("Multistep").removesuffix("Discrete")
    return f"{label}\n(default)" if value == usual else label
