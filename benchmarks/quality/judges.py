"""What the judges say of pictures: all columns of the quality table, for cases of the rendered world."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.learning.autoencoder import as_tensor
from training.learning.contrastive import AlignmentHeads, clip_score
from training.learning.judges import (
    ATTRIBUTES,
    FACE,
    FEATURES,
    HAT_COLOUR,
    AttributeClassifier,
    HatColours,
    Recogniser,
    classify,
    hat_colours,
    recognise,
)
from training.networks import nano
from training.networks.conditioning import Conditioner, Faces
from training.run.weights import read_alignment, read_hat_judge, read_judges

from . import metrics
from .metrics import Floats
from .world import Cases, Shots

COPIED = ("place", "garment", "garment_colour")
"""What of a reference should not come back unasked."""

Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class Jury:
    """The judges, and what they know of the test people."""

    recogniser: Recogniser
    classifier: AttributeClassifier
    hats: HatColours
    towers: tuple[Conditioner, AlignmentHeads]
    people: Floats
    """Identity of each person by the recogniser: the mean of pictures that no model is shown, [people, features]."""
    held_out: Floats
    """The classifier's features of those pictures: what pictures of this world are like."""

    def scores(self, pictures: Pictures, cases: Cases) -> dict[str, Any]:
        """All columns for pictures [n, 128, 128, 3] of n cases."""
        same, other = metrics.identity_scores(self.identities(pictures), self.people, cases.who)
        found = {**classify(self.classifier, pictures), HAT_COLOUR: hat_colours(self.hats, pictures)}
        clip, shuffled = self.text_cosines(pictures, cases)
        return {
            "id_similarity": _rounded(same.mean()),
            "other_similarity": _rounded(other.mean()),
            "verification_auc": _rounded(metrics.verification_auc(same, other)),
            "text_accuracy": {name: _rounded(v) for name, v in metrics.text_accuracy(found, cases.asked, ATTRIBUTES).items()},
            "clip_t": _rounded(clip),
            "clip_t_of_other_prompts": _rounded(shuffled),
            "copy_geo": self.copied(pictures, cases),
            "copy_paste_rate": _rounded(metrics.copy_paste_rate(*_pooled(found, cases))),
            "no_face_rate": _rounded((found[FACE] == 0).mean()),
            "kernel_distance": _rounded(metrics.kernel_distance(features(self.classifier, pictures), self.held_out)),
        }

    def similarities(self, pictures: Pictures, cases: Cases) -> Floats:
        """Cosine of each picture with its own person: [n]."""
        return metrics.identity_scores(self.identities(pictures), self.people, cases.who)[0]

    def copied(self, pictures: Pictures, cases: Cases) -> float | None:
        """`metrics.copy_geo` against each case's first reference; None where a case has none."""
        if not all(cases.references):
            return None
        shown = self.identities(cases.shots.pictures)[[rows[0] for rows in cases.references]]
        return _rounded(metrics.copy_geo(self.identities(pictures), shown, self.people, cases.who))

    def identities(self, pictures: Pictures) -> Floats:
        return np.asarray(recognise(self.recogniser, pictures).numpy(), np.float32)

    def text_cosines(self, pictures: Pictures, cases: Cases) -> tuple[float, float]:
        """Mean cosine of pictures with their prompts, and with the prompts of other cases, by the aligned towers."""
        prompts, seen = list(cases.prompts), as_tensor(pictures)
        turned = prompts[len(prompts) // 2 :] + prompts[: len(prompts) // 2]
        own, other = (clip_score(*self.towers, _nobody(), texts, seen).mean() for texts in (prompts, turned))
        return float(own), float(other)


def read_jury(folder: Path, kept: Shots, people: int) -> Jury:
    """The judges of a folder of weights; `kept`: as many pictures of each person, in their order. Raises `TrainingError`."""
    recogniser, classifier = read_judges(folder)
    identity = recognise(recogniser, kept.pictures).numpy().reshape(people, -1, FEATURES)
    return Jury(
        recogniser,
        classifier,
        read_hat_judge(folder),
        read_alignment(folder),
        metrics.unit(identity.mean(1)),
        features(classifier, kept.pictures),
    )


@torch.no_grad()
def features(classifier: AttributeClassifier, pictures: Pictures) -> Floats:
    """The classifier's features, of length sqrt(d), as the kernel distance expects them: [n, d]."""
    parts = [classifier.features(as_tensor(pictures[i : i + 64])).numpy() for i in range(0, len(pictures), 64)]
    return metrics.unit(np.concatenate(parts)) * np.float32(parts[0].shape[1] ** 0.5)


def _pooled(found: dict[str, NDArray[np.int64]], cases: Cases) -> tuple[NDArray[np.int64], ...]:
    """found, asked and shown classes of all `COPIED` attributes, one after the other; numbers of different ones do not meet."""
    tables = (found, cases.asked, cases.shown)
    return tuple(np.concatenate([table[name] for name in COPIED]) for table in tables)


def _nobody() -> Faces:
    face = nano.ARCHITECTURE.face
    return Faces(torch.zeros(1, face.classes), torch.zeros(1, face.patches, face.width))


def _rounded(value: Any) -> float:
    return round(float(value), 4)
