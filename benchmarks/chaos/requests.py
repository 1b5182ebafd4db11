"""What is asked of the server: a limited set of good requests, bad ones of many kinds, and the order in which they come.

Everything follows from numbers, so that every process knows by itself what request `n` is.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from typing import Any

import numpy as np

from faceclip_serving.contract.names import FACES, STREAM, UNARY
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.schedules import EPSILON_SCHEDULERS
from faceclip_serving.contract.tensors import Array, bytes_tensor

from ..measure.example import ALIGNED, PHOTO
from .brought import DETAIL, NAMES, bad_ones, brought

DISTINCT = 60
"""Good requests that differ."""
SIZES = ((64, 64), (64, 96))
PHOTOGRAPHS = {0: PHOTO, 10: ALIGNED, 20: ALIGNED}
"""Good requests with a photograph, by their number of 30: few, since one costs more than all the rest."""
FOUND = DISTINCT
"""Number of the request that is answered with the faces in a photograph, where others have pictures."""
LONG_STEPS = 150
FEW_STEPS = "LCMScheduler"
"""Takes no more than 50."""


class Kind(Enum):
    """What a request deserves."""

    GOOD = "good"
    """Its picture."""
    BAD = "bad"
    """A refusal that names what is wrong."""
    IMPOSSIBLE = "impossible"
    """The same: its schedule cannot be run, which nobody sees before it is tried."""
    LEAVING = "leaving"
    """Nothing: its caller goes, or its time runs out."""
    DETAILING = "leaving while faces are drawn again"
    """The same: a stream's caller goes when the picture is drawn, and the face in it is looked for or drawn again."""


class Way(Enum):
    """How a caller goes."""

    CANCEL = "cancels the call"
    CLOSE = "closes the connection"
    DEADLINE = "deadline of the call"
    TIMEOUT = "request parameter timeout"
    ID = "faceclip_cancel"


@dataclass(frozen=True)
class Task:
    """One request, and what is to come of it."""

    kind: Kind
    model: str
    tensors: Mapping[str, Array]
    picture: int
    """Number of the good request whose picture is right, where one comes."""
    word: str = ""
    """In a refusal's text."""
    way: Way | None = None
    after_s: float = 0.0
    """When its caller goes."""
    after_steps: int = 0
    """Of a stream: its caller goes when it has heard of so many, instead."""


@cache
def good(number: int, steps: int | None = None) -> Mapping[str, Array]:
    """The tensors of good request `number`. `steps`: many, in place of its own few."""
    rng = random.Random(number)
    height, width = rng.choice(SIZES)
    values: dict[str, Any] = {
        "prompt": f"a portrait, number {number}",
        "seed": rng.randrange(2**32),
        "num_inference_steps": steps or rng.randint(1, 12),
        "scheduler": rng.choice([name for name in EPSILON_SCHEDULERS if not (steps and name == FEW_STEPS)]),
        "num_images_per_prompt": rng.choice((1, 1, 1, 2)),
        "height": height,
        "width": width,
        "guidance_scale": rng.choice((1.0, 5.0)),
        "step_cache": rng.choice((0.0, 0.0, 0.0, 0.02)),
    }
    values |= brought(number, rng)
    if values.keys() & {"strength", "face_detail"}:
        values["num_inference_steps"] = max(2, values["num_inference_steps"])  # else none is left
    face = PHOTOGRAPHS.get(number % 30)
    if face is not None:
        values |= {"face_images": [face.read_bytes()], "face_aligned": face is ALIGNED}
        values |= rng.choice(({}, {"id_guidance_scale": 2.0, "text_guidance_scale": 4.0}, {"blend_weight": 0.5}))
    return request_tensors(**values)


def faces() -> Mapping[str, Array]:
    """The tensors of request `FOUND`."""
    return {"face_images": bytes_tensor([PHOTO.read_bytes()])}


def _text(value: bytes) -> Array:
    return bytes_tensor([value])


