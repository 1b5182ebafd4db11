"""Checkpoints -> the committed files: safetensors in FP16, named as the official checkpoint's parts are; and back into modules.

`face_clip_encoder`, `unet` and `vae` are what is served; `recogniser` and `classifier` are what evaluation believes; `alignment_*`
are the towers and projections of the CLIP-style score. Peers have the prefix of their name. Nothing is stored twice: equal tensors
of a file are one, and the peers' encoder, which their training leaves as it was, is `alignment_encoder`. Reading needs no
training data.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from export.tensor_files import read_tensors, write_tensors

from . import nano
from .alignment import AlignmentHeads
from .conditioning import Conditioner, FaceTokens
from .judges import AttributeClassifier, Recogniser
from .recipe import Work
from .texts import read_tokenizer

Module = TypeVar("Module", bound=nn.Module)
JOINT, ADAPTER, TEXT_ONLY = "joint", "adapter", "text_only"
_STAGE = {JOINT: "unet", ADAPTER: "adapter", TEXT_ONLY: "text_only"}
_UNET = {JOINT: "unet", ADAPTER: "adapter_unet", TEXT_ONLY: "text_only_unet"}
_ENCODER = {JOINT: "face_clip_encoder", ADAPTER: "alignment_encoder", TEXT_ONLY: "alignment_encoder"}


def write_weights(work: Work, folder: Path) -> dict[str, int]:
    """Writes every part whose stage has a checkpoint; returns the sizes of all files in bytes."""
    for peer in (ADAPTER, TEXT_ONLY):
        if (work.results / "align.pt").exists() and (work.results / f"{_STAGE[peer]}.pt").exists():
            _require_equal(work, _STAGE[peer], work.conditioner(_STAGE[peer], adapter=peer == ADAPTER).encoder)
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / "vae.safetensors", work.vae())
    for peer, stage in _STAGE.items():
        if (work.results / f"{stage}.pt").exists():
            conditioner = work.conditioner(stage, adapter=peer == ADAPTER)
            _save(folder / f"{_UNET[peer]}.safetensors", work.unet(stage))
            _save(folder / f"{_ENCODER[peer]}.safetensors", conditioner.encoder)
            if conditioner.adapter is not None:
                _save(folder / "adapter.safetensors", conditioner.adapter)
    for stage, name, module in (
        ("recogniser", "recogniser", Recogniser()),
        ("attributes", "classifier", AttributeClassifier()),
    ):
        if (work.results / f"{stage}.pt").exists():
            module.load_state_dict(work.averaged(stage, name))
            _save(folder / f"{name}.safetensors", module)
    if (work.results / "align.pt").exists():
        heads, encoder = _heads(), work.conditioner("align").encoder
        heads.load_state_dict(work.averaged("align", "heads"))
        _save(folder / "alignment_heads.safetensors", heads)
        _save(folder / "alignment_encoder.safetensors", encoder)
    return {file.name: file.stat().st_size for file in sorted(folder.glob("*.safetensors"))}


def read_vae(folder: Path) -> AutoencoderKL:
    return _load(folder / "vae.safetensors", nano.make_vae(0))


def read_generator(folder: Path, peer: str = JOINT) -> tuple[UNet2DConditionModel, Conditioner]:
    """The denoiser and its conditioning of the joint encoder or of a baseline. Raises `FileNotFoundError`."""
    unet = _load(folder / f"{_UNET[peer]}.safetensors", nano.make_unet(0))
    encoder = _load(folder / f"{_ENCODER[peer]}.safetensors", nano.make_encoder(0))
    adapter = None
    if peer == ADAPTER:
        adapter = FaceTokens(nano.ARCHITECTURE.face, nano.ARCHITECTURE.unet["cross_attention_dim"])
        adapter = _load(folder / "adapter.safetensors", adapter)
    conditioner = Conditioner(encoder, nano.TOKENS, read_tokenizer(folder / "tokenizer"), adapter)
    return unet, conditioner.eval()


def available_peers(folder: Path) -> list[str]:
    """The peers whose weights lie in `folder`."""
    return [peer for peer, file in _UNET.items() if (folder / f"{file}.safetensors").exists()]


def read_alignment(folder: Path) -> tuple[Conditioner, AlignmentHeads]:
    """The aligned text and image towers that the CLIP-style score compares."""
    encoder = _load(folder / "alignment_encoder.safetensors", nano.make_encoder(0))
    conditioner = Conditioner(encoder, nano.TOKENS, read_tokenizer(folder / "tokenizer"))
    return conditioner.eval(), _load(folder / "alignment_heads.safetensors", _heads())


def read_judges(folder: Path) -> tuple[Recogniser, AttributeClassifier]:
    return _load(folder / "recogniser.safetensors", Recogniser()), _load(
        folder / "classifier.safetensors", AttributeClassifier()
    )


def _heads() -> AlignmentHeads:
    architecture = nano.ARCHITECTURE
    pooled = list(architecture.towers.values())[-1].width
    return AlignmentHeads(architecture.unet["cross_attention_dim"], pooled, architecture.face.classes)


def half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point tensors in FP16, others as they are."""
    return {name: (value.half() if value.is_floating_point() else value).contiguous() for name, value in tensors.items()}


def _require_equal(work: Work, stage: str, encoder: nn.Module) -> None:
    found = encoder.state_dict()
    aligned = work.conditioner("align").encoder.state_dict()
    differing = [name for name, value in aligned.items() if not torch.equal(value, found[name])]
    if differing:
        raise ValueError(
            f"stage '{stage}': expected the encoder of stage 'align', which it leaves as it was; {len(differing)} tensors differ,"
            f" the first is {differing[0]}: 'align' was trained again since; delete {stage}.pt and train that stage again"
        )


def _save(file: Path, module: nn.Module) -> None:
    tensors = half(module.state_dict())
    spoilt = [name for name, value in tensors.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if spoilt:
        raise ValueError(f"{file.name}: FP16 cannot hold {spoilt[:3]}; keep these below 65504")
    write_tensors(tensors, file)


def _load(file: Path, module: Module) -> Module:
    if not file.exists():
        raise FileNotFoundError(f"expected {file}; write it: python -m training weights --work <folder of the training>")
    tensors = read_tensors(file)
    module.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in tensors.items()})
    return module.eval().requires_grad_(False)
