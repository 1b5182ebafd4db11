"""From nothing to a repository that a server can load: exports what is missing, then assembles."""

from __future__ import annotations

from pathlib import Path

from faceclip_serving.contract.placements import Profile
from faceclip_serving.contract.signatures import COMPONENTS, ENSEMBLE
from faceclip_serving.contract.variant import Variant

from ..onnx.export import export_component
from .render import assemble

BUILD = Path("build")


def onnx_folder(variant: Variant) -> Path:
    """Where the components of a variant are exported to."""
    return BUILD / "onnx" / variant.name


def build_repository(
    variant: Variant,
    profile: Profile,
    checkpoint: Path | None = None,
    deployment: str = ENSEMBLE,
    destination: Path | None = None,
) -> Path:
    """The assembled repository of `variant` on `profile`; components that are up to date are not exported again.

    `deployment` in a `destination` of other deployments joins them.
    """
    for component in COMPONENTS:
        precision = profile.placements[component].precision
        export_component(variant, component, precision, onnx_folder(variant) / precision / component, checkpoint)
    destination = destination or BUILD / f"{variant.name}-{profile.name}"
    return assemble(variant, profile, onnx_folder(variant), destination, checkpoint, deployment)
