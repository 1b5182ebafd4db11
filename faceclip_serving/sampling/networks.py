"""Before the loop and after it: encoders make a prepared request's conditioning, the decoder its pictures, one request at a time.

The networks are functions of named tensors, whatever runs them; nothing here knows of Triton.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..contract.signatures import ENCODERS, VAE_DECODER, components
from ..contract.tensors import Array
from ..contract.variant import Variant
from .life import Lives
from .loop import Finished, Usage, Work

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


def encode_all(lives: Lives) -> None:
    """Encodes request after request, until the end."""
    while (request := lives.next_to_encode()) is not None:
        try:
            work: Work = request.work()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this request's
            lives.give_up(request.place, error)
        else:
            lives.encoded(request, work, work.steps_done)


def decode_all(lives: Lives, networks: Networks) -> None:
    """Decodes request after request, until the end."""
    while (request := lives.next_to_decode()) is not None:
        finished: Finished = request.work
        try:
            image = networks[VAE_DECODER]({"latents": finished.latents})["image"]
        except Exception as error:  # noqa: BLE001 - the same
            lives.give_up(request.place, error)
        else:
            lives.decoded(request, Drawn(image, finished.usage))
