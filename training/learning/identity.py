"""Stage `face`: the face encoder learns who is who, by an additive angular margin between identities (ArcFace, arXiv 1801.07698).

loss = cross-entropy of s * cos(theta_j + [j is the right one] * m), theta_j the angle between the feature and identity j's centre.
The renderer also knows the factors of each face; a linear head that predicts them from the patches and the feature keeps details
that few identities would not teach. Real photographs have no such factors: then the margin loss is alone.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from export.networks.faceclip.face_vit import FaceTransformer
from faceclip_serving.contract.variants.architectures import FaceViT

from .. import device
from ..pictures.dataset import PICTURES, Pictures
from ..world.people import BEARDS, EYE_COLOURS, GLASSES, HAIR_COLOURS, HAIR_STYLES, Identity
from .loop import Losses, Stage

SCALE, MARGIN = 24.0, 0.3
_FACTOR_WEIGHT = 1.5
_CHOICES = (("hair_style", HAIR_STYLES), ("hair_colour", tuple(HAIR_COLOURS)), ("eye_colour", tuple(EYE_COLOURS)),
            ("beard", BEARDS), ("glasses", GLASSES), ("noun", ("man", "woman")))  # fmt: skip
_LENGTHS = ("skin", "face_width", "face_length", "jaw", "chin", "eye_spacing", "eye_size", "eye_slant", "brow_thickness",
            "brow_arch", "nose_length", "nose_width", "mouth_width", "lip_fullness", "ear_size", "freckles", "blush")  # fmt: skip
FACTORS = sum(len(options) for _, options in _CHOICES) + len(_LENGTHS) + 4


def factors(person: Identity) -> NDArray[np.float32]:
    """One-hot choices and normalised lengths of a person: [FACTORS]."""
    row: list[float] = []
    for name, options in _CHOICES:
        row += [float(getattr(person, name) == option) for option in options]
    row += [float(person.mole == k) for k in range(4)]
    centre = {"skin": 0.5, "eye_slant": 0.0, "brow_arch": 0.2, "freckles": 0.2, "blush": 0.5}
    row += [3.0 * (getattr(person, name) - centre.get(name, 1.0)) for name in _LENGTHS]
    return np.array(row, np.float32)


def factors_of(data: Pictures) -> Tensor | None:
    """`factors` of every identity, [identities, FACTORS]; None for photographs, of which nobody knows them."""
    if data.captions:
        return None
    return device.tensor(np.stack([factors(data.person(i * PICTURES)) for i in range(data.identities)]))


def face_batch(crops: NDArray[np.uint8], r: np.random.Generator) -> Tensor:
    """[n, VIEW, VIEW, 3] 0-255 -> [n, 3, VIEW, VIEW] in [0, 1], shifted, scaled, relit and partly covered at random."""
    x = device.tensor(crops).permute(0, 3, 1, 2).float() / 255
    n, side = len(x), x.shape[-1]
    zoom = device.tensor(r.uniform(0.93, 1.07, n).astype(np.float32))
    move = device.tensor(r.uniform(-0.06, 0.06, (n, 2)).astype(np.float32))
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = move
    x = F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), padding_mode="border", align_corners=False)
    gain = device.tensor(r.uniform(0.85, 1.15, (n, 3, 1, 1)).astype(np.float32)).mean(1, keepdim=True)
    x = (x * gain + device.tensor(r.uniform(-0.06, 0.06, (n, 1, 1, 1)).astype(np.float32))).clamp(0, 1)
    for i in np.flatnonzero(r.uniform(size=n) < 0.25):
        top, left = r.integers(0, side - 24, 2)
        x[i, :, top : top + 24, left : left + 24] = float(r.uniform())
    return x


def margin_loss(feature: Tensor, centres: Tensor, identity: Tensor) -> Tensor:
    """feature [n, d], centres [identities, d], identity [n]."""
    cosine = F.linear(F.normalize(feature), F.normalize(centres)).clamp(-0.999, 0.999)
    right = cosine.gather(1, identity[:, None])
    with_margin = torch.cos(torch.acos(right) + MARGIN)
    return F.cross_entropy(SCALE * cosine.scatter(1, identity[:, None], with_margin), identity)


def face_stage(vit: FaceTransformer, sizes: FaceViT, data: Pictures, steps: int, batch: int, seed: int) -> Stage:
    """Trains `vit` on the crops of the training identities."""
    data.require("face", -(-batch // PICTURES))
    torch.manual_seed(seed)
    head = nn.Linear(sizes.width + sizes.classes, FACTORS)
    centres = nn.Embedding(data.identities, sizes.classes)
    vit.requires_grad_(True)
    vit.mask_token.requires_grad_(False)
    wanted = factors_of(data)

    def losses(step: int) -> Losses:
        r = np.random.default_rng([seed, step])
        rows = r.choice(len(data.crops), batch, replace=False)
        faces = face_batch(data.crops[rows], r)
        who = device.tensor(rows // PICTURES)
        with device.autocast():
            feature, patches = vit(faces)
        feature, patches = feature.float(), patches.float()
        guessed = head(torch.cat([F.normalize(feature) * 6, patches.mean(1)], 1))
        margin = 0.3 * margin_loss(feature, centres.weight, who)
        if wanted is None:
            return {"margin": margin}
        return {"margin": margin, "factors": _FACTOR_WEIGHT * F.mse_loss(guessed, wanted[who]) * 3}

    return Stage("face", nn.ModuleDict({"vit": vit, "head": head, "centres": centres}), losses, steps, 1.5e-3, seed=seed)


@torch.no_grad()
def face_features(vit: FaceTransformer, crops: NDArray[np.uint8], batch: int = 64) -> tuple[Tensor, Tensor]:
    """All crops -> unit class tokens [n, classes] and patch tokens [n, patches, width] (half precision)."""
    classes, patches = [], []
    for i in range(0, len(crops), batch):
        feature, tokens = vit(device.tensor(crops[i : i + batch]).permute(0, 3, 1, 2).float() / 255)
        classes.append(F.normalize(feature))
        patches.append(tokens.half())
    return torch.cat(classes), torch.cat(patches)
