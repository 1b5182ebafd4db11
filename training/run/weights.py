"""Checkpoints -> the committed files: safetensors in FP16, named as the official checkpoint's parts are; and back into modules.

`face_clip_encoder`, `unet` and `vae` are what is served, `face_statistics` tells faces that were learnt from others; `recogniser` and
`classifier` are what evaluation believes; `alignment_*` are the towers and projections of the CLIP-style score. Nothing is stored twice:
equal tensors of a file are one; the peers' encoder, which their training leaves as it was, is `alignment_encoder`; the adapter's denoiser
is that of `text_only`, and `adapter` holds what it adds, as `few_steps` holds what is added to `unet`, a LoRA file. Reading needs no
training data.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError
from torch import Tensor, nn

from export.checkpoint.tensor_files import read_tensors, write_tensors
from export.outputs import OutputError, replacing
from faceclip_serving.contract.names import STATISTICS_FILE

from ..errors import TrainingError
from ..learning.contrastive import AlignmentHeads
from ..learning.face_statistics import face_statistics
from ..learning.few_steps import LowRank
from ..learning.judges import AttributeClassifier, HatColours, Recogniser
from ..networks import nano
from ..networks.adapter import Adapter
from ..networks.conditioning import Conditioner
from ..networks.texts import read_tokenizer
from .work import Work, make_heads

Module = TypeVar("Module", bound=nn.Module)
JOINT, FEW_STEPS, ADAPTER, TEXT_ONLY = "joint", "few_steps", "adapter", "text_only"
_JOINT, _TEXT_ONLY = ("unet", "face_clip_encoder"), ("text_only_unet", "alignment_encoder")
_FILES = {JOINT: _JOINT, FEW_STEPS: (*_JOINT, FEW_STEPS), ADAPTER: (*_TEXT_ONLY, "adapter"), TEXT_ONLY: _TEXT_ONLY}
"""Denoiser, encoder and what else a peer is made of."""
_TAKEN = (
    ("text_only", "align", "conditioner.encoder"),
    ("adapter", "align", "conditioner.encoder"),
    ("adapter", "text_only", "unet"),
)
"""Stage, the earlier one that it takes a module from and leaves it as it was, the module."""


def write_weights(work: Work, folder: Path) -> dict[str, int]:
    """Writes every part whose stage has a checkpoint; returns the sizes of all files in bytes."""

    def trained(stage: str) -> bool:
        return (work.results / f"{stage}.pt").exists()

    for stage, earlier, part in _TAKEN:
        if trained(stage):
            _require_equal(work, stage, earlier, part)
    modules: dict[str, nn.Module] = {"vae": work.vae()}
    parts: dict[str, dict[str, Tensor]] = {}
    if trained("unet"):
        modules["unet"] = work.unet(work.last)
        encoder = work.conditioner(work.last, vit="natural" if trained("natural") else None).encoder
        modules["face_clip_encoder"] = encoder
        parts[Path(STATISTICS_FILE).stem] = half(face_statistics(encoder.branches[0].face_encoder, work.portrayed))
    if trained("few_steps"):
        added = LowRank(work.unet(work.last))
        added.load_state_dict(work.averaged("few_steps", "added"))
        parts[FEW_STEPS] = half(added.factors())
    if trained("text_only"):
        modules["text_only_unet"] = work.unet("text_only")
    if trained("adapter"):
        unet = work.unet("text_only")
        adapter = _adapter(unet)
        unet.load_state_dict(work.averaged("adapter", "unet"))
        adapter.tokens.load_state_dict(work.averaged("adapter", "conditioner.adapter"))
        modules["adapter"] = adapter
    for stage, name, module in (
        ("recogniser", "recogniser", Recogniser()),
        ("attributes", "classifier", AttributeClassifier()),
        ("hats", "hat_colours", HatColours()),
    ):
        if trained(stage):
            module.load_state_dict(work.averaged(stage, name))
            modules[name] = module
    if trained("align"):
        heads, encoder = make_heads(0), work.conditioner("align").encoder
        heads.load_state_dict(work.averaged("align", "heads"))
        modules["alignment_heads"] = heads
        modules["alignment_encoder"] = encoder
    parts |= {name: _narrow(name, module) for name, module in modules.items()}
    for name, tensors in parts.items():
        _require_same(folder / f"{name}.safetensors", tensors)
    for name, tensors in parts.items():
        with replacing(folder / f"{name}.safetensors") as partial:
            write_tensors(tensors, partial)
    return {file.name: file.stat().st_size for file in sorted(folder.glob("*.safetensors"))}


def read_vae(folder: Path) -> AutoencoderKL:
    return _load(folder / "vae.safetensors", nano.make_vae(0))


def read_generator(folder: Path, peer: str = JOINT) -> tuple[UNet2DConditionModel, Conditioner]:
    """The denoiser and its conditioning of the joint encoder, of what draws in a few steps, or of a baseline. Raises `TrainingError`."""
    denoiser, aligned, *more = (folder / f"{name}.safetensors" for name in _FILES[peer])
    unet, encoder = _load(denoiser, nano.make_unet(0)), _load(aligned, nano.make_encoder(0))
    tokens = None
    for file in more:
        if peer == FEW_STEPS:
            added = LowRank(unet)
            added.load_factors(read_tensors(file))
            added.fuse(unet)
        else:
            tokens = _load(file, _adapter(unet)).tokens
    conditioner = Conditioner(encoder, nano.TOKENS, read_tokenizer(folder / "tokenizer"), tokens)
    return unet, conditioner.eval()


def available_peers(folder: Path) -> list[str]:
    """The peers whose weights lie in `folder`."""
    return [peer for peer, files in _FILES.items() if all((folder / f"{file}.safetensors").exists() for file in files)]


def read_alignment(folder: Path) -> tuple[Conditioner, AlignmentHeads]:
    """The aligned text and image towers that the CLIP-style score compares."""
    encoder = _load(folder / "alignment_encoder.safetensors", nano.make_encoder(0))
    conditioner = Conditioner(encoder, nano.TOKENS, read_tokenizer(folder / "tokenizer"))
    return conditioner.eval(), _load(folder / "alignment_heads.safetensors", make_heads(0))


def read_judges(folder: Path) -> tuple[Recogniser, AttributeClassifier]:
    return _load(folder / "recogniser.safetensors", Recogniser()), _load(
        folder / "classifier.safetensors", AttributeClassifier()
    )


def read_hat_judge(folder: Path) -> HatColours:
    return _load(folder / "hat_colours.safetensors", HatColours())


def _adapter(unet: UNet2DConditionModel) -> Adapter:
    return Adapter(unet, nano.ARCHITECTURE.face, nano.ARCHITECTURE.unet["cross_attention_dim"])


def half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point tensors in FP16, others as they are; from any device."""
    return {name: (value.half() if value.is_floating_point() else value).cpu().contiguous() for name, value in tensors.items()}


