"""A variant's components as torch modules: which builder serves which architecture, and how each is exported.

Rows are chosen by the type of `variant.architecture`, so a further family is a further row. Knows where weights come from
(a checkpoint folder or seeded stand-ins) and what tolerance each component's exported form must keep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.names import DENOISER, FACE_ENCODER, TEXT_ENCODER, VAE_DECODER, VAE_ENCODER
from faceclip_serving.contract.variants.architectures import FluxArchitecture, SDXLArchitecture
from faceclip_serving.contract.variants.variant import Variant

from ..checkpoint.adapters import Part, adapters, fuse
from ..checkpoint.deferred import is_large, on_demand
from ..checkpoint.lora import Lora
from ..checkpoint.memory import require_memory
from ..checkpoint.read import load_part
from ..checkpoint.seeded import stand_in
from . import flux, lora_parts, sdxl, vae


class ComponentError(UserError):
    """A component cannot be built; the message says of what and why."""


@dataclass(frozen=True)
class Quantization:
    """What keeps a network's form of fewer bits close to it, see `quantize`."""

    excluded: Callable[[Variant], tuple[str, ...]]
    """Layers that stay as they are in INT8 and FP8 besides `Network.fp32`, by the start of their weights' names; `*` stands for any
    text."""
    smallest_psnr_db: Mapping[str, float]
    """Precision -> how near a picture must be to that of the graph it was made of, dB."""


@dataclass(frozen=True)
class Network:
    """How one component of one family is built, and what its export must keep."""

    build: Callable[[Variant, Callable[..., nn.Module]], nn.Module]
    part: str
    """Checkpoint part that its weights come from, see `parts.PARTS`."""
    tolerance: Mapping[str, float]
    """Precision -> largest error allowed, as a share of the reference's largest absolute value."""
    fp32: tuple[str, ...] = ()
    """Tensors that no product reads, by the start of their names, that stay FP32 in `fp16` besides those of
    `precision.FP32_LAYERS`; `*` stands for any text."""
    wide: tuple[str, ...] = ()
    """Layers, by the start of their names, that multiply in half precision and answer in FP32: see `WideLinear`."""
    fit_half: Callable[[nn.Module, list[tuple[Tensor, ...]]], None] | None = None
    """Brings the network, given example inputs, into a form whose activations fit half precision."""
    lora: tuple[Part, ...] = ()
    """What of a LoRA file changes it."""
    keep_half: tuple[str, ...] = ()
    """Starts of the names of weights that `int8w` and `int4w` leave in FP16: what enters and leaves the network."""
    keep_eight: Callable[[Variant], tuple[str, ...]] = lambda _: ()
    """Starts of the names of weights that `int4w` leaves in INT8: those that pictures show most."""
    shallow: Callable[[Variant], Variant] | None = None
    """The variant with the same widths and fewer blocks, on which parity can be proven by a small machine."""
    quantization: Quantization | None = None
    """None: it is not quantised."""


_TOLERANCE: Mapping[str, float] = {"fp32": 5e-5, "fp16": 1e-2, "int8w": 5e-2, "int4w": 0.3, "int8": 0.15, "fp8": 0.3}
"""A few times what seeded networks of either size err by; metadata.json has the figures of each export.

`int8` and `fp8` are for an engine against the same quantised file on ONNX Runtime, see `verify`; how near that file is to the one it was
made of, `export quantize` judges by pictures (`_NEAR_DB`). Both sides round to the same scales, so what differs is a value that the other
side's arithmetic puts across a boundary: it moves by a whole step, 1/127 of the range in INT8, 1/8 to 1/16 of itself in FP8. Inputs moved
by half precision's rounding led the quantised denoiser of tiny-sdxl to 0.07 (INT8) and 0.17 (FP8) on one runtime, and inputs moved ten
times as far to 0.08 and 0.17; these are twice that. A graph that computes something else errs by about 1.
"""

_NEAR_DB: Mapping[str, float] = {"int8": 28.0, "fp8": 28.0, "int8w": 28.0, "int4w": 28.0}
"""What nano, the only trained network at hand, measured, but for single seeds (docs/measured.md). Different pictures are 10 to 12 dB
apart."""

_UNET_ENDS = ("unet.conv_in", "unet.conv_out", "unet.time_embedding", "unet.add_embedding", "*.time_emb_proj")
_DIT_ENDS = (
    *("transformer.x_embedder", "transformer.context_embedder", "transformer.time_text_embed"),
    *("transformer.norm_out", "transformer.proj_out"),
)
"""What enters and leaves a denoiser; of the UNet, also how time reaches its blocks. Not in 8 bits."""

