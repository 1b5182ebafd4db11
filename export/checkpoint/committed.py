"""Weights that come with the project: the variants of kind `committed` have theirs in `weights/<variant>`."""

from __future__ import annotations

from pathlib import Path

from faceclip_serving.contract.variants.variant import Variant

from ..paths import WEIGHTS
from .errors import CheckpointError


def own_folder(variant: Variant) -> Path | None:
    """Where the project keeps this variant's weights and tokenizer; None: it does not."""
    return WEIGHTS / variant.name if variant.weights == "committed" else None


def weights_folder(variant: Variant, given: Path | None = None) -> Path | None:
    """The checkpoint folder to read: `given`, or the variant's own. None: there is none. Raises `CheckpointError`."""
    folder = own_folder(variant)
    if given is not None or folder is None:
        return given
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"weights: variant '{variant.name}' expects its own, *.safetensors, in {folder}, and none are there; restore them"
            f" (`git checkout -- weights/{variant.name}`), or make them: `python -m training all --work DIR`, then `python -m"
            " training weights --work DIR`"
        )
    return folder
