"""The whole training as one table of stages over one configuration: seeded, resumable at any moment, each result in a file.

`work/` holds the rendered data, a checkpoint and a loss curve per stage, and the features and latents computed in between. A stage
that finished is loaded, not repeated; deleting its checkpoint trains it anew. `write_weights` makes the committed files.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from tokenizers import Tokenizer
from torch import nn

from export.networks.faceclip import FaceCLIPEncoder
from export.networks.faceclip.face_vit import FaceTransformer

from . import device, nano
from .adapter import FaceTokens, decouple
from .alignment import AlignmentHeads, alignment_stage
from .autoencoder import Latents, decoder_stage, normalise_latents, vae_stage
from .conditioning import Conditioner, Faces
from .critic import Critic, critic_stage
from .dataset import Pictures, build
from .diffusion import JOINT, LATENT_SIDE, SIZE, TEXT_ONLY, Drops, unet_stage
from .identity import face_features, face_stage
from .judges import AttributeClassifier, Recogniser, attribute_stage, recogniser_stage
from .loop import Stage, run
from .photographs import read_folder
from .texts import read_tokenizer

TOKENIZER = Path(__file__).resolve().parents[1] / "weights" / "nano" / "tokenizer"

_EVERY = 25
"""Of the training pictures, one in so many tells the latents' mean and spread."""


@dataclass(frozen=True)
class Recipe:
    """Steps and batches of every stage. After their common start, `base`, the denoiser of the joint encoder learns as long as that of
    `text_only` and then the adapter's attention to it."""

    identities: int = 1600
    face_steps: int = 1200
    vae_steps: int = 4000
    decoder_steps: int = 6000
    align_steps: int = 800
    critic_steps: int = 3600
    base_steps: int = 4000
    unet_steps: int = 14000
    text_only_steps: int = 7000
    adapter_steps: int = 7000
    attribute_steps: int = 2600
    recogniser_steps: int = 1600
    face_batch: int = 64
    vae_batch: int = 8
    vae_patch: int = 64
    align_batch: int = 32
    unet_batch: int = 16
    judge_batch: int = 48
    seed: int = 0
    compiled: bool = False
    """Compile the denoiser; needs a C++ compiler."""


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
        """The averaged weights of a module of a stage. Raises where the stage has no checkpoint."""
        file = self.results / f"{stage}.pt"
        if not file.exists():
            raise FileNotFoundError(
                f"stage '{stage}': expected {file}; train it: python -m training {stage} --work {self.folder}"
            )
        tensors = torch.load(file, weights_only=True, mmap=True, map_location="cpu")["averages"]
        return {name[len(prefix) + 1 :]: value.clone() for name, value in tensors.items() if name.startswith(prefix + ".")}

    def vit(self) -> FaceTransformer:
        vit = nano.make_encoder(self.recipe.seed).branches[0].face_encoder
        vit.load_state_dict(self.averaged("face", "vit"))
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
        file = self.results / "faces.pt"
        if not file.exists():
            classes, patches = face_features(self.vit(), self.data.crops)
            torch.save({"classes": classes, "patches": patches}, file)
        saved = device.load(file)
        return Faces(saved["classes"], saved["patches"])

    @cached_property
    def latents(self) -> Latents:
        return Latents(self.vae(), self.data.pictures)

    def conditioner(self, stage: str | None, adapter: bool = False, trained: bool = True) -> Conditioner:
        """With the weights of a stage, or fresh ones around the trained face encoder. Only the face encoder is always frozen."""
        encoder = nano.make_encoder(self.recipe.seed + 1)
        vit = self.vit()
        for branch in encoder.branches:
            branch.face_encoder.load_state_dict(vit.state_dict())
        tokens = FaceTokens(nano.ARCHITECTURE.face, nano.ARCHITECTURE.unet["cross_attention_dim"]) if adapter else None
        conditioner = Conditioner(encoder, nano.TOKENS, self.tokenizer, tokens)
        if stage is not None:
            conditioner.load_state_dict(self.averaged(stage, "conditioner"), strict=not adapter or stage in ("base", "adapter"))
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


def make_critic(seed: int) -> Critic:
    torch.manual_seed(seed)
    return Critic(nano.ARCHITECTURE.vae["latent_channels"], LATENT_SIDE)


def set_trainable(encoder: FaceCLIPEncoder, fusers: bool, towers: bool) -> None:
    """What of the encoder learns; never the face encoder, nor what inference does not read.

    Beside a denoiser the text towers stay as the alignment made them: trained along, at this size, they forget words. After 8,000 steps
    so, 20 % of garments had the prompt's colour; a denoiser on frozen towers had 92 % after 2,600.
    """
    encoder.requires_grad_(towers)
    for branch in encoder.branches:
        branch.fuser.requires_grad_(fusers)
        unused: list[nn.Module | nn.Parameter] = [branch.face_encoder, branch.fuser.enc_output, branch.fuser.enc_output_norm]
        unused += [branch.text_projection, branch.logit_scale, branch.logit_bias]
        for part in unused:
            part.requires_grad_(False)