NETWORKS: Mapping[type, Mapping[str, Network]] = {
    SDXLArchitecture: {
        FACE_ENCODER: Network(sdxl.face_encoder, "face_clip_encoder", _TOLERANCE),
        TEXT_ENCODER: Network(sdxl.text_encoder, "face_clip_encoder", _TOLERANCE, fp32=("no_face_",), lora=lora_parts.TOWERS),
        DENOISER: Network(
            sdxl.denoiser,
            "unet",
            _TOLERANCE,
            keep_half=_UNET_ENDS,
            keep_eight=sdxl.sensitive_weights,
            lora=(lora_parts.UNET,),
            quantization=Quantization(
                lambda variant: (*_UNET_ENDS, "*.conv_shortcut", *sdxl.sensitive_weights(variant)), _NEAR_DB
            ),
        ),
        VAE_ENCODER: Network(sdxl.vae_encoder, "vae", _TOLERANCE, fit_half=vae.fit_half_range),
        VAE_DECODER: Network(sdxl.decoder, "vae", _TOLERANCE, fit_half=vae.fit_half_range),
    },
    FluxArchitecture: {
        FACE_ENCODER: Network(flux.face_encoder, "face_t5_encoder", _TOLERANCE),
        TEXT_ENCODER: Network(
            flux.text_encoder,
            "face_t5_encoder",
            _TOLERANCE,
            fp32=("no_face_",),
            wide=("encoder.encoder_2.t5_encoder.block.*.ff_layer.wo.",),
            shallow=flux.shallow_text_encoder,
            lora=(lora_parts.POOLED,),
        ),
        DENOISER: Network(
            flux.denoiser,
            "dit",
            _TOLERANCE,
            fp32=("transformer.pos_embed",),
            wide=(
                "transformer.x_embedder.",
                "transformer.context_embedder.",
                "transformer.*_blocks.*.norm*.linear.",
                "transformer.*_blocks.*.ff*.net.2.",
                "transformer.*_blocks.*.to_out.0.",
                "transformer.*_blocks.*.to_add_out.",
                "transformer.single_transformer_blocks.*.proj_out.",
            ),
            keep_half=_DIT_ENDS,
            keep_eight=lambda _: ("transformer.*.norm*.linear",),
            shallow=flux.shallow_denoiser,
            lora=(lora_parts.DIT,),
            # The blocks' modulations are 3.2 of 11.9 G weights: were they left out, the transformer would not fit 16 GB.
            quantization=Quantization(lambda _: _DIT_ENDS, _NEAR_DB),
        ),
        VAE_ENCODER: Network(flux.vae_encoder, "flux_vae", _TOLERANCE, fit_half=vae.fit_half_range),
        VAE_DECODER: Network(flux.decoder, "flux_vae", _TOLERANCE, fit_half=vae.fit_half_range),
    },
}


def network(variant: Variant, component: str) -> Network:
    """The row of `NETWORKS` for a component of a variant. Raises `ComponentError`."""
    family = NETWORKS.get(type(variant.architecture))
    if family is None or component not in family:
        raise ComponentError(
            f"component '{component}' of variant '{variant.name}': no builder for {type(variant.architecture).__name__};"
            " add a row to export/networks/components.py"
        )
    return family[component]


def unquantized(variant: Variant, component: str) -> tuple[str, ...]:
    """Layers that stay as they are in INT8 and FP8, by the start of their weights' names. Raises `ComponentError`."""
    row = network(variant, component)
    if row.quantization is None:
        raise ComponentError(
            f"component '{component}' of variant '{variant.name}': no rules for 8 bits in both factors of its products; see"
            " Network.quantization in export/networks/components.py"
        )
    return (*row.fp32, *row.quantization.excluded(variant))


def loras_of(variant: Variant, component: str, loras: Sequence[Lora]) -> list[Lora]:
    """Those that change a component. Raises `LoraError` as `check_loras` does, where any could change it."""
    parts = {part.name for part in network(variant, component).lora}
    if not parts:
        return []
    return [lora for lora, found in zip(loras, check_loras(variant, loras), strict=True) if parts & found]


def check_loras(variant: Variant, loras: Sequence[Lora]) -> list[set[str]]:
    """The parts of a pipeline that each file changes. Reads all of it, and loads it into empty networks.

    Raises `LoraError` for one that is not whole, or not applied as a whole to the variant.
    """
    return [set(adapters(lora, lora_parts.FAMILIES[type(variant.architecture)], variant)) for lora in loras]


def build(
    variant: Variant, component: str, checkpoint: Path | None = None, loras: Sequence[Lora] = (), subset: bool = False
) -> nn.Module:
    """The component in FP32 and evaluation mode, from a checkpoint folder, or with seeded weights where none is given.

    `loras` are fused into its weights: those of `loras_of`.
    Its forward takes and returns the tensors of the component's signature, by position. `notes` of the module says what was
    found while building. Large weights are deferred: run it inside of `deferred.on_demand()`. `subset`: of a shallow variant, which
    takes only a part of the checkpoint's tensors.
    """
    row = network(variant, component)
    defer_large = row.fit_half is None  # which would change weights in place

    def filled(construct: Callable[[], nn.Module], part: str, only: str = "") -> nn.Module:
        with torch.device("meta"):  # no memory before the weights are known
            module = construct()
        later = {name for name, tensor in module.named_parameters() if defer_large and is_large(tensor)}
        needed = {name: tensor for name, tensor in module.state_dict().items() if name.startswith(only) and name not in later}
        require_memory(f"component '{component}' of variant '{variant.name}'", needed.values())
        if checkpoint is not None:
            load_part(module, checkpoint, part, only, defer_large, subset)
        else:
            stand_in(module, only, defer_large)
        for lora in loras:
            fuse(module, variant, row.lora, adapters(lora, lora_parts.FAMILIES[type(variant.architecture)], variant))
        stored = module.state_dict()
        computed = [name for name, _ in module.named_buffers() if name not in stored]
        if computed:
            raise ComponentError(f"part '{part}': buffers {computed} are in no checkpoint and were never computed")
        return module.eval().requires_grad_(False)

    with on_demand():
        return row.build(variant, filled)
