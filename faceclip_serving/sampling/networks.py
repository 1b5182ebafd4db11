"""Before the loop and after it: encoders make a prepared request's conditioning, the decoder its pictures, one request at a time.

The networks are functions of named tensors, whatever runs them; nothing here knows of Triton.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..contract.components import components
from ..contract.names import ENCODERS, VAE_DECODER
from ..contract.tensors import Array
from ..contract.variant import Variant
from .life import Lives
from .loop import Usage, Work
from .requests import State

log = logging.getLogger(__name__)

Run = Callable[[Mapping[str, Array]], dict[str, Array]]
Networks = Mapping[str, Run]
"""Component -> its outputs for its inputs, named as in its signature."""


@dataclass(frozen=True)
class Drawn:
    """What a request gets."""

    image: Array
    """[images, 3, height, width] in [0, 1]."""
    usage: Usage


def encode(variant: Variant, networks: Networks, prepared: Mapping[str, Array]) -> dict[str, Array]:
    """Aligned faces and token ids, as `prepare` gives them -> conditioning of the denoiser and the faces' features."""
    known = dict(prepared)
    signatures = components(variant)
    for name in ENCODERS:
        known |= networks[name]({tensor.name: known[tensor.name] for tensor in signatures[name].inputs})
    return {name: array for name, array in known.items() if name not in prepared}


def schedule_all(lives: Lives) -> None:
    """Looks schedules up, request after request, until the end."""
    while (found := lives.next_in(State.SCHEDULING)) is not None:
        request, look_up = found
        try:
            look_up()
        except Exception as error:  # noqa: BLE001 - the schedule cannot be run, which is its caller's to change
            lives.give_up(request.place, error)
        else:
            lives.scheduled(request)


def encode_all(lives: Lives) -> None:
    """Encodes request after request, until the end."""
    while (found := lives.next_in(State.ENCODING)) is not None:
        request, begin = found
        try:
            work: Work = begin()
        except Exception as error:
            log.error("a request failed in the encoders", exc_info=error)
            lives.give_up(request.place, error)
        else:
            lives.encoded(request, work, work.steps_done)


def decode_all(lives: Lives, networks: Networks) -> None:
    """Decodes request after request, until the end."""
    while (found := lives.next_in(State.DECODING)) is not None:
        request, finished = found
        try:
            image = networks[VAE_DECODER]({"latents": finished.latents})["image"]
        except Exception as error:
            log.error("a request failed in the decoder", exc_info=error)
            lives.give_up(request.place, error)
        else:
            lives.decoded(request, Drawn(image, finished.usage))