def _face(work: Work) -> Stage:
    r = work.recipe
    return face_stage(
        nano.make_encoder(r.seed).branches[0].face_encoder,
        nano.ARCHITECTURE.face,
        work.data,
        r.face_steps,
        r.face_batch,
        r.seed + 1,
    )


def _vae(work: Work) -> Stage:
    r = work.recipe
    return vae_stage(nano.make_vae(r.seed), work.data, r.vae_steps, r.vae_batch, r.vae_patch, r.seed)


def _decoder(work: Work) -> Stage:
    r = work.recipe
    return decoder_stage(work.vae(), work.data, r.decoder_steps, r.vae_batch, r.vae_patch, r.seed + 9)


def _align(work: Work) -> Stage:
    r, architecture = work.recipe, nano.ARCHITECTURE
    torch.manual_seed(r.seed + 5)
    pooled = list(architecture.towers.values())[-1].width
    heads = AlignmentHeads(architecture.unet["cross_attention_dim"], pooled, architecture.face.classes)
    return alignment_stage(work.conditioner(None), heads, work.data, work.faces, r.align_steps, r.align_batch, r.seed + 5)


def _critic(work: Work) -> Stage:
    r = work.recipe
    return critic_stage(make_critic(r.seed + 8), work.data, work.latents, r.critic_steps, r.judge_batch, r.seed + 8)


def _denoiser(name: str, face_tokens: bool = False, drops: Drops = JOINT, onto: str | None = None) -> Callable[[Work], Stage]:
    """All but the base itself start from the base, where there is one, and learn by the critic too.

    `face_tokens`: those of the adapter beside the text, instead of the joint encoder; `onto`: the stage whose denoiser stays as it is,
    and gets attention to these tokens.
    """

    def stage(work: Work) -> Stage:
        r = work.recipe
        base = "base" if name != "base" and (work.results / "base.pt").exists() else None
        aligned = "align" if (work.results / "align.pt").exists() else None
        unet = work.unet(onto or base)
        if onto is not None:
            decouple(unet)
        return unet_stage(
            name,
            unet,
            work.conditioner(base if face_tokens and base else aligned, face_tokens, trained=drops is JOINT),
            work.data,
            work.latents,
            work.faces,
            drops,
            getattr(r, f"{name}_steps"),
            r.unet_batch,
            r.seed + 6,
            compiled=r.compiled,
            critic=work.critic() if base else None,
        )

    return stage


def _recogniser(work: Work) -> Stage:
    torch.manual_seed(work.recipe.seed + 78)
    return recogniser_stage(
        Recogniser(), work.data, work.recipe.recogniser_steps, work.recipe.judge_batch, work.recipe.seed + 78
    )


def _attributes(work: Work) -> Stage:
    torch.manual_seed(work.recipe.seed + 77)
    return attribute_stage(
        AttributeClassifier(), work.data, work.recipe.attribute_steps, work.recipe.judge_batch, work.recipe.seed + 77
    )


STAGES: Mapping[str, Callable[[Work], Stage]] = {
    "face": _face,
    "vae": _vae,
    "decoder": _decoder,
    "align": _align,
    "critic": _critic,
    "base": _denoiser("base", face_tokens=True),
    "unet": _denoiser("unet"),
    "text_only": _denoiser("text_only", drops=TEXT_ONLY),
    "adapter": _denoiser("adapter", face_tokens=True, onto="text_only"),
    "recogniser": _recogniser,
    "attributes": _attributes,
}
"""In the order in which a whole training runs; each needs those above it, the last two only the data."""


def train(work: Work, stage: str, stop_after_s: float | None = None) -> nn.ModuleDict:
    """Runs one stage from where it stopped."""
    return run(STAGES[stage](work), work.results, stop_after_s)


def small(recipe: Recipe, share: float) -> Recipe:
    """The same recipe with every number of steps multiplied by `share`: for trials."""
    steps = {name: max(2, round(value * share)) for name, value in vars(recipe).items() if name.endswith("_steps")}
    return replace(copy.copy(recipe), **steps)


def with_steps(recipe: Recipe, stage: str, steps: int) -> Recipe:
    """The recipe with another number of steps of one stage."""
    names = {"attributes": "attribute"}
    changed: Mapping[str, Any] = {f"{names.get(stage, stage)}_steps": steps}
    return replace(recipe, **changed)
