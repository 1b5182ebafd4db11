"""The flow of one streamed request: the ensemble's steps, with the sampler followed step by step."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from ..contract import operations
from ..contract.models import CONTROL, Step, ensemble_steps
from ..contract.names import FINISH, PREPARE, SAMPLER
from ..contract.operations import Follow, Start
from ..contract.request import to_wire
from ..contract.tensors import Array, json_tensor
from ..contract.variants.variant import Variant
from ..face.photos import encode_picture
from ..marking.marker import Marker, Pixels
from ..sampling.previews import preview
from .audit import FOR_AUDIT, outputs

Arrays = Mapping[str, Array]
Call = Callable[[str, Arrays], dict[str, Array]]
"""Runs a model of the deployment by its role, for the request at hand."""
Flow = Generator[Arrays, None, Arrays]
"""What a public model does for a request: responses on the way; returns the last one."""


def stream(
    variant: Variant, factors: Array, marker: Marker, preview_cells: int, call: Call, arrays: Arrays, place: str
) -> Flow:
    """Progress per step, with a preview where one is wanted, then the ensemble's outputs. `factors`: the variant's preview map, see
    `previews`. `preview_cells`: what previews show at most along the longer side, since nobody has checked them; 0: all."""
    steps = {step.model: step for step in ensemble_steps(variant)}
    previews = bool(arrays["preview"][0]) if "preview" in arrays else False
    known = dict(arrays)
    known |= _outputs(steps[PREPARE], call(PREPARE, _inputs(steps[PREPARE], known)))
    request = json.loads(known["job"][0])["request"]
    call(SAMPLER, {**_inputs(steps[SAMPLER], known), CONTROL.name: operations.encode(Start(previews))})
    while True:
        answer = call(SAMPLER, {CONTROL.name: operations.encode(Follow(place))})
        progress = json.loads(answer["report"][0])
        if "step" not in progress:
            break
        yield {"progress": answer["report"], **_preview(factors, marker, preview_cells, answer.get("latents"), request)}
    known |= _outputs(steps[SAMPLER], answer)
    known |= call(FINISH, _inputs(steps[FINISH], known))
    return {name: known[name] for name in steps[FINISH].outputs}


def _inputs(step: Step, known: Mapping[str, Array]) -> dict[str, Array]:
    return {name: known[bound_to] for name, bound_to in step.inputs.items() if bound_to in known}


def _outputs(step: Step, made: Mapping[str, Array]) -> dict[str, Array]:
    return {step.outputs.get(name, name): array for name, array in made.items()}


def _preview(factors: Array, marker: Marker, cells: int, latents: Array | None, request: Mapping[str, Any]) -> dict[str, Array]:
    """Marked like the pictures themselves, as far as its size allows, with what the log is told of it."""
    if latents is None:
        return {}
    picture = blurred(preview(factors, latents[0]), cells)
    marked = marker.mark(picture, "JPEG", _encode_preview, request["visible_label"])
    return {
        "preview_image": to_wire([marked.file], request["image_encoding"]),
        FOR_AUDIT: json_tensor(outputs([marked], [picture])),
    }


def blurred(picture: Pixels, cells: int) -> Pixels:
    """A picture of the same size that shows `cells` at most along its longer side; 0: as it is."""
    height, width = picture.shape[:2]
    longer = max(height, width)
    if not cells or longer <= cells:
        return picture
    coarse = (max(round(width * cells / longer), 1), max(round(height * cells / longer), 1))
    image = Image.fromarray(picture).resize(coarse, Image.Resampling.BOX)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _encode_preview(image: Pixels, xmp: bytes) -> bytes:
    return encode_picture(image, "JPEG", {}, xmp, quality=80, subsampling="4:2:0")
