"""Whether small faces get likeness by `face_detail`: of pictures of `nano` that show one, with and without; test people alone.

`nano` draws one head as large as a portrait's wherever it may, so a small one has to come with a picture: a portrait that the renderer
drew, half as large, on a wider background, drawn anew at a low strength. It shows the person of the photograph, or somebody else. The
judge sees the part in which the portrait was. Where the face is, is known from the renderer, as for the masks of `edits`: the detector,
made for photographs, finds some of these faces only, and its share is told.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from export.checkpoint.committed import weights_folder
from export.repository.from_nothing import build_repository
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.variants.variant import Variant
from faceclip_serving.face.detectors import Box, Face
from faceclip_serving.sampling.detail import small_face
from training.pictures.dataset import SPLITS
from training.world.people import sample_identity, sample_scene
from training.world.render import render

from ..measure import inprocess
from ..measure.drawing import save, sheet
from ..measure.pictures import Picture, decoded, png
from ..measure.report import say, write_document
from .report import RECORD
from .sweeps import mean_and_error
from .world import SIDE, shoot

PROMPT = "A portrait of a person."
PART = 64
"""Side of the portrait in the picture, pixels."""
STRENGTH = 0.1
"""Of the picture. More, and `nano` draws a large head over the small one."""
PARTS = (48, 64, 80, 96, 112)
"""The same, of pictures that show from which size on there is nothing to gain."""
DETAILS = (0.0, 0.2, 0.4, 0.6, 0.8)
SHOWN = ("the picture", "the person", "drawn", *(f"face_detail={value:g}" for value in DETAILS[1:]))
KINDS = ("own", "other")
"""Whom the picture shows."""
_KEPT = 3
"""Pictures of each person by which the judge knows them."""
_OF_WIDTHS = 10
"""People of whom the gain by width is measured."""
_OTHERS = 500
"""How many people further on the other one is."""


def small_portrait(number: int, scene_of: int, part: int = PART) -> tuple[Picture, Face]:
    """A picture of a person that is mostly background, and their face in it. `part`: side of their portrait there."""
    large = render(sample_identity(number), sample_scene("detail", scene_of), 4 * part)
    portrait = cv2.resize(np.asarray(large.image, np.uint8), (part, part), interpolation=cv2.INTER_AREA)
    top, left, right = SIDE - part, (SIDE - part) // 2, SIDE - part - (SIDE - part) // 2
    picture = cv2.GaussianBlur(cv2.copyMakeBorder(portrait, top, 0, left, right, cv2.BORDER_REPLICATE), (0, 0), 3)
    picture[top:, left : left + part] = portrait
    landmarks = np.asarray(large.landmarks, np.float64) / 4 + (left, top)
    across = 2.2 * float(np.ptp(landmarks[:, 0]))  # as the detector's boxes are
    x, y = landmarks.mean(axis=0)
    return np.asarray(picture, np.uint8), Face(Box(x - across / 2, y - 0.65 * across, across, 1.3 * across), landmarks, 1.0)


def part_of(picture: Picture, part: int = PART) -> Picture:
    """Where the portrait was, as large as one."""
    left = (SIDE - part) // 2
    shown = picture[SIDE - part :, left : left + part]
    return np.asarray(cv2.resize(shown, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), np.uint8)


def evaluate_detail(
    variant: Variant, arguments: argparse.Namespace, output: Path, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything, with a sheet of pictures in the folder `output`."""
    from training.learning.judges import recognise
    from training.run.weights import read_judges

    folder = weights_folder(variant, arguments.weights)
    assert folder is not None
    recogniser, _ = read_judges(folder)
    pipeline = inprocess.load(variant, CPU, build_repository(variant, CPU, arguments.weights), arguments.threads)
    finds = pipeline.search
    scores: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    of_parts: dict[int, dict[str, list[float]]] = {part: {"width": [], "0": [], "0.4": []} for part in PARTS}
    portraits, found, widths, rows = list[float](), list[bool](), list[float](), list[list[Picture]]()
    for number in range(SPLITS["test"], SPLITS["test"] + arguments.people):
        shots = shoot([(sample_identity(number), sample_scene("detail", number, i + 1)) for i in range(_KEPT + 1)])
        person = recognise(recogniser, shots.pictures[:_KEPT]).numpy().mean(axis=0)

        def likeness(picture: Picture, person: Any = person) -> float:
            features = recognise(recogniser, picture[None]).numpy()[0]
            return float(features @ person / (np.linalg.norm(features) * np.linalg.norm(person)))

        asked = {
            "prompt": PROMPT, "face_images": [png(shots.crops[_KEPT])], "face_aligned": True, "seed": number, **settings,
        }  # fmt: skip
        portraits.append(likeness(decoded(pipeline(request_tensors(**asked))["images"][0])))
        for kind in KINDS:
            picture, face = small_portrait(number if kind == "own" else number + _OTHERS, number)
            pipeline.search = lambda pixels, face=face: [face]  # type: ignore[misc]
            made = [
                decoded(
                    pipeline(request_tensors(**asked, image=png(picture), strength=STRENGTH, face_detail=value))["images"][0]
                )
                for value in DETAILS
            ]
            scores[kind].append([likeness(part_of(each)) for each in made])
            found.append(bool(finds(made[0])))
            widths.append(face.box.width)
            if len(rows) < 4:
                rows.append([picture, shots.pictures[_KEPT], *made])
        say(f"{number}: " + ", ".join(f"{kind} {scores[kind][-1][0]:.2f} to {max(scores[kind][-1]):.2f}" for kind in KINDS))
        for part in PARTS if len(portraits) <= _OF_WIDTHS else ():
            picture, face = small_portrait(number, number, part)
            of_parts[part]["width"].append(face.box.width)
            # Larger ones are drawn again here as well: the bound is what is looked for.
            narrow = replace(face, box=face.box._replace(width=min(face.box.width, small_face(variant) - 1.0)))
            pipeline.search = lambda pixels, narrow=narrow: [narrow]  # type: ignore[misc]
            for value in (0.0, 0.4):
                request = request_tensors(**asked, image=png(picture), strength=STRENGTH, face_detail=value)
                of_parts[part][f"{value:g}"].append(likeness(part_of(decoded(pipeline(request)["images"][0]), part)))
        pipeline.search = finds
    save(sheet(rows, SHOWN, 160), output / "detail.png")
    document = {
        "variant": variant.name,
        **{kind: _summary(np.array(of, np.float32)) for kind, of in scores.items()},
        "widths": [
            {
                "width": round(float(np.mean(of["width"])), 1),
                "similarity": mean_and_error(np.array(of["0"], np.float32)),
                "gain": mean_and_error(np.array(of["0.4"], np.float32) - np.array(of["0"], np.float32)),
            }
            for of in of_parts.values()
        ],
        "portrait": mean_and_error(np.array(portraits, np.float32)),
        "found_by_detector": round(float(np.mean(found)), 3),
        "protocol": {
            "people": arguments.people, "people_of_widths": min(_OF_WIDTHS, arguments.people), "settings": dict(settings),
            "side": SIDE, "part": PART, "strength": STRENGTH,
            "mean_face_width": round(float(np.mean(widths)), 1), "small_face": small_face(variant),
        },
    }  # fmt: skip
    write_document(output / RECORD, document)
    return document


def _summary(scores: Any) -> dict[str, Any]:
    """Of [people, details]: likeness to the person at each `face_detail`, and what it gains over none; mean and standard error."""
    return {
        f"{value:g}": {
            "similarity": mean_and_error(scores[:, i]),
            **({"gain": mean_and_error(scores[:, i] - scores[:, 0])} if value else {}),
        }
        for i, value in enumerate(DETAILS)
    }
