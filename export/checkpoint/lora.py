"""LoRA files as users have them: read, and checked for all that the file alone can tell.

A file is a list of layers, each with the factors of its change, under one of several spellings. Whatever is no such factor, is half of
one, or is not finite is an error that names it: a LoRA is never applied in half. Knows files and factors; which layer of which network
a name means, and what the factors do to a weight, is in `adapters`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from faceclip_serving.contract.errors import UserError

from .digests import sha256

DOWN, UP, MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"
"""peft's names of a LoRA's factors, and of what makes it a DoRA."""

_FACTOR = re.compile(
    r"""(?P<layer>.+?)(?:
        \.lora_(?P<side>A|B|down|up)(?:\.(?!weight$|bias$)[^.]+)?\.weight       # kohya; peft, with or without its adapter's name
      | [._]lora(?:_linear_layer)?\.(?P<old>down|up)\.weight                    # diffusers: attn1.processor.to_q_lora.down.weight
      | (?<=_lora\d)\.(?P<xlabs>down|up)\.weight                                # x-flux: processor.qkv_lora1.down.weight
      | \.(?P<own>alpha|dora_scale)
      | \.(?P<factor>lora_magnitude_vector|hada_w[12]_[ab]|hada_t[12]|lokr_w[12](?:_[ab])?|lokr_t2)(?:\.(?:.+\.)?(?:weight|default))?
    )""",
    re.VERBOSE,
)
_SIDES = {"A": DOWN, "down": DOWN, "B": UP, "up": UP}

_WHOLE = {
    "lora": ((DOWN, UP),),
    "loha": tuple(("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", *more) for more in ((), ("hada_t1", "hada_t2"))),
    "lokr": tuple(
        (*one, *two)
        for one in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
        for two in (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"), ("lokr_t2", "lokr_w2_a", "lokr_w2_b"))
    ),
}
"""Kind of a change -> the sets of factors that make one whole."""
_RANK_OF = {"lora": (DOWN,), "loha": ("hada_w1_b",), "lokr": ("lokr_w2_b", "lokr_w1_b")}
"""Where a kind's rank can be read: the first axis of the first of these that is there. A LoKr of whole matrices has none."""
_STRENGTHENED = {"lora": (UP,), "loha": ("hada_w1_a",), "lokr": ("lokr_w1", "lokr_w1_a")}
"""The factor that alpha / rank goes into: the first of these that is there."""

_HEADER = "lora_adapter_metadata"
_CONFIG = "adapter_config.json"
_SHOWN = 5


class LoraError(UserError):
    """A LoRA file cannot be fused; the message names its tensors and says why."""


@dataclass(frozen=True)
class Lora:
    """A file and how strongly it acts."""

    path: Path
    scale: float = 1.0

    @property
    def config(self) -> Path | None:
        """peft's `adapter_config.json`, which holds alpha, where it lies beside a file that peft wrote (`adapter_model.safetensors`)."""
        beside = self.path.with_name(_CONFIG)
        return beside if self.path.stem == "adapter_model" and beside.is_file() else None

    def describe(self) -> dict[str, object]:
        """For metadata, without folders of this machine: all that the fused weights follow from."""
        config = {} if self.config is None else {"config_sha256": sha256(self.config)}
        return {"file": self.path.name, "sha256": sha256(self.path), **config, "scale": self.scale, "peft": version("peft")}


@dataclass(frozen=True)
class Layer:
    """The change of one layer, FP32. Its alpha, if it had one, is in the factors: each acts with the strength 1."""

    name: str
    """As the file spells it."""
    kind: str
    """`lora`, `loha` or `lokr`."""
    factors: Mapping[str, Tensor]
    """By peft's names."""
    keys: Mapping[str, str]
    """Factor -> the tensor's name in the file."""


@dataclass(frozen=True)
class Contents:
    """What a file holds."""

    layers: Mapping[str, Layer]
    settings: Mapping[str, Any]
    """What diffusers wrote into the header, such as `unet.lora_alpha`; or peft's configuration, by the names of its own; or nothing."""


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


