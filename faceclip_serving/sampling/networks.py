"""Before the loop and after it: encoders make a prepared request's conditioning, the decoder its pictures, one request at a time.

The networks are functions of named tensors, whatever runs them; nothing here knows of Triton.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from ..contract.components import ALIGNED_FACES, components, most_encoded
from ..contract.job import Job
from ..contract.models import FACE_CROPS, LATENT_MASK, RECALLED, SHARES, recalled
from ..contract.names import FACE_ENCODER, TEXT_ENCODER, VAE_DECODER, VAE_ENCODER
from ..contract.tensors import Array
from ..contract.variants.variant import Variant
from ..face.alignment import as_planes
from .edit import Source
from .life import Lives
from .loop import Finished, Look, Usage, Work
from .people import People
from .requests import Request, State

log = logging.getLogger(__name__)

_Found = TypeVar("_Found", bound=Mapping[str, Array])
Run = Callable[[Mapping[str, Array]], dict[str, Array]]
Networks = Mapping[str, Run]
"""Component -> its outputs for its inputs, named as in its signature; the face encoder takes `FACE_CROPS`, see `of_crops`."""


@dataclass(frozen=True)
class Drawn:
    """What a request gets."""

    image: Array
    """[images, 3, height, width] in [0, 1]."""
    usage: Usage


@dataclass(frozen=True)
class Described:
    """What a request gets that draws nothing."""

    features: Mapping[str, Array]
    """Of its faces, as the face encoder finds them."""


def of_crops(run: Callable[[Mapping[str, Array]], _Found]) -> Callable[[Mapping[str, Array]], _Found]:
    """A face encoder of faces as they travel between models."""

    def encoded(arrays: Mapping[str, Array]) -> _Found:
        return run({ALIGNED_FACES.name: np.stack([as_planes(crop) for crop in arrays[FACE_CROPS.name]])})

    return encoded


def encode(variant: Variant, networks: Networks, prepared: Mapping[str, Array]) -> dict[str, Array]:
    """Crops of faces, recalled features, and token ids, as `prepare` gives them -> conditioning of the denoiser and the features.

    The faces of photographs come before those that are recalled.
    """
    signatures = components(variant)
    found: list[Mapping[str, Array]] = []
    if FACE_CROPS.name in prepared:
        found.append(networks[FACE_ENCODER]({FACE_CROPS.name: prepared[FACE_CROPS.name]}))
    if all(tensor.name in prepared for tensor in recalled(variant)):
        found.append({tensor.name: prepared[RECALLED + tensor.name] for tensor in variant.face_features})
    faces = {tensor.name: _joined([each[tensor.name] for each in found]) for tensor in variant.face_features}
    known = {**prepared, **faces}
    texts = {tensor.name: known[tensor.name] for tensor in signatures[TEXT_ENCODER].inputs}
    return {**faces, **encode_texts(variant, networks[TEXT_ENCODER], texts)}


def _joined(arrays: Sequence[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def encode_texts(variant: Variant, run: Run, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The text encoder's outputs for any number of rows, by calls of as many as it takes."""
    per_row = [tensor.name for tensor in components(variant)[TEXT_ENCODER].inputs if tensor.axes[0] == "rows"]
    rows, most = len(arrays[per_row[0]]), most_encoded(variant)
    if rows <= most:
        return run(arrays)
    parts = [run({**arrays, **{name: arrays[name][i : i + most] for name in per_row}}) for i in range(0, rows, most)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def encode_picture(networks: Networks, picture: Array) -> tuple[Array, Array]:
    """RGB [1, 3, height, width] in [0, 1] -> mean and standard deviation of its latents, FP32 [1, channels, height / 8, width / 8] each,
    scaled as the denoiser sees them: latents are `mean + std * noise`.

    Takes as long as a denoiser step or more: to be called where requests are encoded, never between steps.
    """
    moments = networks[VAE_ENCODER]({"picture": picture})
    return moments["latent_mean"], moments["latent_std"]


def source_of(networks: Networks, job: Job, prepared: Mapping[str, Array]) -> Source | None:
    """What a job's pictures start from, of the outputs of `prepare`; None: from noise."""
    if job.begin is None:
        return None
    mask = prepared.get(LATENT_MASK.name)
    return Source(*encode_picture(networks, prepared["picture"]), mask, mask is not None and job.request.strength == 1.0)


def people_of(prepared: Mapping[str, Array]) -> People | None:
    """Where several people are, of the outputs of `prepare`; None: there is one, or nobody."""
    return People(prepared[SHARES.name]) if SHARES.name in prepared else None


def schedule_all(lives: Lives) -> None:
    """Looks schedules up, request after request, until the end."""

    def look_up(request: Request, find: Callable[[], object]) -> None:
        try:
            find()
        except Exception as error:  # noqa: BLE001 - the schedule cannot be run, which is its caller's to change
            lives.give_up(request.place, error)
        else:
            lives.scheduled(request)

    _one_by_one(lives, State.SCHEDULING, look_up)


def encode_all(lives: Lives) -> None:
    """Encodes request after request, until the end."""

    def encode_one(request: Request, begin: Callable[[], Work | Described]) -> None:
        try:
            work = begin()
        except Exception as error:
            log.error("a request failed in the encoders", exc_info=error)
            lives.give_up(request.place, error)
        else:
            if isinstance(work, Described):
                lives.described(request, work)
            else:
                lives.encoded(request, work, work.steps_done)

    _one_by_one(lives, State.ENCODING, encode_one)


def decode_all(lives: Lives, networks: Networks) -> None:
    """Decodes request after request, until the end."""

    def decode_one(request: Request, finished: Finished) -> None:
        try:
            image = decoded(networks[VAE_DECODER], finished)
        except Exception as error:
            log.error("a request failed in the decoder", exc_info=error)
            lives.give_up(request.place, error)
        else:
            if finished.look is None:
                lives.decoded(request, Drawn(image, finished.usage))
            else:
                lives.inspect(request, partial(_inspected, finished.look, image, finished))

    _one_by_one(lives, State.DECODING, decode_one)


def decoded(run: Run, finished: Finished) -> Array:
    """Pictures [images, 3, height, width] in [0, 1]. Parts may be more than a call takes, so each is decoded alone."""
    latents = finished.latents
    if finished.into is None:
        return run({"latents": latents})["image"]
    return finished.into(np.concatenate([run({"latents": latents[i : i + 1]})["image"] for i in range(len(latents))]))


def _inspected(look: Look, image: Array, finished: Finished) -> Work | Drawn:
    return look(image, finished) or Drawn(image, finished.usage)


def inspect_all(lives: Lives) -> None:
    """Seeks what is to be drawn again in decoded pictures, request after request, until the end."""

    def inspect_one(request: Request, look: Callable[[], Work | Drawn]) -> None:
        try:
            found = look()
        except Exception as error:
            if lives.give_up(request.place, error):  # else it has ended meanwhile, and stopped for that
                log.error("a request failed while faces were sought in its pictures", exc_info=error)
        else:
            if isinstance(found, Drawn):
                lives.inspected(request, found)
            else:
                lives.again(request, found, found.steps_done)

    _one_by_one(lives, State.DETAILING, inspect_one)


def _one_by_one(lives: Lives, state: State, work: Callable[[Request, Any], None]) -> None:
    while (found := lives.next_in(state)) is not None:
        work(*found)
        del found  # while it waits for the next one, it holds nothing of the last
