"""A folder of training: the data, and the networks with what their stages have learnt so far, each made when first asked for.

It holds the rendered data, a checkpoint and a loss curve per stage, and the features and latents computed in between.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from export.networks.faceclip import FaceCLIPEncoder
from export.networks.faceclip.face_vit import FaceTransformer
from export.outputs import replacing, require_own
from export.paths import WEIGHTS

from .. import device
from ..errors import TrainingError
from ..learning.autoencoder import Latents, normalise_latents
from ..learning.contrastive import AlignmentHeads
from ..learning.critic import Critic
from ..learning.diffusion import LATENT_SIDE, SIZE
from ..learning.identity import face_features
from ..learning.natural import Natural, build_natural, photographed
from ..networks import nano
from ..networks.adapter import FaceTokens
from ..networks.conditioning import Conditioner, Faces
from ..networks.texts import read_tokenizer
from ..pictures.dataset import FRONTAL, Pictures, build
from ..pictures.gatherings import Formation, Gatherings, build_gatherings
from ..pictures.photographs import read_folder
from ..recipe import STAGES, Recipe

TOKENIZER = WEIGHTS / "nano" / "tokenizer"

_EVERY = 25
"""Of the training pictures, one in so many tells the latents' mean and spread."""


RECORD = "training.json"
"""What says that a folder is one of training."""


def claim(folder: Path) -> None:
    """Makes a folder of training, or takes one that is. Raises `OutputError` where something else lies.

    Older ones have no record: their checkpoints and data tell.
    """
    older = (*(folder / "checkpoints" / f"{stage}.pt" for stage in STAGES), *(folder / "data").glob("train-*-*.npz"))
    if not any(file.is_file() for file in older):
        require_own(folder, RECORD)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / RECORD) as partial:
        partial.write_text(json.dumps({"made_by": "python -m training"}) + "\n")


