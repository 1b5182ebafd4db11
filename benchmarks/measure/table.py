"""Rows of figures as aligned text."""

from __future__ import annotations

from collections.abc import Sequence

Cell = str | float | int | None


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Lines of equal width: the first column to the left, the others to the right; None is a dash. Raises `ValueError` for a
    row that has not one cell per column."""
    lines = [list(header), *([_text(cell) for cell in row] for row in rows)]
    if any(len(line) != len(header) for line in lines):
        raise ValueError(f"expected {len(header)} cells in each row, got {[len(line) for line in lines[1:]]}")
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _text(cell: Cell) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:.3g}" if abs(cell) < 100 else f"{cell:,.0f}"
    return str(cell)
