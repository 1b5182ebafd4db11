"""Stages of the judges: the networks that evaluation believes, and that nothing which generates has ever seen.

`Recogniser` tells who is in a picture (convolutional, own seed, whole pictures; the conditioner's face encoder is a transformer that
sees aligned crops). `AttributeClassifier` reads what a prompt can name, and whether a face is there at all; `HatColours` reads one thing
more. All take whole pictures, so that no face detector stands between a generated picture and its score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from .. import device
from ..pictures.dataset import PICTURES, Pictures
from ..pictures.gatherings import Gatherings
from ..world.people import COLOURS, EXPRESSIONS, GARMENTS, HATS, LIGHTS, PLACES, TIMES, Scene
from .autoencoder import as_tensor
from .identity import FACTORS, factors_of, margin_loss
from .loop import Losses, Stage

FEATURES = 128
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "place": PLACES, "time": TIMES, "light": LIGHTS, "garment": GARMENTS, "garment_colour": tuple(COLOURS), "hat": HATS,
    "expression": EXPRESSIONS,
}  # fmt: skip
"""What a prompt names of every picture; the common space of text and pictures is taught by these."""
HAT_COLOUR = "hat_colour"
JUDGED: Mapping[str, tuple[str, ...]] = {**ATTRIBUTES, HAT_COLOUR: tuple(COLOURS)}
"""What judges and critic read of pictures: of some there is no colour of a hat."""
FACE = "face"


class _Residual(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return F.relu(x + self.second(x))


def _trunk(channels: tuple[int, ...]) -> nn.Sequential:
    return nn.Sequential(*(_Residual(a, b) for a, b in zip((3, *channels), channels, strict=False)))


class Recogniser(nn.Module):
    """Pictures [n, 3, 128, 128] in [-1, 1] -> identity features [n, FEATURES], not normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _trunk((16, 32, 64, 128))
        self.out = nn.Sequential(nn.Linear(128 * 36, FEATURES, bias=False), nn.BatchNorm1d(FEATURES))

    def forward(self, pictures: Tensor) -> Tensor:
        head = pictures[..., 14:110, 16:112]
        features: Tensor = self.out(self.trunk(head).flatten(1))
        return features


class AttributeClassifier(nn.Module):
    """Pictures [n, 3, 128, 128] in [-1, 1] -> logits per attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _trunk((16, 32, 64, 128))
        self.hidden = nn.Sequential(nn.Linear(128 * 16, FEATURES), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, len(values)) for name, values in ATTRIBUTES.items()})
        self.heads[FACE] = nn.Linear(FEATURES, 2)

    def features(self, pictures: Tensor) -> Tensor:
        """[n, FEATURES]: the space in which evaluation compares distributions of pictures."""
        hidden: Tensor = self.hidden(F.avg_pool2d(self.trunk(pictures), 2).flatten(1))
        return hidden

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        hidden = self.features(pictures)
        return {name: head(hidden) for name, head in self.heads.items()}


class HatColours(nn.Module):
    """Pictures [n, 3, 128, 128] in [-1, 1] -> logits of the hat's colour. A judge of its own, so that what the other one says stays."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _trunk((16, 32, 48))
        self.out = nn.Sequential(nn.Linear(48 * 40, 64), nn.ReLU(), nn.Linear(64, len(JUDGED[HAT_COLOUR])))

    def forward(self, pictures: Tensor) -> Tensor:
        above = pictures[..., :80, :]
        colours: Tensor = self.out(F.avg_pool2d(self.trunk(above), 2).flatten(1))
        return colours


def roughen(x: Tensor, r: np.random.Generator) -> Tensor:
    """What generated pictures suffer: shift, soft focus, colour cast, noise."""
    n = len(x)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = device.tensor(r.uniform(0.94, 1.06, n).astype(np.float32))
    theta[:, :, 2] = device.tensor(r.uniform(-0.05, 0.05, (n, 2)).astype(np.float32))
    x = F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), padding_mode="border", align_corners=False)
    soft = np.flatnonzero(r.uniform(size=n) < 0.5)
    if len(soft):
        small = F.interpolate(x[soft], scale_factor=float(r.uniform(0.4, 0.8)), mode="area")
        x[soft] = F.interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=False)
    gain = device.tensor(r.uniform(0.9, 1.1, (n, 3, 1, 1)).astype(np.float32))
    return (x * gain + 0.05 * torch.randn_like(x)).clamp(-1, 1)