class Work:
    """A folder of training: data and results, each made when first asked for."""

    def __init__(self, folder: Path, recipe: Recipe, photographs: Path | None = None) -> None:
        self.folder, self.recipe, self.photographs = folder, recipe, photographs
        self.results = folder / "checkpoints"

    @cached_property
    def data(self) -> Pictures:
        if self.photographs is not None:
            return read_folder(self.photographs, SIZE)
        return build(self.folder / "data", "train", self.recipe.identities, SIZE)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return read_tokenizer(TOKENIZER)

    def averaged(self, stage: str, prefix: str) -> dict[str, torch.Tensor]:
        """The averaged weights of a module of a stage. Raises `TrainingError` where it has no checkpoint."""
        file = self.results / f"{stage}.pt"
        if not file.exists():
            raise TrainingError(f"stage '{stage}': expected {file}; train it: python -m training {stage} --work {self.folder}")
        tensors = torch.load(file, weights_only=True, mmap=True, map_location="cpu")["averages"]
        return {name[len(prefix) + 1 :]: value.clone() for name, value in tensors.items() if name.startswith(prefix + ".")}

    def vit(self, stage: str = "face") -> FaceTransformer:
        """The face encoder after `face`, or after `natural`."""
        vit = nano.make_encoder(self.recipe.seed).branches[0].face_encoder
        vit.load_state_dict(self.averaged(stage, "vit"))
        return vit.eval().requires_grad_(False)

    def vae(self) -> AutoencoderKL:
        vae = nano.make_vae(self.recipe.seed)
        vae.load_state_dict(self.averaged("vae", "vae"))
        normalise_latents(vae, self.data.pictures[::_EVERY])
        if (self.results / "decoder.pt").exists():
            vae.decoder.load_state_dict(self.averaged("decoder", "decoder"))
        return vae.eval().requires_grad_(False)

    @cached_property
    def faces(self) -> Faces:
        """Face features of the training crops."""
        return self._features("faces", self.vit(), len(self.data.crops), lambda: self.data.crops)

    def _features(self, name: str, vit: FaceTransformer, count: int, crops: Callable[[], NDArray[np.uint8]]) -> Faces:
        """Features of so many crops, which are computed once, and anew for another encoder or another number."""
        file, reader = self.results / f"{name}.pt", hashlib.sha256()
        for value in vit.state_dict().values():
            reader.update(value.cpu().numpy().tobytes())
        saved = device.load(file) if file.exists() else {}
        if saved.get("encoder") != reader.hexdigest() or len(saved["classes"]) != count:
            classes, patches = face_features(vit, crops())
            saved = {"classes": classes, "patches": patches, "encoder": reader.hexdigest()}
            with replacing(file) as partial:
                torch.save(saved, partial)
        return Faces(saved["classes"], saved["patches"])

    @property
    def portrayed(self) -> NDArray[np.uint8]:
        """Crops of the training people in both series, [n, VIEW, VIEW, 3]; photographs are one."""
        return self.data.crops if self.photographs is not None else np.concatenate([self.data.crops, self._portraits.crops])

    @cached_property
    def _portraits(self) -> Pictures:
        return build(self.folder / "data", "train", self.recipe.frontal_identities, SIZE, series=FRONTAL)

    @cached_property
    def frontal(self) -> tuple[Pictures, Latents, Faces]:
        """What the denoiser learns from: the series for it, of more people, the training people first; faces by the encoder after
        `natural`: of the usual crops, then of the training people's lifelike ones through cameras."""
        people = self.recipe.frontal_identities
        usual = self.data if people == self.recipe.identities else build(self.folder / "data", "train", people, SIZE)
        shots = self.natural.lifelike.reshape(-1, *self.natural.lifelike.shape[2:])

        def crops() -> NDArray[np.uint8]:
            random = np.random.default_rng([self.recipe.seed, 12])
            torch.manual_seed(self.recipe.seed + 12)
            seen = (photographed(shots[i : i + 64], random).permute(0, 2, 3, 1) for i in range(0, len(shots), 64))
            return np.concatenate([usual.crops, *(np.asarray((device.array(x) * 255).round(), np.uint8) for x in seen)])

        faces = self._features("frontal", self.vit("natural"), len(usual.crops) + len(shots), crops)
        return self._portraits, Latents(self.vae(), self._portraits.pictures), replace(faces, drawn=len(usual.crops))

    def gatherings(self, formation: Formation, share: float) -> tuple[Gatherings, Latents]:
        """Pictures of several of the training people, as many as a `share` of the recipe's, and their latents."""
        pictures = max(1, round(self.recipe.gatherings * share))
        data = build_gatherings(self.folder / "data", formation, pictures, self.data.identities, SIZE)
        return data, Latents(self.vae(), data.pictures, data.people)

    def has(self, stage: str) -> bool:
        return (self.results / f"{stage}.pt").exists()

    @property
    def aligned(self) -> str | None:
        """The stage that denoisers take their text from, where it was trained."""
        return "align" if self.has("align") else None

    @property
    def last(self) -> str:
        """The stage whose denoiser is served."""
        return "together" if self.has("together") else "unet"

    @cached_property
    def natural(self) -> Natural:
        """Crops of the training people, drawn plain and lifelike."""
        return build_natural(self.folder / "data", self.data.split, self.data.identities)

    @cached_property
    def latents(self) -> Latents:
        return Latents(self.vae(), self.data.pictures)

    def conditioner(
        self, stage: str | None, adapter: bool = False, trained: bool = True, vit: str | None = None
    ) -> Conditioner:
        """With the weights of a stage, or fresh ones around the trained face encoder. Only the face encoder is always frozen.

        `vit`: the stage whose face encoder takes the place of the one that `stage` had.
        """
        encoder = nano.make_encoder(self.recipe.seed + 1)
        face_encoder = self.vit()
        for branch in encoder.branches:
            branch.face_encoder.load_state_dict(face_encoder.state_dict())
        tokens = FaceTokens(nano.ARCHITECTURE.face, nano.ARCHITECTURE.unet["cross_attention_dim"]) if adapter else None
        conditioner = Conditioner(encoder, nano.TOKENS, self.tokenizer, tokens)
        if stage is not None:
            conditioner.load_state_dict(self.averaged(stage, "conditioner"), strict=not adapter or stage in ("base", "adapter"))
        if vit is not None:
            conditioner.read_faces_with(self.vit(vit))
        set_trainable(encoder, fusers=trained and not adapter, towers=trained and stage is None)
        return conditioner

    def critic(self) -> Critic | None:
        """None where that stage was not trained."""
        if not (self.results / "critic.pt").exists():
            return None
        critic = make_critic(0)
        critic.load_state_dict(self.averaged("critic", "critic"))
        return critic.eval().requires_grad_(False)

    def unet(self, stage: str | None) -> UNet2DConditionModel:
        """With the weights of a stage, or fresh ones."""
        unet = nano.make_unet(self.recipe.seed + 2)
        if stage is not None:
            unet.load_state_dict(self.averaged(stage, "unet"))
        return unet


def make_heads(seed: int) -> AlignmentHeads:
    torch.manual_seed(seed)
    pooled = list(nano.ARCHITECTURE.towers.values())[-1].width
    return AlignmentHeads(nano.ARCHITECTURE.unet["cross_attention_dim"], pooled, nano.ARCHITECTURE.face.classes)


def make_critic(seed: int) -> Critic:
    torch.manual_seed(seed)
    return Critic(nano.ARCHITECTURE.vae["latent_channels"], LATENT_SIDE)


def set_trainable(encoder: FaceCLIPEncoder, fusers: bool, towers: bool) -> None:
    """What of the encoder learns; never the face encoder, nor what inference does not read.

    Beside a denoiser the text towers stay as the alignment made them: trained along, at this size, they forget words, and a step takes
    a third longer. After 8,000 steps so, 20 % of garments had the prompt's colour; on frozen towers 92 % after 2,600.
    """
    encoder.requires_grad_(towers)
    for branch in encoder.branches:
        branch.fuser.requires_grad_(fusers)
        unused: list[nn.Module | nn.Parameter] = [branch.face_encoder, branch.fuser.enc_output, branch.fuser.enc_output_norm]
        unused += [branch.text_projection, branch.logit_scale, branch.logit_bias]
        for part in unused:
            part.requires_grad_(False)
