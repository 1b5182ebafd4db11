"""From nothing to a repository that a server can load: exports what is missing, then assembles."""

from __future__ import annotations

from pathlib import Path

from faceclip_serving.contract.placements import Placement
from faceclip_serving.contract.signatures import COMPONENTS, ENSEMBLE
from faceclip_serving.contract.variant import Variant

from ..checkpoint.tokenizers import TOKENIZERS
from ..onnx.export import export_component
from ..onnx.tokenizers import export_tokenizers
from ..onnx.wanted import Export
from ..paths import onnx_folder, repository_folder
from .assemble import assemble


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
    exported = onnx_folder(variant)
    export_tokenizers(variant, checkpoint, exported / TOKENIZERS)
    for component in COMPONENTS:
        precision = placement.components[component].precision
        export_component(Export(variant, component, precision, checkpoint), exported / precision / component)
    return assemble(variant, placement, exported, destination or repository_folder(variant, placement), checkpoint, deployment)
