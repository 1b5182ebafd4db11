"""Committed weights -> a folder of training: one stage can be trained without the hours of those before it.

What they were trained with is not kept: the optimisers, the critic, the common start of the denoisers and the decoder's own stage.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from export.outputs import replacing

from ..errors import TrainingError
from .weights import read_alignment, read_generator, read_hat_judge, read_judges, read_vae
from .work import Work


def adopt(work: Work, folder: Path) -> list[str]:
    """Writes the checkpoints of the stages that weights in `folder` are from; returns their names. Raises `TrainingError` where there
    is a checkpoint already."""
    unet, joint = read_generator(folder)
    aligned, heads = read_alignment(folder)
    recogniser, classifier = read_judges(folder)
    first, served = (each.encoder.branches[0].face_encoder for each in (aligned, joint))
    stages: dict[str, dict[str, nn.Module]] = {
        "face": {"vit": first},
        "vae": {"vae": read_vae(folder)},
        "align": {"conditioner": aligned, "heads": heads},
        "unet": {"unet": unet, "conditioner": joint},
        "recogniser": {"recogniser": recogniser},
        "attributes": {"classifier": classifier},
        "hats": {"hat_colours": read_hat_judge(folder)},
    }
    if not torch.equal(first.patch_embed.proj.weight, served.patch_embed.proj.weight):
        stages["natural"] = {"vit": served}
    there = [stage for stage in stages if (work.results / f"{stage}.pt").exists()]
    if there:
        raise TrainingError(
            f"adopt: expected a folder without checkpoints, {work.results} has {', '.join(there)}; give another"
        )
    work.results.mkdir(parents=True, exist_ok=True)
    for stage, modules in stages.items():
        with replacing(work.results / f"{stage}.pt") as partial:
            torch.save({"averages": nn.ModuleDict(modules).state_dict()}, partial)
    return list(stages)
