"""Which tensor of a network a LoRA file means: the spellings of every layer that such files use.

diffusers and peft write a layer's dotted name behind the name of its pipeline part. kohya's scripts write it with underscores, for the
UNet mostly by the names of Stability's own code (input_blocks, middle_block, output_blocks). Text encoders are named as
transformers' CLIP names them. Knows names; nothing of what a LoRA does to a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from faceclip_serving.contract.architectures import SDXLArchitecture
from faceclip_serving.contract.variant import Variant

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Matrix:
    """A matrix, or the part of one, that a LoRA may change."""

    tensor: str
    """Name in the network's state dict."""
    part: tuple[int, int] = (0, 1)
    """(which, of how many) equal parts of its rows: query, key and value may lie in one tensor."""


@dataclass(frozen=True)
class Target:
    """What of a LoRA file is meant for one component."""

    prefixes: tuple[str, ...]
    """Beginnings of its names."""
    layers: Callable[[Variant, State], dict[str, Matrix]]
    """The variant and the network's tensors -> every spelling of each layer, and what it means."""


def _matrices(state: State) -> list[str]:
    return [name.removesuffix(".weight") for name, value in state.items() if name.endswith(".weight") and value.ndim > 1]


# ------------------------------------------------------------------------------------------------------------------- UNet
def _unet_layers(variant: Variant, state: State) -> dict[str, Matrix]:
    architecture = variant.architecture
    assert isinstance(architecture, SDXLArchitecture)
    found: dict[str, Matrix] = {}
    for name in _matrices(state):
        layer = Matrix(f"{name}.weight")
        kohya = (name, stability_name(name, architecture.unet))
        found |= dict.fromkeys((f"unet.{name}", *(f"lora_unet_{each.replace('.', '_')}" for each in kohya)), layer)
    return found


_OUTSIDE_BLOCKS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_IN_RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def stability_name(name: str, unet: Mapping[str, Any]) -> str:
    """The name of a diffusers UNet's layer in Stability's code. `unet`: the UNet's configuration."""
    if name in _OUTSIDE_BLOCKS:
        return _OUTSIDE_BLOCKS[name]
    resnets = unet.get("layers_per_block", 2)
    if name.startswith("mid_block"):
        _, kind, index, *rest = name.split(".")
        place = f"middle_block.{2 * int(index) if kind == 'resnets' else 1}"
    else:
        blocks, block, kind, index, *rest = name.split(".")
        down = blocks == "down_blocks"
        at = int(block)
        in_block = resnets if down else resnets + 1
        number = at * (resnets + 1) + (in_block if kind == "downsamplers" else resnets if kind == "upsamplers" else int(index))
        has_attention = "CrossAttn" in unet["down_block_types" if down else "up_block_types"][at]
        inner = {"resnets": 0, "attentions": 1, "downsamplers": 0, "upsamplers": 1 + has_attention}[kind]
        place = f"input_blocks.{number + 1}.{inner}" if down else f"output_blocks.{number}.{inner}"
    last = ".".join(rest)
    if kind == "resnets":
        last = _IN_RESNET[last]
    elif kind == "downsamplers":
        last = "op"
    return f"{place}.{last}"


# ------------------------------------------------------------------------------------------------------------ text towers
_IN_TOWER = {
    "self_attn.q_proj": ("attn.in_proj_weight", (0, 3)),
    "self_attn.k_proj": ("attn.in_proj_weight", (1, 3)),
    "self_attn.v_proj": ("attn.in_proj_weight", (2, 3)),
    "self_attn.out_proj": ("attn.out_proj.weight", (0, 1)),
    "mlp.fc1": ("mlp.c_fc.weight", (0, 1)),
    "mlp.fc2": ("mlp.c_proj.weight", (0, 1)),
}
_TOWERS = (("text_encoder.", "lora_te1_"), ("text_encoder_2.", "lora_te2_"))
"""The n-th text encoder in such files is the n-th tower."""


def _tower_layers(variant: Variant, state: State) -> dict[str, Matrix]:
    architecture = variant.architecture
    assert isinstance(architecture, SDXLArchitecture)
    found: dict[str, Matrix] = {}
    for (dotted, kohya), (tower, sizes) in zip(_TOWERS, architecture.towers.items(), strict=True):
        for number in range(sizes.layers):
            for clip, (ours, part) in _IN_TOWER.items():
                name = f"text_model.encoder.layers.{number}.{clip}"
                layer = Matrix(f"{tower}.transformer.resblocks.{number}.{ours}", part)
                assert layer.tensor in state, layer.tensor
                found |= dict.fromkeys((f"{dotted}{name}", f"{kohya}{name.replace('.', '_')}"), layer)
    return found


UNET = Target(("unet.", "lora_unet_"), _unet_layers)
TOWERS = Target(tuple(prefix for pair in _TOWERS for prefix in pair), _tower_layers)
