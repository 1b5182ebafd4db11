"""The flow of one streamed request: the ensemble's steps, with the sampler followed step by step."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping

from PIL import Image

from ..contract import operations
from ..contract.errors import Cancelled, outcome
from ..contract.operations import Admit, End, Follow, Prepare, Start
from ..contract.request import to_wire
from ..contract.signatures import (
    CONTROL,
    FACE_ENCODER,
    FINISH,
    PREPARE,
    SAMPLER,
    TEXT_ENCODER,
    VAE_DECODER,
    Step,
    ensemble_steps,
)
from ..contract.tensors import Array
from ..contract.variant import Variant
from ..sampling.previews import preview
from .holder import Ask, Holder

Call = Callable[[str, Mapping[str, Array]], dict[str, Array]]
"""Runs a model of the server by its role."""


def stream(
    variant: Variant,
    call: Call,
    ask: Ask,
    holder: Holder,
    factors: Array,
    arrays: Mapping[str, Array],
    has_left: Callable[[], bool],
    deadline: float | None = None,
) -> Iterator[dict[str, Array]]:
    """The responses of one request: progress per step, then the ensemble's outputs.

    The place in the sampler comes before any work, and is held until the last response. `has_left`: whether the caller is gone;
    `holder` asks that too, so that a request ends whatever it is waiting for. `factors`: the variant's preview map, see `previews`.
    Raises `Busy`, `Cancelled`, and what the models raise.
    """
    place = ask(Admit(deadline=deadline))["place"]
    holder.hold(place, has_left)
    ended = "ok"
    try:
        yield from _flow(variant, call, place, factors, arrays, has_left, deadline)
    except BaseException as error:  # whatever ends this ends the request
        ended = outcome(error)
        raise
    finally:
        holder.drop(place)
        ask(End(place, ended))


def _flow(
    variant: Variant,
    call: Call,
    place: str,
    factors: Array,
    arrays: Mapping[str, Array],
    has_left: Callable[[], bool],
    deadline: float | None,
) -> Iterator[dict[str, Array]]:
    steps = {step.model: step for step in ensemble_steps(variant)}
    previews = bool(arrays["preview"][0]) if "preview" in arrays else False
    known = dict(arrays)
    known |= call(PREPARE, {**_inputs(steps[PREPARE], known), CONTROL.name: operations.encode(Prepare(place, deadline))})
    for model in (FACE_ENCODER, TEXT_ENCODER):
        _check(has_left)
        known |= call(model, _inputs(steps[model], known))
    encoding = json.loads(known["job"][0])["request"]["image_encoding"]
    call(SAMPLER, {**_inputs(steps[SAMPLER], known), CONTROL.name: operations.encode(Start(previews))})
    while True:
        answer = call(SAMPLER, {CONTROL.name: operations.encode(Follow(place))})
        progress = json.loads(answer["report"][0])
        if "step" not in progress:
            break
        _check(has_left)
        yield {"progress": answer["report"], **_preview(factors, answer.get("latents"), encoding)}
    known |= answer
    for model in (VAE_DECODER, FINISH):
        _check(has_left)
        known |= call(model, _inputs(steps[model], known))
    yield {name: known[name] for name in steps[FINISH].outputs}


def _inputs(step: Step, known: Mapping[str, Array]) -> dict[str, Array]:
    return {name: known[bound_to] for name, bound_to in step.inputs.items() if bound_to in known}


def _check(has_left: Callable[[], bool]) -> None:
    if has_left():
        raise Cancelled("the caller is gone")


def _preview(factors: Array, latents: Array | None, image_encoding: str) -> dict[str, Array]:
    if latents is None:
        return {}
    buffer = io.BytesIO()
    Image.fromarray(preview(factors, latents[0])).save(buffer, "JPEG", quality=80)
    return {"preview_image": to_wire([buffer.getvalue()], image_encoding)}
