"""Recipes, drawn by a server for one photograph: a row each, a picture per option of the choice that changes most.

python -m examples.recipes --server localhost:8001 --aligned --photo examples/portrait.png --output docs/recipes.png travel portrait
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measure.drawing import save, sheet
from benchmarks.measure.pictures import Picture
from faceclip import FaceCLIPError, FaceCLIPPipeline
from faceclip.recipes import find

PORTRAIT = Path(__file__).with_name("portrait.png")
COLUMNS = 7


def drawn(pipe: FaceCLIPPipeline, name: str, photo: Path, aligned: bool, seed: int = 7) -> dict[str, Picture]:
    """A picture for each option of each choice of a recipe, the others at their first; `choice: option` -> RGB."""
    found: dict[str, Picture] = {}
    for choice in find(name).choices:
        for option in choice.options:
            if option is not choice.options[0] or not found:
                result = pipe.recipe(name, **{choice.name: option.name}, face_image=photo, face_aligned=aligned, seed=seed)
                found[f"{choice.name}: {option.name}"] = np.asarray(result.images[0].convert("RGB"))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", metavar="RECIPE")
    parser.add_argument("--server", metavar="URL")
    parser.add_argument("--photo", type=Path, default=PORTRAIT, metavar="FILE")
    parser.add_argument("--aligned", action="store_true", help="the photograph is an aligned crop already")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    asked = parser.parse_args(argv)
    try:
        with FaceCLIPPipeline.from_pretrained(asked.server) as pipe:
            rows = [[*drawn(pipe, name, asked.photo, asked.aligned).items()][:COLUMNS] for name in asked.recipes]
    except FaceCLIPError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    reference = np.asarray(Image.open(asked.photo).convert("RGB"))
    blank = np.full_like(reference, 255)
    pictures = [[reference, *(picture for _, picture in row), *[blank] * (COLUMNS - len(row))] for row in rows]
    labels = ["photograph", *(f"{i + 1}" for i in range(COLUMNS))]
    changed = [f"{name}: {', '.join(label for label, _ in row)}" for name, row in zip(asked.recipes, rows, strict=True)]
    save(sheet(pictures, labels, 128, changed), asked.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
