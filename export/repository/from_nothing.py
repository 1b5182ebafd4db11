"""From nothing to a repository that a server can load: exports what is missing, then assembles."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock

from faceclip_serving.contract.names import COMPONENTS, DEFAULT_DEPLOYMENT
from faceclip_serving.contract.placements import Placement
from faceclip_serving.contract.variants.variant import Variant

from ..checkpoint.committed import weights_folder
from ..checkpoint.tokenizers import TOKENIZERS
from ..onnx.export import export_components, is_kept
from ..onnx.statistics import export_statistics
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
        precisions = {component: placement.components[component].precision for component in COMPONENTS}
        wanted = [
            Export(variant, component, precision, checkpoint)
            for component, precision in precisions.items()
            if precision in PRECISIONS  # else `export quantize` makes it
        ]
        missing = [each for each in wanted if not is_kept(each, exported / each.precision / each.component)]
        for _ in export_components(missing, exported, _at_once(variant)):
            pass
        export_statistics(wanted, exported)
        folder = destination or repository_folder(variant, placement)
        return assemble(variant, placement, exported, folder, checkpoint, deployment)


def _at_once(variant: Variant) -> int:
    """How many components are exported at a time: as many as there are cores, but one where each takes much of the memory."""
    return 1 if variant.weights == "checkpoint" else len(os.sched_getaffinity(0))
