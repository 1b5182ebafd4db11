"""The test set of the rendered world: people that no training saw, in scenes that were never drawn for them, and the judges' view.

A case is a reference picture, a prompt, and what the prompt asks for. Real photographs are evaluated by `quality_photographs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.autoencoder import as_tensor
from training.captions import describe
from training.conditioning import Faces
from training.dataset import PICTURES, SPLITS, Pictures, build
from training.identity import face_features
from training.judges import ATTRIBUTES, FACE, AttributeClassifier, Recogniser, classify, recognise
from training.world import INDOORS, Scene, sample_identity, sample_scene

from . import quality_metrics as metrics


@dataclass(frozen=True)
class Cases:
    """Test cases; picture i shows person `who[i]` of `data`, asked for by `prompts[i]`."""

    data: Pictures
    who: NDArray[np.int64]
    prompts: list[str]
    scenes: list[Scene]
    references: list[list[int]]
    """Rows of `data` that are shown to the model, per case."""

    @property
    def asked(self) -> dict[str, NDArray[np.int64]]:
        """Attribute -> class that the prompt asks for; -1 where it does not say."""
        asked = {}
        for name, values in ATTRIBUTES.items():
            asked[name] = np.array([values.index(getattr(s, name)) if _said(s, name) else -1 for s in self.scenes], np.int64)
        return asked


def _said(scene: Scene, attribute: str) -> bool:
    """Soft light and day are what a prompt leaves unsaid; indoors there is no hour."""
    if attribute == "light":
        return scene.light != "soft"
    return attribute != "time" or (scene.time != "day" and scene.place not in INDOORS)


def make_cases(folder: Path, people: int, prompts: int, references: int = 1) -> Cases:
    """`prompts` new scenes for each of `people` test identities; references are their hatless pictures first."""
    data = build(folder, "test", people, 128)
    who = np.repeat(np.arange(people), prompts)
    scenes = [sample_scene("evaluation", int(p), k % prompts) for k, p in enumerate(who)]
    sentences = [describe(sample_identity(SPLITS["test"] + int(p)), s) for p, s in zip(who, scenes, strict=True)]
    order = list(range(PICTURES - 1, -1, -1))[:references]
    return Cases(data, who, sentences, scenes, [[int(p) * PICTURES + k for k in order] for p in who])


def face_set(vit: torch.nn.Module, data: Pictures) -> Faces:
    classes, patches = face_features(vit, data.crops)  # type: ignore[arg-type]
    return Faces(classes, patches)


@torch.no_grad()
def judge(
    pictures: NDArray[np.uint8], cases: Cases, recogniser: Recogniser, classifier: AttributeClassifier
) -> Mapping[str, object]:
    """All columns for one set of pictures [n, 128, 128, 3]."""
    real = recognise(recogniser, cases.data.pictures).numpy()
    people = metrics.unit(real.reshape(cases.data.identities, PICTURES, -1).mean(1))
    same, other = metrics.identity_scores(recognise(recogniser, pictures).numpy(), people, cases.who)
    found = classify(classifier, pictures)
    shown = classify(classifier, cases.data.pictures)
    reference = np.array([rows[0] if rows else -1 for rows in cases.references])
    accuracy = metrics.text_accuracy(found, cases.asked)
    return {
        "id_similarity": round(float(same.mean()), 4),
        "other_similarity": round(float(other.mean()), 4),
        "verification_auc": round(metrics.verification_auc(same, other), 4),
        "text_accuracy": {name: round(value, 4) for name, value in accuracy.items()},
        "no_face_rate": round(float((found[FACE] == 0).mean()), 4),
        "copy_paste_rate": round(
            max(
                metrics.copy_paste_rate(found[n], cases.asked[n], shown[n][reference])
                for n in ("place", "garment", "expression")
            ),
            4,
        ),
        "kernel_distance": round(
            metrics.kernel_distance(_features(classifier, pictures), _features(classifier, cases.data.pictures)), 4
        ),
    }


def _features(classifier: AttributeClassifier, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    parts = [classifier.features(as_tensor(pictures[i : i + 64])).numpy() for i in range(0, len(pictures), 64)]
    return metrics.unit(np.concatenate(parts)) * np.float32(parts[0].shape[1] ** 0.5)