def read(lora: Lora) -> Contents:
    """All layers of the file. Raises `LoraError` for what is not whole, not finite or not understood."""
    try:
        with safe_open(lora.path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - it is a file, not a mapping
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise LoraError(f"{lora.path}: expected a safetensors file: {error}") from error
    if not tensors:
        raise LoraError(f"{lora.path.name}: has no tensors, so nothing would change; expected the factors of a LoRA")
    grouped, strange = _grouped(tensors)
    if strange:
        raise LoraError(
            f"{lora.path.name}: {some(strange)}: not a factor of a LoRA, DoRA, LoHa or LoKr; it would be left out, and the file applied"
            " in half"
        )
    norms = {name: float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) for name, tensor in tensors.items()}
    endless = [name for name, norm in norms.items() if not math.isfinite(norm)]  # as it is if any value is not
    if endless:
        raise LoraError(
            f"{lora.path.name}: {some(endless)}: holds values that are not finite; the training or the file is broken"
        )
    settings = _settings(lora, header)
    layers = {name: _layer(lora, name, keys, tensors, norms) for name, keys in grouped.items()}
    with_alpha = [keys["alpha"] for keys in grouped.values() if "alpha" in keys]
    if settings and with_alpha:
        raise LoraError(
            f"{lora.path.name}: {some(with_alpha)}: there is an alpha among the tensors and another in the header or {_CONFIG};"
            " expected one"
        )
    return Contents(layers, settings)


def some(found: Iterable[str]) -> str:
    """The first few of many names."""
    names = list(found)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def factor_of(key: str) -> tuple[str, str] | None:
    """A tensor's name -> its layer's, and the factor by peft's name, or `alpha` or `dora_scale`. None for what is no factor."""
    match = _FACTOR.fullmatch(key)
    if match is None:
        return None
    side = match["side"] or match["old"] or match["xlabs"]
    return match["layer"], _SIDES[side] if side else match["own"] or match["factor"]


def _rank(kind: str, factors: Mapping[str, Tensor]) -> int | None:
    """The rank of a change of a kind; None where its factors are not decomposed."""
    return next((factors[name].shape[0] for name in _RANK_OF[kind] if name in factors), None)


def _grouped(names: Iterable[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Layer -> factor -> the tensor's name; and the names that are no factors, or say a factor twice."""
    found: dict[str, dict[str, str]] = {}
    strange = []
    for name in names:
        parsed = factor_of(name)
        if parsed is None or parsed[1] in found.get(parsed[0], {}):
            strange.append(name)
        else:
            found.setdefault(parsed[0], {})[parsed[1]] = name
    return found, strange


def _layer(lora: Lora, name: str, keys: Mapping[str, str], tensors: Mapping[str, Tensor], norms: Mapping[str, float]) -> Layer:
    """`norms`: of all tensors."""
    factors = {factor: tensors[key] for factor, key in keys.items() if factor != "alpha"}
    own = {factor for factor in factors if factor not in (MAGNITUDE, "dora_scale")}
    kind = next((kind for kind, wholes in _WHOLE.items() if any(own == set(whole) for whole in wholes)), None)
    if kind is None:
        raise LoraError(
            f"{lora.path.name}: '{name}': expected all factors of a LoRA, LoHa or LoKr, got only {some(keys.values())}"
        )
    if kind != "lora" and own != factors.keys():
        raise LoraError(f"{lora.path.name}: '{name}': is a {kind} with a DoRA's magnitude, which peft does not know")
    flat = [keys[factor] for factor in own if factors[factor].ndim < 2]
    if flat:
        raise LoraError(f"{lora.path.name}: {some(flat)}: expected a factor of 2 axes or more")
    rank, strength = _rank(kind, factors), 1.0
    if "alpha" in keys and rank is not None:
        alpha = tensors[keys["alpha"]]
        if alpha.numel() != 1:
            raise LoraError(f"{lora.path.name}: '{keys['alpha']}': expected one number, got the shape {list(alpha.shape)}")
        first = next(factor for factor in _STRENGTHENED[kind] if factor in factors)
        strength = float(alpha) / rank
        factors[first] = factors[first] * strength
    largest = math.prod(norms[keys[factor]] for factor in own) * abs(strength * lora.scale)
    if not largest < torch.finfo(torch.float32).max:  # no entry of a product is larger than the product of the norms
        raise LoraError(f"{lora.path.name}: {some(keys.values())}: the product of the factors may leave FP32's range")
    return Layer(name, kind, factors, {factor: key for factor, key in keys.items() if factor != "alpha"})


def _settings(lora: Lora, header: Mapping[str, str]) -> Mapping[str, Any]:
    """What the file says of all its layers at once. Raises `LoraError` for what cannot be read."""
    where, text = f"its header's {_HEADER}", header.get(_HEADER)
    if text is None and lora.config is not None:
        where, text = _CONFIG, lora.config.read_text(errors="replace")
    if not text:
        return {}
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise LoraError(f"{lora.path.name}: {where}: expected JSON: {error}") from error
    if not isinstance(found, dict):
        raise LoraError(f"{lora.path.name}: {where}: expected a JSON object of settings, got {type(found).__name__}")
    return found