def _require_equal(work: Work, stage: str, earlier: str, module: str) -> None:
    """Raises `TrainingError` where a module of `_TAKEN` is another one by now."""
    found = work.averaged(stage, module)
    differing = [name for name, value in work.averaged(earlier, module).items() if not torch.equal(value, found[name])]
    if differing:
        raise TrainingError(
            f"stage '{stage}': expected the {module} of stage '{earlier}', which it leaves as it was; {len(differing)} tensors"
            f" differ, the first is {differing[0]}: '{earlier}' was trained again since; delete {stage}.pt and train that again"
        )


def _narrow(name: str, module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a file. Raises `TrainingError` where FP16 cannot hold them."""
    tensors = half(module.state_dict())
    spoilt = [name for name, value in tensors.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if spoilt:
        raise TrainingError(f"{name}.safetensors: FP16 cannot hold {spoilt[:3]}; keep these below 65504")
    return tensors


def _require_same(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises `OutputError` where a file lies that does not hold the very tensors, by name, that are to replace it."""
    if not file.exists():
        return
    try:
        found = set(read_tensors(file))
    except (SafetensorError, OSError):
        found = set()
    if found != set(tensors):
        raise OutputError(
            f"output: expected {file} to be missing, or made by this command, found other weights; choose another folder"
        )


def _load(file: Path, module: Module) -> Module:
    if not file.exists():
        raise TrainingError(f"expected {file}; write it: python -m training weights --work <folder of the training>")
    tensors = read_tensors(file)
    module.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in tensors.items()})
    return module.eval().requires_grad_(False)
