"""Every stage of the recipe, made from a folder of training: its networks, its data, its numbers.

A stage that finished is loaded, not repeated; deleting its checkpoint trains it anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from ..learning.autoencoder import decoder_stage, vae_stage
from ..learning.contrastive import alignment_stage
from ..learning.critic import critic_stage
from ..learning.diffusion import JOINT, LATENT_SIDE, TEXT_ONLY, Drops, Lesson, Pace, unet_stage
from ..learning.few_steps import DROPS, few_steps_stage
from ..learning.identity import face_stage
from ..learning.judges import AttributeClassifier, HatColours, Recogniser, attribute_stage, hat_stage, labels, recogniser_stage
from ..learning.loop import Stage, is_done, run
from ..learning.natural import natural_stage
from ..networks import nano
from ..networks.adapter import decouple
from ..pictures.details import details_of
from ..pictures.gatherings import ALONE, PAIR, THREE, Formation
from ..recipe import steps_of
from .work import Work, make_critic, make_heads

_LIFELIKE = 0.3
_UNET = Pace(1e-3, warm_up=200, cool_down=0.5, average=0.998, critic_weight=1.5)
_TOGETHER = Pace(3e-4, warm_up=100, cool_down=0.6, average=0.999, critic_weight=1.5)
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


def _natural(work: Work) -> Stage:
    r = work.recipe
    conditioner = work.conditioner("align", trained=False)
    return natural_stage(
        work.vit(), conditioner, work.data, work.faces, work.natural, r.natural_steps, r.natural_batch, r.seed + 11
    )


def _unet(work: Work) -> Stage:
    """What is served; of photographs it is told no more than what they show."""
    r = work.recipe
    if work.photographs is not None:
        conditioner = work.conditioner(work.aligned)
        lesson = Lesson(work.data, work.latents, work.faces, JOINT, r.unet_batch, work.critic())
    else:
        conditioner, lesson = work.conditioner(work.aligned, vit="natural"), _frontal(work, r.unet_batch)
    return unet_stage("unet", work.unet(None), conditioner, [lesson], r.unet_steps, r.seed + 6, r.compiled, _UNET)


def _frontal(work: Work, batch: int, drops: Drops = JOINT) -> Lesson:
    data, latents, faces = work.frontal
    return _with_details(Lesson(data, latents, faces, drops, batch, work.critic(), _LIFELIKE, vae=work.vae()))


def _with_details(lesson: Lesson) -> Lesson:
    named = None if lesson.critic is None else labels(lesson.data)
    return replace(lesson, named=named, details=details_of(lesson.data, LATENT_SIDE))


def _together(work: Work) -> Stage:
    """What is served goes on: several people, and wide pictures, beside the lesson of before."""
    r = work.recipe
    conditioner, portraits = work.conditioner("unet"), _frontal(work, 2 * r.together_batch)

    def gathered(formation: Formation, share: float) -> Lesson:
        data, latents = work.gatherings(formation, share)
        rows = round(2 * r.together_batch / formation.across)
        return _with_details(replace(portraits, data=data, latents=latents, batch=rows))

    pair, three, alone = gathered(PAIR, 0.6), gathered(THREE, 0.15), gathered(ALONE, 0.25)
    lessons = (pair, portraits, pair, alone, portraits, pair, portraits, three)
    unet = work.unet("unet")
    return unet_stage("together", unet, conditioner, lessons, r.together_steps, r.seed + 15, r.compiled, _TOGETHER)


def _few_steps(work: Work) -> Stage:
    r, start = work.recipe, work.last
    lesson, conditioner = _frontal(work, r.few_batch, DROPS), work.conditioner(start)
    return few_steps_stage(work.unet(start), conditioner, lesson, _DISTILLED_GUIDANCE, r.few_steps, r.seed + 13)


def _peer(name: str, face_tokens: bool = False, drops: Drops = JOINT, onto: str | None = None) -> Callable[[Work], Stage]:
    """All but the base itself start from the base, where there is one, and learn by the critic too.

    `face_tokens`: those of the adapter beside the text; `onto`: the stage whose denoiser stays as it is, and gets attention to these
    tokens.
    """

    def stage(work: Work) -> Stage:
        r = work.recipe
        base = "base" if name != "base" and work.has("base") else None
        unet = work.unet(onto or base)
        if onto is not None:
            decouple(unet)
        conditioner = work.conditioner(base if face_tokens and base else work.aligned, face_tokens, trained=drops is JOINT)
        critic = work.critic() if base else None
        lesson = Lesson(work.data, work.latents, work.faces, drops, r.peer_batch, critic)
        return unet_stage(name, unet, conditioner, [lesson], steps_of(r, name), r.seed + 6, compiled=r.compiled)

    return stage


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
    return hat_stage(HatColours(), [work.data, work.frontal[0]], r.hats_steps, r.judge_batch, r.seed + 79)


_MAKERS: Mapping[str, Callable[[Work], Stage]] = {
    "face": _face,
    "vae": _vae,
    "decoder": _decoder,
    "align": _align,
    "critic": _critic,
    "natural": _natural,
    "unet": _unet,
    "together": _together,
    "few_steps": _few_steps,
    "recogniser": _recogniser,
    "attributes": _attributes,
    "hats": _hats,
    "base": _peer("base", face_tokens=True),
    "text_only": _peer("text_only", drops=TEXT_ONLY),
    "adapter": _peer("adapter", face_tokens=True, onto="text_only"),
}


def make_stage(work: Work, name: str) -> Stage:
    """One of `STAGES`, ready to run. Raises `TrainingError` where an earlier stage or people are missing."""
    return _MAKERS[name](work)


def train(work: Work, name: str, stop_after_s: float | None = None) -> None:
    """Runs one stage from where it stopped; nothing where it is done."""
    if not is_done(name, steps_of(work.recipe, name), work.results):
        began = time.monotonic()
        run(make_stage(work, name), work.results, stop_after_s, began=began)
