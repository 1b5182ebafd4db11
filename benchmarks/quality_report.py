"""The report of the quality evaluation: a grid of pictures, curves of the sweeps, and an HTML page with the table."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .quality_world import Cases

_COLUMNS = ("id_similarity", "verification_auc", "kernel_distance", "copy_paste_rate", "no_face_rate")


def grid(cases: Cases, pictures: Mapping[str, NDArray[np.uint8]], people: int = 6) -> NDArray[np.uint8]:
    """A row per person: the reference, then the person's pictures by each peer in turn. RGB."""
    rows = []
    for person in np.unique(cases.who)[:people]:
        cells = np.flatnonzero(cases.who == person)[:4]
        reference = cases.references[cells[0]] or [0]
        row = [cases.data.pictures[reference[0]], *(made[i] for made in pictures.values() for i in cells)]
        rows.append(np.concatenate([np.pad(cell, ((2, 2), (2, 2), (0, 0)), constant_values=255) for cell in row], 1))
    return np.concatenate(rows)


def curve(points: list[dict[str, Any]], name: str) -> NDArray[np.uint8]:
    """Similarity (red) and text accuracy (blue) over the values of a parameter, both from 0 to 1."""
    picture = np.full((240, 360, 3), 255, np.uint8)
    x = np.linspace(50, 330, len(points))
    for key, colour, label_x in (("id_similarity", (200, 60, 60), 50), ("text_accuracy", (60, 90, 200), 200)):
        y = 190 - 150 * np.clip([float(point[key]) for point in points], 0, 1)
        cv2.polylines(picture, [np.stack([x, y], 1).astype(np.int32)], False, colour, 2, cv2.LINE_AA)
        cv2.putText(picture, key, (label_x, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
    for place, point in zip(x, points, strict=True):
        cv2.putText(
            picture, str(point["value"])[:8], (int(place) - 12, 208), cv2.FONT_HERSHEY_SIMPLEX, 0.33, (0, 0, 0), 1, cv2.LINE_AA
        )
    cv2.putText(picture, name, (50, 230), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return picture


def write_report(folder: Path, cases: Cases, pictures: Mapping[str, NDArray[np.uint8]], document: dict[str, Any]) -> None:
    """`index.html`, `grid.png`, `sweep-*.png` and `results.json` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / "grid.png", grid(cases, pictures))
    rows = "".join(
        f"<tr><td>{html.escape(peer)}</td><td>{row['text_accuracy']['mean']}</td>"
        + "".join(f"<td>{row.get(column, '')}</td>" for column in _COLUMNS)
        + "</tr>"
        for peer, row in document["table"].items()
    )
    head = "".join(f"<th>{column.replace('_', ' ')}</th>" for column in ("peer", "text accuracy", *_COLUMNS))
    images = [f"<p>Reference, then {', '.join(pictures)} with the same prompts and noise.</p><img src='grid.png'>"]
    for name, points in document.get("sweeps", {}).items():
        _save(folder / f"sweep-{name}.png", curve(points, name))
        images.append(f"<img src='sweep-{name}.png'>")
    page = (
        "<!doctype html><meta charset='utf-8'><title>Quality</title>"
        "<style>body{font:15px sans-serif;margin:2em}td,th{padding:.3em .8em;text-align:right}</style>"
        f"<h1>Quality</h1><table><tr>{head}</tr>{rows}</table>{''.join(images)}"
        f"<pre>{html.escape(json.dumps(document['protocol'], indent=1))}</pre>"
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _save(file: Path, picture: NDArray[np.uint8]) -> None:
    if not cv2.imwrite(str(file), picture[:, :, ::-1]):
        raise OSError(f"{file}: could not be written; check the folder and the disk's space")
