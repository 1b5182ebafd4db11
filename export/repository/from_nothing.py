"""From nothing to a repository that a server can load: exports what is missing, then assembles."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from faceclip_serving.contract.placements import Placement
from faceclip_serving.contract.signatures import COMPONENTS, DEFAULT_DEPLOYMENT
from faceclip_serving.contract.variant import Variant

from ..checkpoint.committed import weights_folder
from ..checkpoint.tokenizers import TOKENIZERS
from ..onnx.export import export_component
from ..onnx.tokenizers import export_tokenizers
from ..onnx.wanted import PRECISIONS, Export
from ..paths import onnx_folder, repository_folder
from .assemble import assemble

LOCK = ".lock"
"""In the folder of a variant's exports: held by whoever builds a repository of it."""


def build_repository(
    variant: Variant,
    placement: Placement,
    checkpoint: Path | None = None,
    deployment: str = DEFAULT_DEPLOYMENT,
    destination: Path | None = None,
) -> Path:
    """The assembled repository of `variant` on `placement`; components that are up to date are not exported again.

    `deployment` in a `destination` of other deployments joins them.
    """
    exported = onnx_folder(variant)
    exported.mkdir(parents=True, exist_ok=True)
    with FileLock(exported / LOCK):  # two at once would do the work twice, and one would replace what the other serves
        weights_folder(variant, checkpoint)  # says which are missing, before anything is made
        export_tokenizers(variant, checkpoint, exported / TOKENIZERS)
        for component in COMPONENTS:
            precision = placement.components[component].precision
            if precision in PRECISIONS:  # else `export quantize` makes it
                export_component(Export(variant, component, precision, checkpoint), exported / precision / component)
        folder = destination or repository_folder(variant, placement)
        return assemble(variant, placement, exported, folder, checkpoint, deployment)
