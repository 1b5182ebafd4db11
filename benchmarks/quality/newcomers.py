"""`python -m benchmarks photographs`: does a photograph of somebody whom the model never saw become a well-formed portrait of their type?

Four things are asked of the pictures that a variant makes of photographs. Does the server's detector find a face in each? In how many is
the face as well formed as those that the renderer draws (`form`)? Is the skin nearer to the photograph's than to that of the others? Is
the hair? Skin is the median colour of both cheeks, hair that of a band over the forehead, where a bald head has skin; both are read from
the aligned face, at the same places in photographs and in pictures. A distance is that of CIELAB (1976), in which about 2 can just be
seen.

Two questions, two permutation tests. Are *these* photographs seen in the pictures? If not, the pictures of one prompt could be exchanged
among the photographs. So they are, prompt by prompt, all ways or at random: `p` is the share of the ways whose mean distance is as small.
Would it be so of other people? For that only whole photographs, with all of their pictures, may be exchanged: `p_photographs`, which with
n photographs cannot be below 1 / n!: of four 0.042, of five 0.0083. So that anybody can measure many, lifelike portraits of test people
(`training.world.lifelike`) are measured beside the photographs in the same way.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from export.outputs import require_file
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.variants.architectures import FACE_SIZE
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant
from faceclip_serving.face.alignment import TEMPLATE, Points, fit_similarity, resample
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.face.search import find_faces

from ..measure.drawing import save, sheet
from ..measure.pictures import Picture, decoded, png
from ..measure.report import emit, say
from .form import Form, rendered_form
from .parts import Parts, rendered_parts

PROMPTS = (
    "A person wearing a white shirt, calm, in a library.",
    "A person wearing a blue t-shirt, calm, on a beach.",
    "A person wearing a red hoodie, smiling, in a garden.",
    "A person wearing a green striped sweater, smiling, in a bright kitchen.",
)
"""No hat, and the light of day: colours shall be the person's."""
EXAMPLE = Path("examples/astronaut.jpg")
PERMUTATIONS = 20_000
"""At most; where there are fewer ways, all."""
_ABOVE = 60
"""Pixels over the aligned crop that the hair is sought in."""
_CHEEKS = ((110, 265, 165, 320), (283, 265, 338, 320))
_HAIR = (130, -_ABOVE, 318, 24)
"""Left, top, right, bottom, in pixels of the aligned crop."""
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

Call = Callable[..., Picture]
"""Keywords of a request -> its picture."""
Floats = NDArray[np.float64]


class NewcomersError(UserError):
    """Photographs that cannot be measured; the message says which and why."""


@dataclass(frozen=True)
class Newcomer:
    """A photograph as it is sent, and where its face is."""

    pixels: Picture
    landmarks: Points
    aligned: bool = False


def colours(picture: Picture, landmarks: Points) -> Floats:
    """Of skin and hair, CIELAB: [2, 3]. `landmarks`: [5, 2], order of `TEMPLATE`, in pixels of the picture."""
    similarity = fit_similarity(landmarks, TEMPLATE) + np.array([[0, 0, 0], [0, 0, _ABOVE]])
    seen = resample(picture, similarity, FACE_SIZE, FACE_SIZE + _ABOVE, cv2.BORDER_REPLICATE)
    inside = resample(np.full_like(picture, 255), similarity, FACE_SIZE, FACE_SIZE + _ABOVE)[..., 0] > 127
    lab = np.asarray(cv2.cvtColor(np.float32(seen) / 255, cv2.COLOR_RGB2LAB), np.float64)

    def median(*boxes: tuple[int, int, int, int]) -> Floats:
        parts = [np.s_[top + _ABOVE : bottom + _ABOVE, left:right] for left, top, right, bottom in boxes]
        within = np.concatenate([lab[part][inside[part]] for part in parts])
        rest = np.concatenate([lab[part].reshape(-1, 3) for part in parts])  # where nothing lies within, the edge that repeats
        return np.asarray(np.median(within if len(within) else rest, 0))

    return np.stack([median(*_CHEEKS), median(_HAIR)])


def permuted(distances: Floats, seed: int = 0) -> float:
    """Share of the ways to permute the columns of each of [k, n, n] whose diagonals' mean is at most the one that is there.

    That one counts. NaN: a picture without a face, which goes along and counts nothing.
    """
    k, n, _ = distances.shape
    if math.factorial(min(n, 20)) ** k <= PERMUTATIONS:
        orders = np.array(list(itertools.product(itertools.permutations(range(n)), repeat=k)))
    else:
        r = np.random.default_rng(seed)
        orders = r.permuted(np.tile(np.arange(n), (PERMUTATIONS, k, 1)), axis=2)
        orders[0] = np.arange(n)
    means = np.nanmean(distances[np.arange(k)[:, None], np.arange(n), orders], (1, 2))
    return float((means <= means[0] + 1e-9).mean())


