"""Where things lie: what comes with the project, and what is built."""

from __future__ import annotations

from pathlib import Path

from faceclip_serving.contract.placements import Placement
from faceclip_serving.contract.variants.variant import Variant

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""
ASSETS = ROOT / "export" / "assets"
MODEL_REPOSITORY = ROOT / "model_repository"
"""The Python models, and the default configurations."""
WEIGHTS = ROOT / "weights"
"""Of the variants that the project trains itself."""
PHOTOGRAPH = ROOT / "examples" / "astronaut.jpg"
"""A person looking at the camera."""

BUILD = Path("build")
"""What is made here; in the folder that a command is called in."""
TIMING = BUILD / "timing"
"""TensorRT's timing caches: how fast each kernel was, per GPU and version, so that the next build need not measure it again."""
CHECKPOINT = Path("checkpoint")
"""Where `export download` puts weights unless told otherwise."""


def onnx_folder(variant: Variant) -> Path:
    """Root of the components of a variant: `<precision>/<component>/`."""
    return BUILD / "onnx" / variant.name


def repository_folder(variant: Variant, placement: Placement) -> Path:
    """Where a repository is assembled unless told otherwise."""
    return BUILD / f"{variant.name}-{placement.label}{f'-gpu{placement.gpu}' if placement.gpu else ''}"
