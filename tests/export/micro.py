"""A variant of the smallest sizes that still have every kind of layer, so that an export takes seconds."""

from dataclasses import replace

from faceclip_serving.contract.variants.sdxl import TINY_SDXL

_tiny = TINY_SDXL.architecture

MICRO = replace(
    TINY_SDXL,
    name="micro-sdxl",
    architecture=replace(
        _tiny,
        face=replace(_tiny.face, depth=1),
        towers={name: replace(tower, layers=1) for name, tower in _tiny.towers.items()},
        fuser=replace(_tiny.fuser, rounds=2),
        unet={
            **_tiny.unet,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": (32, 64),
            "attention_head_dim": (2, 4),
            "transformer_layers_per_block": (1, 1),
            "layers_per_block": 1,
        },
        vae={**_tiny.vae, "layers_per_block": 1},
    ),
)
