"""LoRA files, fused into a network's weights before it is exported: W + scale * alpha / rank * up @ down.

What is served is then one graph with one set of weights, at no cost per step. Every tensor of a file must have a meaning here: a name
that is not understood is an error, never a LoRA half applied. Knows the arithmetic and the files; names are in `lora_names`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.variant import Variant

from .deferred import Fetch, defer, fetch_of, is_deferred
from .digests import sha256
from .lora_names import Target

_DOWN, _UP, _ALPHA = "down", "up", "alpha"
_ENDINGS = {
    ".lora_A.weight": _DOWN,
    ".lora_B.weight": _UP,
    ".lora_down.weight": _DOWN,
    ".lora_up.weight": _UP,
    ".lora.down.weight": _DOWN,
    ".lora.up.weight": _UP,
    ".alpha": _ALPHA,
}
_PROCESSOR = re.compile(r"\.processor\.(to_[a-z]+)_lora\.(down|up)\.weight$")
"""diffusers' first form: `attn1.processor.to_q_lora.down.weight`."""

_SHOWN = 5


class LoraError(UserError):
    """A LoRA file cannot be fused; the message names its keys and says why."""


@dataclass(frozen=True)
class Lora:
    """A file and how strongly it acts."""

    path: Path
    scale: float = 1.0

    def describe(self) -> dict[str, object]:
        """For metadata, without folders of this machine."""
        return {"file": self.path.name, "sha256": sha256(self.path), "scale": self.scale}


def parse_lora(text: str) -> Lora:
    """`style.safetensors:0.8` -> the file and its scale; without a number the scale is 1. Raises `LoraError`."""
    name, colon, number = text.rpartition(":")
    try:
        scale = float(number) if colon else 1.0
    except ValueError:
        name, scale = "", 1.0
    path = Path(name or text)
    if not math.isfinite(scale):
        raise LoraError(f"--lora {text}: expected a finite scale, got {scale}")
    if not path.is_file():
        raise LoraError(f"--lora {text}: expected FILE or FILE:SCALE with an existing .safetensors file, found none at {path}")
    return Lora(path, scale)


def names(lora: Lora) -> list[str]:
    """Names of all tensors in the file. Raises `LoraError`."""
    with _opened(lora) as file:
        return list(file.keys())


def reaches(lora: Lora, target: Target | None) -> bool:
    """Whether the file has anything for a component."""
    return target is not None and any(name.startswith(target.prefixes) for name in names(lora))


def check_names(lora: Lora, targets: Iterable[Target]) -> None:
    """Raises `LoraError` for a file with tensors for none of a variant's components."""
    prefixes = tuple(prefix for target in targets for prefix in target.prefixes)
    strange = [name for name in names(lora) if not name.startswith(prefixes)]
    if strange:
        known = ", ".join(prefixes) or "none: this family takes no LoRA"
        raise LoraError(f"{lora.path.name}: {_some(strange)}: no part of this variant; known beginnings: {known}")


def fuse(module: nn.Module, variant: Variant, target: Target, lora: Lora) -> int:
    """Adds what the file has for `target` to the module's weights, in place; how many layers changed. Raises `LoraError`."""
    state = module.state_dict()
    layers = target.layers(variant, state)
    changes, defaults = _read(lora, target)
    strange = [name for name in changes if name not in layers]
    if strange:
        raise LoraError(
            f"{lora.path.name}: {_some(strange)}: no such layer in the networks of '{variant.name}'; the file was made for another"
            " model, or in a form that is not understood (kohya's and diffusers' LoRA for SDXL are)"
        )
    for name, factors in changes.items():
        layer = layers[name]
        which, of = layer.part
        weight = state[layer.tensor]
        rows = weight.shape[0] // of
        part = slice(which * rows, (which + 1) * rows)
        change = _change(f"{lora.path.name}: '{name}'", factors, defaults, tuple(weight[part].shape)) * lora.scale
        parameter = module.get_parameter(layer.tensor)
        if is_deferred(parameter):
            defer(parameter, _added(fetch_of(parameter), part, change))
        else:
            parameter.data = state[layer.tensor] = _added(weight.clone, part, change)()
    return len(changes)


def _added(fetch: Fetch, part: slice, change: Tensor) -> Fetch:
    """Makes a weight with `change` added to some of its rows."""

    def fused() -> Tensor:
        weight = fetch().float().clone()
        weight[part] += change
        return weight

    return fused


def _change(owner: str, factors: Mapping[str, Tensor], defaults: Mapping[str, Any], shape: tuple[int, ...]) -> Tensor:
    """alpha / rank * up @ down in the shape of the weight, FP32."""
    if not {_DOWN, _UP} <= factors.keys():
        raise LoraError(f"{owner}: expected both factors of a LoRA, got {sorted(factors)}")
    down, up = factors[_DOWN].float(), factors[_UP].float()
    rank = down.shape[0]
    alpha = float(factors[_ALPHA]) if _ALPHA in factors else float(defaults.get("lora_alpha", rank))
    if up.numel() != shape[0] * rank or down.numel() != rank * math.prod(shape[1:]):
        raise LoraError(
            f"{owner}: factors {list(up.shape)} and {list(down.shape)} do not make the layer's {list(shape)}; the file is for"
            " another model"
        )
    divisor = math.sqrt(rank) if defaults.get("use_rslora") else rank
    return (up.reshape(shape[0], rank) @ down.reshape(rank, -1)).reshape(shape) * (alpha / divisor)


def _read(lora: Lora, target: Target) -> tuple[dict[str, dict[str, Tensor]], Mapping[str, Any]]:
    """Layer's spelling -> its factors, for the layers of `target`, and what the file's header says of all of them."""
    found: dict[str, dict[str, Tensor]] = {}
    strange = []
    with _opened(lora) as file:
        for name in file.keys():  # noqa: SIM118 - it is a file, not a mapping
            if not name.startswith(target.prefixes):
                continue
            layer, kind = _split(name)
            if kind is None:
                strange.append(name)
            else:
                found.setdefault(layer, {})[kind] = file.get_tensor(name)
        header = file.metadata() or {}
    if strange:
        raise LoraError(f"{lora.path.name}: {_some(strange)}: not a LoRA's factor; LoHa, LoKr and DoRA are not supported")
    return found, _defaults(lora, header, target)


def _split(name: str) -> tuple[str, str | None]:
    """`unet.mid_block.x.lora_A.weight` -> (`unet.mid_block.x`, `down`); None for what is no factor."""
    old = _PROCESSOR.search(name)
    if old:
        layer = "to_out.0" if old[1] == "to_out" else old[1]
        return f"{name[: old.start()]}.{layer}", old[2]
    for ending, kind in _ENDINGS.items():
        if name.endswith(ending):
            return name.removesuffix(ending), kind
    return name, None


def _defaults(lora: Lora, header: Mapping[str, str], target: Target) -> Mapping[str, Any]:
    """What diffusers writes into the header for a part of the pipeline: alpha and kind of all its layers."""
    settings = json.loads(header.get("lora_adapter_metadata", "{}"))
    found = {key.partition(".")[2]: value for key, value in settings.items() if key.startswith(target.prefixes)}
    special = [key for key in ("use_dora", "alpha_pattern", "lora_bias") if found.get(key)]
    if special:
        raise LoraError(f"{lora.path.name}: its header asks for {', '.join(special)}, which is not supported")
    return found


def _opened(lora: Lora) -> Any:
    try:
        return safe_open(lora.path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise LoraError(f"{lora.path}: expected a safetensors file: {error}") from error


def _some(found: list[str]) -> str:
    return ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
