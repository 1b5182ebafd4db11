"""Every stage of the recipe, made from a folder of training: its networks, its data, its numbers.

A stage that finished is loaded, not repeated; deleting its checkpoint trains it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn

from ..learning.autoencoder import decoder_stage, vae_stage
from ..learning.contrastive import alignment_stage
from ..learning.critic import critic_stage
from ..learning.diffusion import JOINT, LATENT_SIDE, TEXT_ONLY, Drops, Lesson, Pace, unet_stage
from ..learning.few_steps import DROPS, few_steps_stage
from ..learning.identity import face_stage
from ..learning.judges import AttributeClassifier, HatColours, Recogniser, attribute_stage, hat_stage, labels, recogniser_stage
from ..learning.loop import Stage, run
from ..learning.natural import natural_stage
from ..networks import nano
from ..networks.adapter import decouple
from ..pictures.details import details_of
from ..pictures.gatherings import ALONE, PAIR, THREE, Formation
from .work import Work, let_towers_learn, make_critic, make_heads

_LIFELIKE = 0.3
_FINISHING = Pace(8e-4, warm_up=200, cool_down=0.35, average=0.9985, critic_weight=1.5, slower_rate=0.3)
_DETAILS = Pace(4e-4, warm_up=100, cool_down=0.6, average=0.999, critic_weight=1.5)
_TOGETHER = replace(_DETAILS, learning_rate=3e-4)
_DISTILLED_GUIDANCE = 3.0


def _face(work: Work) -> Stage:
    r = work.recipe
    vit = nano.make_encoder(r.seed).branches[0].face_encoder
    return face_stage(vit, nano.ARCHITECTURE.face, work.data, r.face_steps, r.face_batch, r.seed + 1)


def _vae(work: Work) -> Stage:
    r = work.recipe
    return vae_stage(nano.make_vae(r.seed), work.data, r.vae_steps, r.vae_batch, r.vae_patch, r.seed)


def _decoder(work: Work) -> Stage:
    r = work.recipe
    return decoder_stage(work.vae(), work.data, r.decoder_steps, r.vae_batch, r.vae_patch, r.seed + 9)


def _align(work: Work) -> Stage:
    r = work.recipe
    heads = make_heads(r.seed + 5)
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
        conditioner = work.conditioner(base if face_tokens and base else aligned, face_tokens, trained=drops is JOINT)
        critic = work.critic() if base else None
        lesson = Lesson(work.data, work.latents, work.faces, drops, r.unet_batch, critic)
        return unet_stage(name, unet, conditioner, [lesson], getattr(r, f"{name}_steps"), r.seed + 6, compiled=r.compiled)

    return stage


def _natural(work: Work) -> Stage:
    r = work.recipe
    conditioner = work.conditioner("unet", trained=False)
    return natural_stage(
        work.vit(), conditioner, work.data, work.faces, work.natural, r.natural_steps, r.natural_batch, r.seed + 11
    )


def _finish(work: Work) -> Stage:
    """What is served goes on: portraits of the series that a prompt can ask for, faces also as photographs show them."""
    r = work.recipe
    conditioner = work.conditioner("unet", vit="natural")
    pace = replace(_FINISHING, slower=let_towers_learn(conditioner.encoder))
    lesson = _finishing(work, JOINT, r.finish_batch)
    return unet_stage("finish", work.unet("unet"), conditioner, [lesson], r.finish_steps, r.seed + 12, r.compiled, pace)


def _finishing(work: Work, drops: Drops, batch: int) -> Lesson:
    data, critic = work.finishing, work.critic()
    named = None if critic is None else labels(data)
    latents, faces = work.finishing_latents, work.finishing_faces
    return Lesson(data, latents, faces, drops, batch, critic, _LIFELIKE, named, work.vae())


def _details(work: Work) -> Stage:
    """What is served goes on once more: eyes and mouths."""
    r, start = work.recipe, work.last_before("details")
    conditioner, lesson = work.conditioner(start, vit="natural"), _detailed(work, r.details_identities, r.details_batch)
    return unet_stage("details", work.unet(start), conditioner, [lesson], r.details_steps, r.seed + 14, r.compiled, _DETAILS)


def _detailed(work: Work, people: int, batch: int) -> Lesson:
    return _with_details(Lesson(*work.frontal(people), JOINT, batch, work.critic(), _LIFELIKE, vae=work.vae()))


def _with_details(lesson: Lesson) -> Lesson:
    named = None if lesson.critic is None else labels(lesson.data)
    return replace(lesson, named=named, details=details_of(lesson.data, LATENT_SIDE))


def _together(work: Work) -> Stage:
    """What is served goes on: several people, and wide pictures, beside the lesson of before."""
    r = work.recipe
    start = work.last_before("together")
    conditioner, portraits = work.conditioner(start, vit="natural"), _detailed(work, r.identities, 2 * r.together_batch)

    def gathered(formation: Formation, share: float) -> Lesson:
        data, latents = work.gatherings(formation, share)
        rows = round(2 * r.together_batch / formation.across)
        return _with_details(replace(portraits, data=data, latents=latents, batch=rows))

    pair, three, alone = gathered(PAIR, 0.6), gathered(THREE, 0.15), gathered(ALONE, 0.25)
    lessons = (pair, portraits, pair, alone, portraits, pair, portraits, three)
    unet = work.unet(start)
    return unet_stage("together", unet, conditioner, lessons, r.together_steps, r.seed + 15, r.compiled, _TOGETHER)


def _few_steps(work: Work) -> Stage:
    r, start = work.recipe, work.last
    lesson, conditioner = _finishing(work, DROPS, r.few_batch), work.conditioner(start)
    return few_steps_stage(work.unet(start), conditioner, lesson, _DISTILLED_GUIDANCE, r.few_steps, r.seed + 13)


def _recogniser(work: Work) -> Stage:
    r = work.recipe
    torch.manual_seed(r.seed + 78)
    return recogniser_stage(Recogniser(), work.data, r.recogniser_steps, r.judge_batch, r.seed + 78)


def _attributes(work: Work) -> Stage:
    r = work.recipe
    torch.manual_seed(r.seed + 77)
    return attribute_stage(AttributeClassifier(), work.data, r.attribute_steps, r.judge_batch, r.seed + 77)


def _hats(work: Work) -> Stage:
    r = work.recipe
    torch.manual_seed(r.seed + 79)
    return hat_stage(HatColours(), [work.data, work.finishing], r.hats_steps, r.judge_batch, r.seed + 79)


_MAKERS: Mapping[str, Callable[[Work], Stage]] = {
    "face": _face,
    "vae": _vae,
    "decoder": _decoder,
    "align": _align,
    "critic": _critic,
    "base": _denoiser("base", face_tokens=True),
    "unet": _denoiser("unet"),
    "natural": _natural,
    "finish": _finish,
    "details": _details,
    "together": _together,
    "few_steps": _few_steps,
    "text_only": _denoiser("text_only", drops=TEXT_ONLY),
    "adapter": _denoiser("adapter", face_tokens=True, onto="text_only"),
    "recogniser": _recogniser,
    "attributes": _attributes,
    "hats": _hats,
}


def make_stage(work: Work, name: str) -> Stage:
    """One of `STAGES`, ready to run. Raises `TrainingError` where an earlier stage or people are missing."""
    return _MAKERS[name](work)


def train(work: Work, name: str, stop_after_s: float | None = None) -> nn.ModuleDict:
    """Runs one stage from where it stopped."""
    return run(make_stage(work, name), work.results, stop_after_s)
