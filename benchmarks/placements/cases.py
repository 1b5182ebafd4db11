"""What every placement must be able to serve, as requests to a real server, and how an answer is judged.

A placement bounds rows, sizes and tiles; each case leans on one of these bounds. Cases know the public interface alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import Placement, placements
from faceclip_serving.contract.variants.variant import Variant

from ..measure.example import PHOTO, PROMPT
from ..measure.pictures import Picture, picture_psnr_db
from ..measure.running import PLAIN

if TYPE_CHECKING:
    from faceclip import FaceCLIPPipeline

ENDS_WITHIN_S = 60.0
"""A cancelled request must have left the server by then."""
SMALLEST_PSNR_DB = 50.0
"""Between pictures of two placements that differ in the rows of a call alone."""


class WrongAnswer(UserError):
    """A request was served, and not as it was asked for."""


@dataclass(frozen=True)
class Served:
    """A placement on a running server."""

    pipe: FaceCLIPPipeline
    placement: Placement
    in_flight: Callable[[], int]

    def side(self, name: str, end: str) -> int:
        """`height` or `width`, `min` or `max`: the smallest or largest of a picture, as the server tells it, pixels."""
        return int(self.pipe.config.limits[name][end])


@dataclass(frozen=True)
class Case:
    """One kind of request: parameters, and a number of references."""

    options: Mapping[str, Any] = field(default_factory=dict)
    references: int = 1
    sides: tuple[str, str] | None = None
    """Height and width: `min` or `max` of the placement; None: its default size."""

    def run(self, served: Served) -> list[Picture]:
        """The pictures. Raises `WrongAnswer`, and what the client raises."""
        options = {"seed": 3, "num_inference_steps": 2, **self.options}
        if self.sides is not None:
            options |= {name: served.side(name, end) for name, end in zip(("height", "width"), self.sides, strict=True)}
        result = served.pipe(PROMPT, face_images=[PHOTO] * self.references, **options)
        drawn = result.details["parameters"]
        _require(all(options.get(side, drawn[side]) == drawn[side] for side in ("height", "width")), f"drawn: {drawn}")
        expected = _size(options["image"]) if "image" in options else (drawn["height"], drawn["width"])
        pictures = [np.asarray(image) for image in result.images]
        _require(len(pictures) == options.get("num_images_per_prompt", 1), f"pictures: got {len(pictures)}")
        _require(all(picture.shape[:2] == expected for picture in pictures), f"size: got {pictures[0].shape}, not {expected}")
        _require(all(np.ptp(picture) > 0 for picture in pictures), "a picture has one colour only")
        _require(result.details["placement"] == served.placement.name, f"placement: {result.details['placement']}")
        _require(result.details["emulated"] == dict(served.placement.emulated), f"emulated: {result.details['emulated']}")
        _require(len(result.details["faces"]) == self.references, f"references: {len(result.details['faces'])} were used")
        return pictures


WITHOUT_TILES = {"height": 192, "width": 192}
"""Pixels that every placement encodes whole: tiles of other sizes make other pictures."""

CASES: Mapping[str, Case] = {
    "default": Case(),
    "split guidance": Case({"text_guidance_scale": 4.0, "id_guidance_scale": 2.0}),
    "blend": Case({"blend_weight": 0.5}),
    "four pictures": Case({"num_images_per_prompt": 4}),
    "four references": Case({"text_guidance_scale": 4.0, "id_guidance_scale": 2.0}, references=4),
    "from a picture": Case({"image": PHOTO, "strength": 1.0, **WITHOUT_TILES}),
    "within a mask": Case({"image": PHOTO, "mask": "head", "num_images_per_prompt": 2, **WITHOUT_TILES}),
    "tallest from a picture": Case({"image": PHOTO, "strength": 1.0, "num_inference_steps": 1}, sides=("max", "min")),
    "tallest": Case({"num_inference_steps": 1}, sides=("max", "min")),
    "widest": Case({"num_inference_steps": 1}, sides=("min", "max")),
}
LARGEST = Case({"num_inference_steps": 1}, sides=("max", "max"))
"""Minutes and gigabytes where a picture is decoded whole."""


def refuses_larger(served: Served) -> None:
    """One step beyond the largest side is the caller's error, in words."""
    from faceclip import InvalidRequestError

    side = served.side("height", "max") + int(served.pipe.config.limits["height"]["multiple"])
    try:
        served.pipe(PROMPT, height=side, num_inference_steps=1)
    except InvalidRequestError as error:
        _require(str(error).startswith("height: expected"), f"refused in other words: {error}")
    else:
        raise WrongAnswer(f"height {side} was taken, though the largest side is {served.side('height', 'max')}")


