"""Recipes, drawn by a server for one photograph: a row each, whose pictures change one option each, of every choice in turn.

python -m examples.recipes --server localhost:8001 --photo examples/person.png --output docs/recipes.webp travel makeup
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measure.drawing import save, sheet
from benchmarks.measure.pictures import Picture
from faceclip import FaceCLIPError, FaceCLIPPipeline
from faceclip.recipes import find

PORTRAIT = Path(__file__).with_name("portrait.png")
COLUMNS = 7


def drawn(
    pipe: FaceCLIPPipeline, name: str, photo: Path, aligned: bool = False, seed: int = 7, most: int | None = None
) -> dict[str, Picture]:
    """Pictures of a recipe, a changed option each, of every choice in turn, the others at their first; `choice: option` -> RGB.

    `most`: so many of them; None: all options.
    """
    recipe = find(name)
    columns = [[(choice.name, option.name) for option in choice.options] for choice in recipe.choices]
    in_turn = [each for row in zip_longest(*(column[1:] for column in columns)) for each in row if each is not None]
    found: dict[str, Picture] = {}
    for choice, option in [columns[0][0], *in_turn][:most]:
        shown = {"image": photo} if "picture" in recipe.needs else {"face_image": photo, "face_aligned": aligned}
        result = pipe.recipe(name, **{choice: option}, **shown, seed=seed)
        found[f"{choice}: {option}"] = np.asarray(result.images[0].convert("RGB"))
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
            rows = [[*drawn(pipe, name, asked.photo, asked.aligned, most=COLUMNS).items()] for name in asked.recipes]
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
