"""A variant of each family, of the smallest sizes that still have every kind of layer, so that an export takes seconds."""

import warnings
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from export.onnx.export import export_component
from export.onnx.wanted import Export
from export.paths import ROOT, onnx_folder
from faceclip_serving.contract.variants.flux import TINY_FLUX
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.contract.variants.variant import Variant

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

MICRO_FLUX = replace(
    TINY_FLUX,
    name="micro-flux",
    architecture=replace(
        TINY_FLUX.architecture, transformer={**TINY_FLUX.architecture.transformer, "num_layers": 1, "num_single_layers": 1}
    ),
)


def exported(variant: Variant, component: str, precision: str) -> Path:
    """Folder of an exported component, which tests only read: made once, for all processes and runs, while it is up to date."""
    folder = ROOT / onnx_folder(variant) / precision / component
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_component(Export(variant, component, precision), folder)
    return folder
