"""LoRA files in every spelling, made for the layers of a network."""

import torch
from safetensors.torch import save_file

from export.checkpoint.lora import Lora
from faceclip_serving.contract.variants.table import VARIANTS

from .kohya_names import kohya_name

FLUX = VARIANTS["tiny-flux"]
BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
QUERY, OUT, FEED, RESNET = (
    f"{BLOCK}.attn1.to_q",
    f"{BLOCK}.attn2.to_out.0",
    f"{BLOCK}.ff.net.0.proj",
    "mid_block.resnets.1.conv1",
)
UNET_LAYERS = (QUERY, OUT, FEED, RESNET, "time_embedding.linear_1", "conv_in")
CLIP = "text_model.encoder.layers.0"
LINEAR = [QUERY, OUT, FEED]
EVERY = [*LINEAR, RESNET]
SCALE = 0.7
IN_CLIP = [f"{CLIP}.self_attn.{name}" for name in ("q_proj", "v_proj", "out_proj")] + [f"{CLIP}.mlp.fc1", f"{CLIP}.mlp.fc2"]
DOUBLE, SINGLE = "transformer_blocks.0", "single_transformer_blocks.0"
FLUX_LAYERS = [
    *(f"{DOUBLE}.{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "ff.net.0.proj", "norm1.linear")),
    f"{SINGLE}.proj_out",
]


def factors(layer, rank, seed):
    """Both factors of a LoRA for a layer, as peft names and shapes them."""
    generator = torch.Generator().manual_seed(seed)
    weight = layer.weight
    down, up = (rank, *weight.shape[1:]), (weight.shape[0], rank, *(1,) * (weight.ndim - 2))
    return {
        "lora_A.weight": torch.randn(down, generator=generator) * 0.2,
        "lora_B.weight": torch.randn(up, generator=generator) * 0.2,
    }


def adapter(network, layers, prefix="", ranks=(3,)):
    """A LoRA as diffusers writes it today: `unet.conv_in.lora_A.weight`."""
    tensors = {}
    for seed, name in enumerate(layers):
        for factor, value in factors(network.get_submodule(name), ranks[seed % len(ranks)], seed).items():
            tensors[f"{prefix}{name}.{factor}"] = value
    return tensors


def spelt(tensors, layer_name, down, up, alpha=None):
    """The same file in another spelling, with an alpha for every layer if one is given."""
    renamed = {}
    for key, value in tensors.items():
        layer, factor = key.split(".lora_")
        renamed[layer_name(layer) + (down if factor[0] == "A" else up)] = value
        if alpha is not None:
            renamed[f"{layer_name(layer)}.alpha"] = torch.tensor(alpha)
    return renamed


def in_kohya(tensors, unet, alpha=None):
    return spelt(tensors, lambda name: kohya_name(name, unet.config), ".lora_down.weight", ".lora_up.weight", alpha)


def written(tmp_path, tensors, scale=SCALE, name="style.safetensors", **header):
    path = tmp_path / name
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path, metadata=header or None)
    return Lora(path, scale)


def kohya_text(number):
    return lambda name: f"lora_te{number}_" + name.replace(".", "_")


def in_kohyas_flux(transformer):
    """kohya's names: query, key and value are one layer."""
    width = transformer.get_submodule(f"{DOUBLE}.attn.to_q").weight.shape[0]
    names = {
        "double_blocks_0_img_attn_qkv": (3 * width, width), "double_blocks_0_img_attn_proj": (width, width),
        "double_blocks_0_img_mlp_0": (4 * width, width), "double_blocks_0_img_mod_lin": (6 * width, width),
        "single_blocks_0_linear2": (width, 5 * width),
    }  # fmt: skip
    tensors, generator = {}, torch.Generator().manual_seed(1)
    for name, (rows, columns) in names.items():
        tensors |= {
            f"lora_unet_{name}.lora_down.weight": torch.randn(4, columns, generator=generator) * 0.2,
            f"lora_unet_{name}.lora_up.weight": torch.randn(rows, 4, generator=generator) * 0.2,
            f"lora_unet_{name}.alpha": torch.tensor(2.0),
        }
    return tensors
