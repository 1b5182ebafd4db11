"""What the invisible mark survives, what it costs in quality and time, and how often it is seen where it is not.

Pictures of the variant, from a server without marks, and photographs: those of examples/, and of the folders that are named. Each
is marked as `finish` does it, attacked, and read by the verifier's reader; unmarked crops of all of them are read as well.
"""

from __future__ import annotations

import argparse
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from export.commandline import add_checkpoint, add_variant
from faceclip_serving.contract.numbers import finite, seconds_or_none
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.settings import resolve
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant
from faceclip_serving.face.photos import encode_picture
from faceclip_serving.marking import watermark
from faceclip_serving.marking.authority import SELF_MADE, make
from faceclip_serving.marking.marker import Marker

from ..measure.example import PHOTO, PROMPT
from ..measure.pictures import Picture, decoded
from ..measure.report import emit, say
from ..measure.running import PLAIN, serving
from .attacks import ATTACKS, BEYOND, Attack

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
PHOTOGRAPHS, GENERATED = "photographs", "generated"
CROP_SIDES = (112, 640)
TIMED_SIDE = 1024


def measure_marks(
    pictures: Mapping[str, Sequence[Picture]], psnr_db: float, crops: int, search_s: float, beyond: bool = True
) -> dict[str, Any]:
    """The report over sets of unmarked pictures, by name of the set."""
    key = secrets.token_bytes(watermark.KEY_BYTES)
    sets = {name: _recovered(each, key, psnr_db, {**ATTACKS, **(BEYOND if beyond else {})}) for name, each in pictures.items()}
    everything = [picture for each in pictures.values() for picture in each]
    whole: dict[str, float] = {
        attack: round(sum(found["recovered"][attack] * found["pictures"] for found in sets.values()) / len(everything), 3)
        for attack in ATTACKS
    }
    return {
        "recovered": whole,
        "psnr_db": round(statistics.mean(found["psnr_db"] for found in sets.values()), 1),
        **_timed(everything),
        "false_alarms": _false_alarms(everything, key, crops, search_s),
        "unmarked_crops": crops,
        "wanted_psnr_db": psnr_db,
        "sets": sets,
    }


def _recovered(pictures: Sequence[Picture], key: bytes, psnr_db: float, attacks: Mapping[str, Attack]) -> dict[str, Any]:
    """Share of the pictures whose id came back, per attack."""
    back = dict.fromkeys(attacks, 0)
    quality, read_s = [], dict.fromkeys(attacks, 0.0)
    for number, picture in enumerate(pictures, 1):
        layout = watermark.layout_of(*picture.shape[:2])
        if layout is None:
            raise ValueError(f"expected pictures of at least {watermark.MIN_SIDE} pixels, got {picture.shape[:2]}")
        mark_id = secrets.randbits(layout.payload.id_bits)
        marked, found_psnr_db = watermark.embed(picture, mark_id, key, psnr_db)
        quality.append(found_psnr_db)
        for name, attack in attacks.items():
            attacked = attack(marked)
            begun = time.perf_counter()
            found = watermark.read(attacked, key)
            read_s[name] = max(read_s[name], time.perf_counter() - begun)
            back[name] += found is not None and int(found.mark_id, 16) == mark_id
        say(f"picture {number} of {len(pictures)}, {picture.shape[1]} x {picture.shape[0]}: {found_psnr_db:.1f} dB")
    return {
        "pictures": len(pictures),
        "recovered": {name: round(count / len(pictures), 3) for name, count in back.items()},
        "psnr_db": round(statistics.mean(quality), 2),
        "read_s_max": {name: round(seconds, 2) for name, seconds in read_s.items()},
    }


def _timed(pictures: Sequence[Picture]) -> dict[str, float]:
    """Milliseconds for a picture of 1024 x 1024, by one thread as in `finish`: the mark alone, and all marks together; medians."""
    cv2.setNumThreads(1)
    largest = max(pictures, key=lambda picture: picture.size)
    picture = np.array(Image.fromarray(largest).resize((TIMED_SIDE, TIMED_SIDE)))
    key = bytes(watermark.KEY_BYTES)
    embed = [_ms(lambda: watermark.embed(picture, 1, key, 43.0)) for _ in range(15)]
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), SELF_MADE)
        settings = {**resolve(CPU, "faceclip", environment={}), "marks_folder": folder}
        marker = Marker.from_settings(settings, "benchmark", "0")
        whole = [
            marker.mark(picture, "PNG", lambda image, xmp: encode_picture(image, "PNG", {}, xmp)).seconds * 1e3
            for _ in range(15)
        ]
    return {"embed_ms": round(statistics.median(embed), 1), "all_marks_ms": round(statistics.median(whole), 1)}


def _ms(call: Any) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1e3


def _false_alarms(pictures: Sequence[Picture], key: bytes, crops: int, search_s: float) -> int:
    """How many of so many unmarked crops, of random places and sizes, have a mark; there should be none."""
    chance, alarms = np.random.default_rng(0), 0
    for number in range(crops):
        picture = pictures[int(chance.integers(len(pictures)))]
        most = min(*picture.shape[:2], CROP_SIDES[1])
        height, width = (int(chance.integers(min(CROP_SIDES[0], most - 1), most)) for _ in range(2))
        top, left = (
            int(chance.integers(0, whole - part + 1)) for whole, part in zip(picture.shape, (height, width), strict=False)
        )
        crop = np.ascontiguousarray(picture[top : top + height, left : left + width])
        alarms += watermark.read(crop, key, search_s) is not None
        if (number + 1) % 100 == 0:
            say(f"{number + 1} unmarked crops, {alarms} false alarms")
    return alarms


def _photographs(folders: Iterable[Path]) -> list[Picture]:
    paths = [PHOTO, *(path for folder in folders for path in sorted(folder.iterdir()) if path.suffix.lower() in ENDINGS)]
    pictures = [np.array(Image.open(path).convert("RGB")) for path in paths]
    return [picture for picture in pictures if watermark.layout_of(*picture.shape[:2]) is not None]


def _generated(variant: Variant, checkpoint: Path | None, count: int) -> list[Picture]:
    with serving(variant, CPU, checkpoint, settings=PLAIN) as (_, pipe):
        made = [
            pipe(PROMPT, face_image=PHOTO.read_bytes(), seed=seed, num_inference_steps=8, output_type="bytes").images[0]
            for seed in range(count)
        ]
    return [decoded(file) for file in made]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    add_checkpoint(parser, "folder of the official layout (default: the variant's own or seeded weights)")
    parser.add_argument(
        "--pictures", type=int, default=12, metavar="N", help="of the variant; 0: photographs alone (default: 12)"
    )
    parser.add_argument(
        "--photos", type=Path, action="append", default=[], metavar="FOLDER", help="more photographs; may be repeated"
    )
    parser.add_argument("--crops", type=int, default=500, metavar="N", help="unmarked crops (default: %(default)s)")
    parser.add_argument(
        "--search",
        type=seconds_or_none,
        default=0.5,
        metavar="SECONDS",
        help="for the scales of an unmarked crop (default: %(default)s)",
    )
    parser.add_argument(
        "--psnr-db", type=finite("dB"), default=43.0, help="strength, as the setting watermark_psnr_db (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    pictures = {PHOTOGRAPHS: _photographs(args.photos)}
    if args.pictures:
        pictures[f"{GENERATED} by {variant.name}"] = _generated(variant, args.checkpoint, args.pictures)
    found = {"variant": variant.name, **measure_marks(pictures, args.psnr_db, args.crops, args.search)}
    emit(f"marks-{variant.name}", found)
    return 1 if found["false_alarms"] else 0
