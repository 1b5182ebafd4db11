"""One person in several prompted scenes, beside the reference: the picture that shows at a glance what a set of weights can do.

python -m training.contact_sheet --weights weights/nano --output weights/nano/contact_sheet.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from export.outputs import replacing, require_file
from faceclip_serving.contract.numbers import finite

from .errors import TrainingError, exit_code
from .learning.autoencoder import decode_pictures
from .learning.drawing import Guidance, generate
from .learning.identity import face_features
from .networks.conditioning import Faces
from .pictures.crops import aligned_crop, encoder_view
from .pictures.dataset import SPLITS, VIEW
from .run.weights import read_generator, read_vae
from .world.canvas import Image
from .world.people import sample_identity, sample_scene
from .world.render import render

PROMPTS = (
    "A {noun} wearing a red t-shirt, smiling, on a beach.",
    "A {noun} wearing a blue suit, in a library.",
    "A {noun} wearing a green hoodie and a yellow beanie, laughing, in the snow.",
    "A {noun} wearing a purple coat, in the city at night.",
)


def portrait(number: int) -> tuple[Image, Image]:
    """A test person without a hat, seen from the front: the picture (448 x 448) and its aligned crop (448 x 448)."""
    person, scene = sample_identity(SPLITS["test"] + number), sample_scene("portrait", number, pose=0.3)
    shot = render(person, replace(scene, hat="none", expression="smiling", light="soft", time="day", place="garden"), 448)
    return shot.image, aligned_crop(shot.image, shot.landmarks)


def contact_sheet(weights: Path, people: Sequence[int], guidance: Guidance) -> Image:
    """A row per person: reference, then `PROMPTS`. RGB, 128 pixels per cell and a margin."""
    unet, conditioner = read_generator(weights)
    vae = read_vae(weights)
    shots = [portrait(number) for number in people]
    crops: NDArray[np.uint8] = np.stack([encoder_view(crop, VIEW) for _, crop in shots])
    faces = Faces(*face_features(conditioner.encoder.branches[0].face_encoder, crops))
    prompts = [p.format(noun=sample_identity(SPLITS["test"] + n).noun) for n in people for p in PROMPTS]
    references = [[row] for row in range(len(people)) for _ in PROMPTS]
    made = decode_pictures(vae, generate(unet, conditioner, prompts, faces, references, guidance))
    rows = []
    for row, (picture, _) in enumerate(shots):
        reference = cv2.resize(picture, (128, 128), interpolation=cv2.INTER_AREA)
        cells = [reference, *made[row * len(PROMPTS) : (row + 1) * len(PROMPTS)]]
        rows.append(np.concatenate([np.pad(cell, ((4, 4), (4, 4), (0, 0)), constant_values=255) for cell in cells], 1))
    return np.asarray(np.concatenate(rows), np.uint8)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.contact_sheet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, default=Path("weights/nano"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--people", type=int, nargs="+", default=[0, 1, 2], help="numbers of test people")
    parser.add_argument("--guidance-scale", type=finite(zero=True), default=Guidance.text)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument(
        "--portrait", type=Path, help="also write the first person's aligned crop: a reference for `face_aligned`"
    )
    arguments = parser.parse_args(argv)
    return exit_code(lambda: _write(arguments))


def _write(arguments: argparse.Namespace) -> int:
    for file in (arguments.output, arguments.portrait):
        if file is not None:  # before minutes are spent
            require_file(file)
            if not cv2.haveImageWriter(str(file)):
                raise TrainingError(f"{file}: expected the name of a picture, such as sheet.png")
    scale: float = arguments.guidance_scale
    sheet = contact_sheet(arguments.weights, arguments.people, Guidance(text=scale, identity=scale, steps=arguments.steps))
    _save(arguments.output, cv2.resize(sheet, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC))
    if arguments.portrait is not None:
        _save(arguments.portrait, portrait(arguments.people[0])[1])
    return 0


def _save(file: Path, picture: Image) -> None:
    with replacing(file) as partial:
        if not cv2.imwrite(str(partial), picture[:, :, ::-1]):
            raise TrainingError(f"{file}: could not be written; is the disk full?")


if __name__ == "__main__":
    sys.exit(main())