def measure(newcomers: Sequence[Newcomer], call: Call, form: Form, parts: Parts) -> tuple[dict[str, Any], list[list[Picture]]]:
    """The figures, and rows of each photograph with its pictures. Pictures without a face have no colours."""
    detect = YuNet()
    own: list[Floats] = [colours(one.pixels, one.landmarks) for one in newcomers]
    rows: list[list[Picture]] = []
    found = np.full((len(newcomers), len(PROMPTS), 2, 3), np.nan)
    well_formed = 0
    for i, one in enumerate(newcomers):
        sent = {"face_images": [png(one.pixels)], "face_aligned": one.aligned}
        made = [call(prompt=prompt, seed=100 * i + k, **sent) for k, prompt in enumerate(PROMPTS)]
        faces = [find_faces(picture, detect) for picture in made]
        for k, (picture, face) in enumerate(zip(made, faces, strict=True)):
            if face:
                found[i, k] = colours(picture, face[0].landmarks)
        well_formed += sum(form.holds(picture, face[0]) for picture, face in zip(made, faces, strict=True) if face)
        rows.append([_cropped(one), *made])
        say(f"photograph {i + 1} of {len(newcomers)}: a face in {sum(map(bool, faces))} of {len(made)} pictures")
    document: dict[str, Any] = {
        "photographs": len(newcomers),
        "pictures": len(newcomers) * len(PROMPTS),
        "face_found": round(1 - float(np.isnan(found[..., 0, 0]).mean()), 4),
        "well_formed": round(well_formed / (len(newcomers) * len(PROMPTS)), 4),
        **parts.shares([picture for row in rows for picture in row[1:]]),
    }
    for part, name in enumerate(("skin", "hair")):
        apart = found[:, :, None, part] - np.stack(own)[:, part]
        document |= _figures(name, np.linalg.norm(apart, axis=-1).transpose(1, 0, 2))
    return document, rows


def _cropped(one: Newcomer) -> Picture:
    return resample(one.pixels, fit_similarity(one.landmarks, TEMPLATE), FACE_SIZE, FACE_SIZE)


def _figures(name: str, distances: Floats) -> dict[str, Any]:
    """`distances`: by prompt, of the picture of photograph i from photograph j, [k, n, n]; NaN without a face. None where too few."""
    seen = ~np.isnan(distances[:, :, 0]).all(0)
    whole = np.nanmean(distances[:, seen][..., seen], 0)
    n = len(whole)
    return {
        f"{name}_distance": round(float(np.diag(whole).mean()), 2) if n else None,
        f"{name}_distance_shuffled": round(float(whole[~np.eye(n, dtype=bool)].mean()), 2) if n > 1 else None,
        f"{name}_p": round(permuted(distances), 5) if n > 1 else None,
        f"{name}_p_photographs": round(permuted(whole[None]), 5) if n > 1 else None,
    }


def read_photographs(paths: Sequence[Path], aligned: bool) -> list[Newcomer]:
    """Every picture of files and folders; of folders, those of known kinds. Raises `NewcomersError`."""
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    return [_read(file, aligned) for file in files if file in paths or file.suffix.lower() in _SUFFIXES]


def _read(file: Path, aligned: bool) -> Newcomer:
    try:
        with Image.open(file) as picture:
            pixels = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"), np.uint8)
    except OSError as error:
        raise NewcomersError(f"photos: expected a picture that can be read, got {file}: {error}") from None
    if aligned:
        scale = pixels.shape[1] / FACE_SIZE
        return Newcomer(pixels, TEMPLATE * scale, True)
    faces = find_faces(pixels, YuNet())
    if not faces:
        raise NewcomersError(
            f"photos: no face is found in {file}; use another photograph, or --aligned-photos for aligned crops"
        )
    return Newcomer(pixels, faces[0].landmarks)


def lifelike_people(count: int) -> list[Newcomer]:
    """Lifelike portraits of people that no training saw."""
    from training.pictures.crops import aligned_crop
    from training.pictures.dataset import SPLITS
    from training.world.lifelike import lifelike
    from training.world.people import sample_identity

    shots = [lifelike(sample_identity(SPLITS["test"] + i), 0) for i in range(count)]
    return [Newcomer(aligned_crop(shot.image, shot.landmarks), TEMPLATE, True) for shot in shots]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    own = [name for name, variant in VARIANTS.items() if variant.weights == "committed"]
    parser.add_argument("--variant", choices=own, default=own[0], help="one that was trained on the rendered world")
    parser.add_argument("--weights", type=Path, help="folder of its weights (default: weights/<variant>)")
    parser.add_argument(
        "--photos",
        type=Path,
        nargs="+",
        default=[EXAMPLE],
        metavar="PATH",
        help=f"pictures, or folders of them (default: {EXAMPLE})",
    )
    parser.add_argument("--aligned-photos", type=Path, nargs="+", default=[], metavar="PATH", help="aligned crops, likewise")
    parser.add_argument(
        "--people", type=int, default=24, help="lifelike portraits of test people beside them (default: %(default)s)"
    )
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="show the photographs with their pictures")


def run(args: argparse.Namespace) -> int:
    if args.sheet:
        require_file(args.sheet)
    photographs = [*read_photographs(args.photos, False), *read_photographs(args.aligned_photos, True)]
    call = _caller(VARIANTS[args.variant], args.weights)
    faces = (rendered_form(), rendered_parts())
    document, rows = measure(photographs, call, *faces)
    if args.people:
        document["lifelike"], _ = measure(lifelike_people(args.people), call, *faces)
    if args.sheet:
        save(sheet(rows, ["photograph", *PROMPTS], 160), args.sheet)
    emit(f"photographs-{args.variant}", {"variant": args.variant, **document})
    return 0


def _caller(variant: Variant, weights: Path | None) -> Call:
    from export.repository.from_nothing import build_repository

    from ..measure import inprocess

    pipeline = inprocess.load(variant, CPU, build_repository(variant, CPU, weights))

    def call(**values: Any) -> Picture:
        return decoded(pipeline(request_tensors(**values))["images"][0])

    return call
