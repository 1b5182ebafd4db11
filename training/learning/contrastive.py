"""Stage `align`: face, text and image in one space, before any picture is made.

arXiv 2504.14202 trains FaceCLIP by aligning its joint representation with the face, text and image spaces. Here each alignment is
CLIP's symmetric contrastive loss (arXiv 2103.00020) between two batches of unit vectors a, b with a learned temperature tau:

    C(a, b) = 1/2 * CE(a b^T / tau, same row) + 1/2 * CE(b a^T / tau, same row)
    loss = C(joint, image) + C(text, image) + 1/2 * C(joint identity, face) + scene + factors

The rendered world also knows what each picture shows. `scene` (cross-entropy of the scene's attributes and of the hat's colour) and
`factors` (squared error of the person's factors, with the face only) are read from the pooled vector by linear heads: a batch of 32
says little by contrast alone. Photographs have neither term.

`joint` is E(face, prompt) pooled over tokens, `text` is E(prompt, no face), `image` the image tower's view of the target picture, and
`joint identity` a projection of the joint vector that must find the identity vector of the reference among the batch's.
The image tower is small and convolutional; `clip_score` uses it as CLIP-T does: the cosine of text and image.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import device
from ..networks.conditioning import Conditioner, Faces
from ..pictures.dataset import PICTURES, Pictures
from .autoencoder import as_tensor
from .identity import FACTORS, factors
from .judges import ATTRIBUTES, HAT_COLOUR, JUDGED, labels, misread
from .loop import Losses, Stage

SPACE = 96


class ImageTower(nn.Module):
    """Pictures [n, 3, h, w] in [-1, 1], seen at 64 pixels -> [n, SPACE]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 24), (24, 48), (48, 96), (96, 128)):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(8, after), nn.SiLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(128 * 16, SPACE)

    def forward(self, pictures: Tensor) -> Tensor:
        small = F.interpolate(pictures, size=(64, 64), mode="area")
        out: Tensor = self.out(self.layers(small).flatten(1))
        return out


class AlignmentHeads(nn.Module):
    """Projections into the common space; needed for training and for `clip_score`, not for serving."""

    def __init__(self, width: int, pooled: int, classes: int) -> None:
        super().__init__()
        self.image = ImageTower()
        self.of_tokens, self.of_pooled = nn.Linear(width, SPACE), nn.Linear(pooled, SPACE)
        self.of_identity = nn.Linear(SPACE, classes)
        self.of_scene = nn.ModuleDict({name: nn.Linear(pooled, len(values)) for name, values in ATTRIBUTES.items()})
        self.of_factors = nn.Linear(pooled, FACTORS)
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    def joint(self, embeddings: Tensor, pooled: Tensor) -> Tensor:
        vector: Tensor = self.of_tokens(embeddings.mean(1)) + self.of_pooled(pooled)
        return vector


def contrast(a: Tensor, b: Tensor, log_scale: Tensor) -> Tensor:
    """C(a, b) of the module's formula."""
    scores = F.normalize(a) @ F.normalize(b).T * log_scale.clamp(max=4.0).exp()
    right = torch.arange(len(a))
    return 0.5 * (F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right))


def alignment_stage(
    conditioner: Conditioner, heads: AlignmentHeads, data: Pictures, faces: Faces, steps: int, batch: int, seed: int
) -> Stage:
    """Trains towers, fuser and heads; the face encoder stays frozen (its features are in `faces`)."""
    data.require("align", batch)
    labelled = {} if data.captions else labels(data)
    hat_colour = nn.Linear(heads.of_factors.in_features, len(JUDGED[HAT_COLOUR]))

    def losses(step: int) -> Losses:
        r = np.random.default_rng([seed, step])
        rows = r.choice(data.identities, batch, replace=False) * PICTURES + r.integers(0, PICTURES, batch)
        others = rows - rows % PICTURES + (rows + 1 + r.integers(0, PICTURES - 1, batch)) % PICTURES
        prompts = [data.caption(int(row), r) for row in rows]
        with device.autocast():
            both = conditioner(prompts * 2, faces, [*others.tolist(), *[-1] * batch], [True] * batch + [False] * batch)
            vectors = heads.joint(*both).float()
            image = heads.image(as_tensor(data.pictures[rows])).float()
        joint, text = vectors[:batch], vectors[batch:]
        known: dict[str, Tensor] = {}
        if not data.captions:
            pooled = both[1].float()
            twice = device.tensor(np.concatenate([rows, rows]))
            read = {**heads.of_scene, HAT_COLOUR: hat_colour}
            scene = [misread(head(pooled), labelled[name][twice]) for name, head in read.items()]
            known["scene"] = 0.5 * torch.stack(scene).sum()
            wanted = device.tensor(np.stack([factors(data.person(row)) for row in rows]))
            known["factors"] = 4 * F.mse_loss(heads.of_factors(pooled[:batch]), wanted)
        return {
            **known,
            "joint_image": contrast(joint, image, heads.log_scale),
            "text_image": contrast(text, image, heads.log_scale),
            "joint_face": 0.5 * contrast(heads.of_identity(joint), faces.classes[device.tensor(others)], heads.log_scale),
        }

    modules = nn.ModuleDict({"conditioner": conditioner, "heads": heads, HAT_COLOUR: hat_colour})
    return Stage("align", modules, losses, steps, learning_rate=1.5e-3, average=0.98, seed=seed)


@torch.no_grad()
def clip_score(conditioner: Conditioner, heads: AlignmentHeads, faces: Faces, prompts: list[str], pictures: Tensor) -> Tensor:
    """Cosine of each prompt (without a face) and its picture [n, 3, h, w] in [-1, 1]: [n]."""
    n = len(prompts)
    text = heads.joint(*conditioner(prompts, faces, [-1] * n, [False] * n))
    return F.cosine_similarity(text, heads.image(pictures))