def cancels(served: Served) -> None:
    """A stream whose caller leaves gives its place back."""
    stream = served.pipe.stream(PROMPT, face_image=PHOTO, num_inference_steps=100)
    next(stream)
    stream.close()
    deadline = time.monotonic() + ENDS_WITHIN_S
    while served.in_flight():
        _require(time.monotonic() < deadline, f"{served.in_flight()} requests are still in flight after {ENDS_WITHIN_S:.0f} s")
        time.sleep(0.1)


def deployment_of(placement: Placement) -> str:
    """Name under which a server offers a placement beside others."""
    return f"on_{placement.name.replace('-', '_')}"


@contextmanager
def all_served(variant: Variant, folder: Path, names: tuple[str, ...] = ()) -> Iterator[dict[str, Served]]:
    """One real server with a deployment for each placement of the variant, or those named; placement -> it.

    `folder`: for the repository and the log. The server is ready, so a smallest guided request with a face was served by each.
    """
    from export.onnx.wanted import emulated
    from export.paths import onnx_folder
    from export.repository.from_nothing import build_repository
    from faceclip import FaceCLIPPipeline
    from faceclip_serving.contract.operations import Status
    from server.control import ask
    from server.process import Ports, TritonServer

    chosen = {
        name: emulated(variant, placement, onnx_folder(variant))
        for name, placement in placements(variant).items()
        if not names or name in names
    }
    repository = folder / "repository"
    for placement in chosen.values():
        build_repository(variant, placement, deployment=deployment_of(placement), destination=repository)
    with TritonServer(repository, Ports.free(), log=folder / "server.log", settings=PLAIN) as server:
        server.wait_ready(600)

        def served(placement: Placement) -> Served:
            name = deployment_of(placement)
            pipe = FaceCLIPPipeline.from_pretrained(server.url, model=name)
            return Served(pipe, placement, lambda: int(ask(server.connection, Status(), name)["in_flight"]))

        found = {name: served(placement) for name, placement in chosen.items()}
        try:
            yield found
        finally:
            for each in found.values():
                each.pipe.close()


def require_alike(found: Mapping[str, list[Picture]], of: Mapping[str, Placement]) -> dict[str, float]:
    """Placement -> PSNR of its pictures, dB, to those of the placement with the most rows a call and the same precisions.

    Placements without such a one are left out. Raises `WrongAnswer` where a picture depends on the rows.
    """

    def arithmetic(name: str) -> tuple[str, ...]:
        return tuple(execution.precision for execution in of[name].components.values())

    near = {}
    for name in found:
        others = [other for other in found if arithmetic(other) == arithmetic(name)]
        reference = max(others, key=lambda other: of[other].denoiser_rows)
        if reference != name:
            near[name] = round(picture_psnr_db(np.stack(found[name]), np.stack(found[reference])), 1)
            _require(
                near[name] >= SMALLEST_PSNR_DB, f"{name}: {near[name]} dB from the pictures of {reference}, which has more rows"
            )
    return near


def _size(file: Path) -> tuple[int, int]:
    """Height and width of a picture, which a changed one keeps."""
    with Image.open(file) as picture:
        return picture.height, picture.width


def _require(kept: bool, found: str) -> None:
    if not kept:
        raise WrongAnswer(found)
