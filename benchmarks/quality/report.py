"""The report of the quality evaluation: sheets of samples, curves of the sweeps, and an HTML page with the table and all of them."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.outputs import replacing

from ..measure.chart import curve, save_figure
from ..measure.drawing import sheet
from ..measure.pictures import Picture
from ..measure.report import write_document
from .judges import Pictures
from .world import Cases

COLUMNS: Mapping[str, str] = {
    "id_similarity": "ID similarity ↑", "verification_auc": "verification AUC ↑", "text_accuracy": "text accuracy ↑",
    "clip_t": "CLIP-T ↑", "kernel_distance": "kernel distance ↓", "copy_paste_rate": "copied from reference ↓",
    "no_face_rate": "no face ↓", "mouths_well_formed": "mouths well formed ↑", "eyes_well_formed": "eyes well formed ↑",
    "seconds_per_picture": "seconds per picture",
}  # fmt: skip
SAMPLES = 4
RECORD = "quality.json"
"""What says that a folder is a report of ours, with all that was measured."""
ABSENT = "absent: no weights"

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;color:#22252b;max-width:1180px;margin:2.5em auto;padding:0 1.5em}
h1{font-size:1.7em;margin-bottom:.1em}h2{font-size:1.2em;margin-top:2em}table{border-collapse:collapse;margin:1em 0}
th,td{padding:.4em .8em;text-align:right;border-bottom:1px solid #dee1e6}th:first-child,td:first-child{text-align:left}
th{font-weight:600;font-size:.85em}td.best{font-weight:700}td.absent{color:#8c929c;text-align:left}
img{max-width:100%;display:block;margin:.5em 0}p.note,pre{color:#626873;font-size:.85em}.pair{display:flex;flex-wrap:wrap;gap:1em}"""


def samples(cases: Cases, pictures: Mapping[str, Pictures], drawn: Pictures) -> Picture:
    """A row per case of a few different people: the reference, the renderer's own picture for the prompt, then each peer's."""
    rows, labels = [], []
    for person in np.unique(cases.who)[: SAMPLES + 2]:
        cells = np.flatnonzero(cases.who == person)
        i = int(cells[person % len(cells)])
        rows.append([cases.shots.pictures[cases.references[i][0]], drawn[i], *(made[i] for made in pictures.values())])
        labels.append(cases.prompts[i])
    return sheet(rows, ["reference", "renderer", *(name.replace("_", " ") for name in pictures)], 176, labels)


def strip(cases: Cases, pictures: Pictures, values: Sequence[Any], shown: int = SAMPLES) -> Picture:
    """The same few cases at every value of a parameter; `pictures`: [values, cases, ...]."""
    rows = np.unique(np.linspace(0, len(cases) - 1, min(shown, len(cases))).round().astype(int))
    table = [[cases.shots.pictures[cases.references[i][0]], *(made[i] for made in pictures)] for i in rows]
    return sheet(table, ["reference", *(str(value).removesuffix("Scheduler") for value in values)], 144)


def write_page(folder: Path, document: Mapping[str, Any], usual: Mapping[str, Any]) -> Path:
    """`index.html`, `sweep-*.png` and `quality.json` in `folder`; the sheets `samples.png` and `strip-*.png` are there already."""
    for name, points in document.get("sweeps", {}).items():
        save_figure(curve(points, name, usual.get(name)), folder / f"sweep-{name}.png")
    figures = "".join(
        f"<h2>{html.escape(name)}</h2><div class='pair'><img src='sweep-{name}.png' width='560'></div>"
        f"<img src='strip-{name}.png'>{_gain(points)}"
        for name, points in document.get("sweeps", {}).items()
    )
    page = (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>Quality of {html.escape(document['variant'])}</title>"
        f"<style>{_STYLE}</style><h1>Quality of {html.escape(document['variant'])}</h1>"
        f"<p>{html.escape(document['protocol']['summary'])}</p>{_table(document['table'])}"
        f"<p class='note'>{html.escape(document['text_only_is'])} The renderer's row is what the judges say of the pictures that"
        " the world itself draws for the same prompts: no model can be expected to exceed it.</p>"
        f"<p>fp16 against fp32 graphs: {document['psnr_fp16_db']} dB; served against diffusers' pipeline:"
        f" {document['psnr_served_db']} dB (smallest of the pictures compared).</p>"
        f"<h2>Samples</h2><img src='samples.png'>{figures}"
        f"<h2>Protocol</h2><pre>{html.escape(json.dumps(document['protocol'], indent=1))}</pre></html>"
    )
    file = folder / "index.html"
    with replacing(file) as partial:
        partial.write_text(page, encoding="utf-8")
    write_document(folder / RECORD, document)
    return file


def _table(table: Mapping[str, Mapping[str, Any] | None]) -> str:
    head = "".join(f"<th>{label}</th>" for label in ("", *COLUMNS.values()))
    body = ""
    for peer, row in table.items():
        name = f"<td>{html.escape(peer.replace('_', ' '))}</td>"
        if row is None:
            body += f"<tr>{name}<td class='absent' colspan='{len(COLUMNS)}'>{ABSENT}</td></tr>"
            continue
        cells = (row["text_accuracy"]["mean"] if column == "text_accuracy" else row.get(column, "") for column in COLUMNS)
        body += f"<tr>{name}" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    return f"<table><tr>{head}</tr>{body}</table>"


def _gain(points: Sequence[Mapping[str, Any]]) -> str:
    told = [f"{p['value']}: {p['gain']:+.4f} ± {p['gain_error']:.4f}" for p in points if p.get("gain") and p["value"] != 1]
    return f"<p>Similarity against one reference, case by case: {'; '.join(told)}.</p>" if told else ""