def _png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@cache
def bad(sealed: bytes = b"") -> tuple[tuple[Mapping[str, Array | None], str], ...]:
    """Changes that spoil a good request (None: the tensor is left out), and a word of the refusal. `sealed`: an identity."""
    photo = PHOTO.read_bytes()
    whole, real = np.int32, np.float32
    return (
        ({"face_images": _text(b"hello")}, "face_images"),
        ({"face_images": _text(b"")}, "face_images"),
        ({"face_images": _text(photo[: len(photo) // 2]), "face_aligned": np.array([False])}, "face_images"),
        ({"face_images": _text(_png(0, 0))}, "face_images"),
        ({"face_images": _text(_png(20_000, 20_000))}, "face_images"),
        ({"face_images": bytes_tensor([photo] * 5)}, "face_images"),
        ({"prompt": None}, "prompt"),
        ({"prompt": _text(b"")}, "prompt"),
        ({"prompt": _text(b"\xff\xfe")}, "UTF-8"),
        ({"prompt": _text(b"x" * 20_000)}, "prompt"),
        ({"tenant": _text(b"t" * 100)}, "tenant"),
        ({"tenant": _text(b"\xff")}, "tenant"),
        ({"priority": _text(b"urgent")}, "priority"),
        ({"num_inference_steps": np.array([0], whole)}, "num_inference_steps"),
        ({"num_inference_steps": np.array([10_000], whole)}, "num_inference_steps"),
        ({"guidance_scale": np.array([np.nan], real)}, "guidance_scale"),
        ({"guidance_start": np.array([0.9], real), "guidance_end": np.array([0.1], real)}, "guidance_start"),
        ({"height": np.array([67], whole)}, "height"),
        ({"width": np.array([8192], whole)}, "width"),
        ({"num_images_per_prompt": np.array([10**6], whole)}, "num_images_per_prompt"),
        ({"scheduler": _text(b"__init__")}, "scheduler"),
        ({"scheduler_options": _text(b"[" * 9000)}, "scheduler_options"),
        ({"scheduler_options": _text(b'{"\\ud800": 1}')}, "scheduler_options"),
        ({"seed": np.array([-5], np.int64)}, "seed"),
        ({"height": np.array([64.0], real)}, "height"),
        ({"height": np.array([64, 64], whole)}, "height"),
        ({"hight": np.array([64], whole)}, "hight"),
        ({"output_format": _text(b"TIFF")}, "output_format"),
        *bad_ones(sealed),
    )


IMPOSSIBLE = (
    ("dpmpp_2m", b'{"use_karras_sigmas": true, "rescale_betas_zero_snr": true}', 49),
    ("ddim", b'{"rescale_betas_zero_snr": true, "timestep_spacing": "trailing"}', 12),
)
"""Scheduler, options and steps that the scheduler accepts, and fails on in its middle."""


def task(salt: int, number: int, sealed: bytes = b"") -> Task:
    """Request `number` of a storm: 74 of 100 are good. `sealed`: the identity of `ALIGNED`, which is sent in its place at times: that
    gives the same picture."""
    rng = random.Random(f"{salt} {number}")
    picture = rng.randrange(DISTINCT)
    model = rng.choice((UNARY, STREAM))
    tensors = dict(good(picture))
    tensors["tenant"] = _text(rng.choice((b"", b"a", b"b", b"c")))
    tensors["priority"] = _text(rng.choice((b"interactive", b"interactive", b"batch")))
    if sealed and PHOTOGRAPHS.get(picture % 30) is ALIGNED and rng.random() < 0.5:
        tensors = {name: array for name, array in tensors.items() if name not in ("face_images", "face_aligned")}
        tensors["identity"] = _text(sealed)
    if model == STREAM:
        tensors["preview"] = np.array([rng.random() < 0.3])
    asked = Task(Kind.GOOD, model, tensors, picture)
    drawn = rng.random()
    if drawn < 0.10:
        changes, word = rng.choice(bad(sealed))
        spoilt = {name: array for name, array in {**tensors, **changes}.items() if array is not None}
        return replace(asked, kind=Kind.BAD, tensors=spoilt, word=word)
    if drawn < 0.20:
        return replace(asked, kind=Kind.LEAVING, way=rng.choice(list(Way)), after_s=rng.choice((0.05, 0.5, 2.0)) * rng.random())
    if drawn < 0.22:
        scheduler, options, steps = rng.choice(IMPOSSIBLE)
        plain = {name: array for name, array in tensors.items() if name not in NAMES}
        plain |= {"scheduler": _text(scheduler.encode()), "scheduler_options": _text(options)}
        plain |= {"num_inference_steps": np.array([steps], np.int32)}
        return replace(asked, kind=Kind.IMPOSSIBLE, tensors=plain, word="scheduler_options")
    if drawn < 0.25:
        return _leaving_while_detailing(rng)
    if drawn < 0.27:
        searched = Task(Kind.GOOD, FACES, {**faces(), "tenant": tensors["tenant"]}, FOUND)
        leaves = replace(searched, kind=Kind.LEAVING, way=rng.choice(list(Way)), after_s=0.5 * rng.random())
        return rng.choice((searched, leaves))
    return asked


def _leaving_while_detailing(rng: random.Random) -> Task:
    picture = rng.choice([number for number in range(DISTINCT) if number % 10 == DETAIL])
    tensors = good(picture)
    steps = int(tensors["num_inference_steps"][0]) + rng.choice((0, 1))
    return Task(Kind.DETAILING, STREAM, tensors, picture, way=rng.choice((Way.CANCEL, Way.CLOSE, Way.ID)), after_steps=steps)
