"""The flow of one streamed request: the ensemble's steps, with the sampler followed step by step."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping

from PIL import Image

from ..contract.errors import Cancelled
from ..contract.request import to_wire
from ..contract.signatures import FACE_ENCODER, FINISH, PREPARE, SAMPLER, TEXT_ENCODER, VAE_DECODER, Step, ensemble_steps
from ..contract.tensors import Array, json_tensor
from ..contract.variant import Variant
from ..sampling.previews import preview

Call = Callable[[str, Mapping[str, Array]], dict[str, Array]]
"""Runs a model of the server by name."""


def stream(
    variant: Variant, call: Call, factors: Array, arrays: Mapping[str, Array], is_cancelled: Callable[[], bool]
) -> Iterator[dict[str, Array]]:
    """The responses of one request: progress per step, then the ensemble's outputs. Raises `Cancelled`.

    `factors`: the variant's preview map, see `previews`.
    """
    steps = {step.model: step for step in ensemble_steps(variant)}
    previews = bool(arrays["preview"][0]) if "preview" in arrays else False
    known = dict(arrays)
    for model in (PREPARE, FACE_ENCODER, TEXT_ENCODER):
        known |= call(model, _inputs(steps[model], known))
        _check(is_cancelled)
    encoding = json.loads(known["job"][0])["request"]["image_encoding"]
    control = json_tensor({"op": "start", "previews": previews})
    run = json.loads(call(SAMPLER, {**_inputs(steps[SAMPLER], known), "control": control})["report"][0])["run"]
    try:
        while True:
            answer = call(SAMPLER, {"control": json_tensor({"op": "watch", "run": run})})
            progress = json.loads(answer["report"][0])
            if "step" not in progress:
                break
            _check(is_cancelled)
            yield {"progress": answer["report"], **_preview(factors, answer.get("latents"), encoding)}
    except BaseException:  # whatever ends the following ends the run
        call(SAMPLER, {"control": json_tensor({"op": "cancel", "run": run})})
        raise
    known |= answer
    try:
        for model in (VAE_DECODER, FINISH):
            _check(is_cancelled)
            known |= call(model, _inputs(steps[model], known))
    except BaseException:  # `finish` does this where it comes to that
        reservation = json.loads(known["report"][0])["reservation"]
        call(SAMPLER, {"control": json_tensor({"op": "release", "reservation": reservation})})
        raise
    yield {name: known[name] for name in steps[FINISH].outputs}


def _inputs(step: Step, known: Mapping[str, Array]) -> dict[str, Array]:
    return {name: known[bound_to] for name, bound_to in step.inputs.items() if bound_to in known}


def _check(is_cancelled: Callable[[], bool]) -> None:
    if is_cancelled():
        raise Cancelled("the caller is gone")


def _preview(factors: Array, latents: Array | None, image_encoding: str) -> dict[str, Array]:
    if latents is None:
        return {}
    buffer = io.BytesIO()
    Image.fromarray(preview(factors, latents[0])).save(buffer, "JPEG", quality=80)
    return {"preview_image": to_wire([buffer.getvalue()], image_encoding)}
