"""The official files: what each is called, where it comes from, and under which licence. Data only.

A checkpoint folder holds the files of several repositories under one root, each at the path it has in its repository, below
`Part.folder`. A further family adds rows here, and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class License:
    name: str
    url: str
    terms: str
    """What the user must know, in one sentence."""
    must_be_accepted: bool


@dataclass(frozen=True)
class Digest:
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Part:
    """What is downloaded or read as one thing."""

    repository: str
    """`owner/name` on the Hugging Face hub."""
    license: License
    files: tuple[tuple[str, ...], ...]
    """For each needed file the names that it may have below the root: the first is downloaded, the first found is read."""
    strip_prefix: str = ""
    """Removed from the start of tensor names that have it."""
    digest: Digest | None = None
    """Of the only file, where it is known."""
    folder: str = ""
    """Below the root, for files whose paths another repository uses, too."""


CC_BY_NC = License(
    "CC BY-NC 4.0",
    "https://creativecommons.org/licenses/by-nc/4.0/",
    "no commercial use; name the authors",
    must_be_accepted=True,
)
OPENRAIL = License(
    "CreativeML Open RAIL++-M",
    "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/blob/main/LICENSE.md",
    "commercial use is allowed; the use restrictions of its attachment A bind you and those who use your service",
    must_be_accepted=True,
)
MIT = License("MIT", "https://opensource.org/license/mit", "keep the copyright notice", must_be_accepted=False)
CC_BY = License(
    "CC BY 4.0",
    "https://creativecommons.org/licenses/by/4.0/",
    "name the authors: the Language Technology Research Group at the University of Helsinki",
    must_be_accepted=False,
)
FLUX_NON_COMMERCIAL = License(
    "FLUX.1 [dev] Non-Commercial License",
    "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
    "no commercial use of the model; the terms on the repository's page must be accepted there, too",
    must_be_accepted=True,
)

_FACECLIP = "ByteDance/FaceCLIP"
_FLUX_DEV = "black-forest-labs/FLUX.1-dev"
_SDXL_BASE = "stabilityai/stable-diffusion-xl-base-1.0"


def _tokenizer(folder: str) -> Part:
    return Part(_SDXL_BASE, OPENRAIL, ((f"{folder}/vocab.json",), (f"{folder}/merges.txt",)))


def _flux_tokenizer(folder: str, *files: str) -> Part:
    return Part(_FLUX_DEV, FLUX_NON_COMMERCIAL, tuple((f"{folder}/{file}",) for file in files), folder="flux")


def _trustmark(file: str, size: int, digest: str) -> Part:
    return Part("jean-is/trustmark-onnx", MIT, ((file,),), digest=Digest(size, digest), folder="trustmark")


PARTS: Mapping[str, Part] = {
    "face_clip_encoder": Part(_FACECLIP, CC_BY_NC, (("model/face_clip_encoder.pt",),), strip_prefix="model."),
    "unet": Part(_FACECLIP, CC_BY_NC, (("model/unet.pt",),), strip_prefix="model."),
    "vae": Part(
        _SDXL_BASE,
        OPENRAIL,
        (("vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors"),),
    ),
    "face_t5_encoder": Part(_FACECLIP, CC_BY_NC, (("model/face_t5_encoder.pt",),)),
    "dit": Part(_FACECLIP, CC_BY_NC, (("model/dit.pt",),)),
    "tokenizer": _tokenizer("tokenizer"),
    "tokenizer_2": _tokenizer("tokenizer_2"),
    "flux_vae": Part(_FLUX_DEV, FLUX_NON_COMMERCIAL, (("vae/diffusion_pytorch_model.safetensors",),), folder="flux"),
    "trustmark_encoder": _trustmark(
        "encoder_Q.onnx", 17_312_208, "19b3d1b25836130ffd78775a8f61539f993375d1823ef0e59ba5b8dffb4f892d"
    ),
    "trustmark_decoder": _trustmark(
        "decoder_Q.onnx", 47_401_222, "ee3268f057c9dabef680e169302f5973d0589feea86189ed229a896cc3aa88df"
    ),
    "translator": Part(
        "Helsinki-NLP/opus-mt-zh-en",
        CC_BY,
        (("config.json",), ("source.spm",), ("vocab.json",), ("pytorch_model.bin",)),
        folder="translator",
    ),
    "flux_tokenizer": _flux_tokenizer("tokenizer", "vocab.json", "merges.txt"),
    "flux_tokenizer_2": _flux_tokenizer("tokenizer_2", "tokenizer.json"),
}

NEEDED: Mapping[str, tuple[str, ...]] = {
    "sdxl": ("face_clip_encoder", "unet", "vae", "tokenizer", "tokenizer_2"),
    "flux": ("face_t5_encoder", "dit", "flux_vae", "flux_tokenizer", "flux_tokenizer_2"),
}
"""Variant -> the parts that it is made from."""

OPTIONAL = ("trustmark_encoder", "trustmark_decoder", "translator")
"""Parts that no variant is made from: they mark pictures where a server's setting `trustmark` says so, or translate prompts."""