def faceless(x: Tensor) -> Tensor:
    """Pictures that show no face any more: tiles shuffled, or turned into mist."""
    half = len(x) // 2
    tiles = x[:half].unflatten(-1, (8, -1)).unflatten(-3, (8, -1)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # type: ignore[no-untyped-call]
    tiles = tiles[:, torch.randperm(64)].unflatten(1, (8, 8)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    mist = F.interpolate(F.avg_pool2d(x[half:], 16), size=x.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([tiles, mist])


def class_of(scene: Scene, attribute: str) -> int:
    """The class of a scene by one of `JUDGED`; -1 for the colour of no hat."""
    if attribute == HAT_COLOUR and scene.hat == "none":
        return -1
    return JUDGED[attribute].index(getattr(scene, attribute))


def labels(data: Pictures | Gatherings) -> dict[str, Tensor]:
    """Of `JUDGED` -> class of every row, -1 for none."""
    scenes = [data.scene(row) for row in range(len(data))]
    return {name: torch.tensor([class_of(scene, name) for scene in scenes]) for name in JUDGED}


def misread(logits: Tensor, classes: Tensor) -> Tensor:
    """Mean cross-entropy over the rows that have a class; 0 where none has."""
    return F.cross_entropy(logits, classes, ignore_index=-1, reduction="sum") / (classes >= 0).sum().clamp(min=1)


def recogniser_stage(recogniser: Recogniser, data: Pictures, steps: int, batch: int, seed: int) -> Stage:
    data.require("recogniser", -(-batch // PICTURES))
    torch.manual_seed(seed)
    centres, head = nn.Embedding(data.identities, FEATURES), nn.Linear(FEATURES, FACTORS)
    wanted = factors_of(data)

    def losses(step: int) -> Losses:
        r = np.random.default_rng([seed, step])
        rows = r.choice(len(data.pictures), batch, replace=False)
        who = device.tensor(rows // PICTURES)
        with device.autocast():
            feature = recogniser(roughen(as_tensor(data.pictures[rows]), r))
        margin = {"margin": 0.3 * margin_loss(feature.float(), centres.weight, who)}
        if wanted is None:
            return margin
        return {**margin, "factors": 4.5 * F.mse_loss(head(feature.float()), wanted[who])}

    modules = nn.ModuleDict({"recogniser": recogniser, "centres": centres, "head": head})
    return Stage("recogniser", modules, losses, steps, learning_rate=2e-3, seed=seed)


def attribute_stage(classifier: AttributeClassifier, data: Pictures, steps: int, batch: int, seed: int) -> Stage:
    data.require("attributes", -(-batch // PICTURES))
    known = labels(data)

    def losses(step: int) -> Losses:
        r = np.random.default_rng([seed, step])
        rows = r.choice(len(data.pictures), batch, replace=False)
        pictures = roughen(as_tensor(data.pictures[rows]), r)
        spoilt = faceless(pictures[: batch // 4])
        with device.autocast():
            logits = classifier(torch.cat([pictures, spoilt]))
        wanted = {name: values[device.tensor(rows)] for name, values in known.items()}
        found = {name: F.cross_entropy(logits[name][:batch].float(), wanted[name]) for name in ATTRIBUTES}
        present = torch.cat([torch.ones(batch), torch.zeros(len(spoilt))]).long()
        return {**found, FACE: F.cross_entropy(logits[FACE].float(), present)}

    return Stage("attributes", nn.ModuleDict({"classifier": classifier}), losses, steps, learning_rate=1.5e-3, seed=seed)


def hat_stage(judge: HatColours, series: Sequence[Pictures], steps: int, batch: int, seed: int) -> Stage:
    """Learns from the pictures with a hat of all `series`."""
    worn = [[row for row in range(len(data.pictures)) if data.scene(row).hat != "none"] for data in series]
    pictures = np.concatenate([data.pictures[rows] for data, rows in zip(series, worn, strict=True)])
    wanted = torch.tensor(
        [class_of(data.scene(row), HAT_COLOUR) for data, rows in zip(series, worn, strict=True) for row in rows]
    )

    def losses(step: int) -> Losses:
        r = np.random.default_rng([seed, step])
        rows = r.choice(len(pictures), batch, replace=batch > len(pictures))
        with device.autocast():
            logits = judge(roughen(as_tensor(pictures[rows]), r))
        return {HAT_COLOUR: F.cross_entropy(logits.float(), wanted[device.tensor(rows)])}

    return Stage("hats", nn.ModuleDict({"hat_colours": judge}), losses, steps, learning_rate=2e-3, seed=seed)


@torch.no_grad()
def recognise(recogniser: Recogniser, pictures: NDArray[np.uint8]) -> Tensor:
    """Unit features of RGB pictures [n, 128, 128, 3]."""
    return F.normalize(torch.cat([recogniser(as_tensor(pictures[i : i + 64])) for i in range(0, len(pictures), 64)]))


@torch.no_grad()
def hat_colours(judge: HatColours, pictures: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The class of `JUDGED[HAT_COLOUR]` per picture; of one without a hat it says nothing."""
    parts = [judge(as_tensor(pictures[i : i + 64])).argmax(1) for i in range(0, len(pictures), 64)]
    return np.asarray(device.array(torch.cat(parts)), np.int64)


@torch.no_grad()
def classify(classifier: AttributeClassifier, pictures: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
    """Attribute -> class index per picture; `FACE`: 1 where a face is seen."""
    parts = [classifier(as_tensor(pictures[i : i + 64])) for i in range(0, len(pictures), 64)]
    return {name: np.concatenate([device.array(part[name].argmax(1)) for part in parts]) for name in parts[0]}
