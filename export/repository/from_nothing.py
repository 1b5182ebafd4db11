"""From nothing to a repository that a server can load: exports what is missing, then assembles."""

from __future__ import annotations

from pathlib import Path

from faceclip_serving.contract.placements import Placement
from faceclip_serving.contract.signatures import COMPONENTS, ENSEMBLE
from faceclip_serving.contract.variant import Variant

from ..onnx.export import export_component
from ..paths import onnx_folder, repository_folder
from .render import assemble


def build_repository(
    variant: Variant,
    placement: Placement,
    checkpoint: Path | None = None,
    deployment: str = ENSEMBLE,
    destination: Path | None = None,
) -> Path:
    """The assembled repository of `variant` on `placement`; components that are up to date are not exported again.

    `deployment` in a `destination` of other deployments joins them.
    """
    for component in COMPONENTS:
        precision = placement.components[component].precision
        export_component(variant, component, precision, onnx_folder(variant) / precision / component, checkpoint)
    destination = destination or repository_folder(variant, placement)
    return assemble(variant, placement, onnx_folder(variant), destination, checkpoint, deployment)
