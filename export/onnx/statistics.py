"""How learnt faces are spread, beside the face encoder that they are of: whoever assembles a repository needs no checkpoint then."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Sequence
from pathlib import Path

from faceclip_serving.contract.names import FACE_ENCODER, STATISTICS_FILE

from ..checkpoint.committed import weights_folder
from ..outputs import replacing
from .wanted import Export


def export_statistics(exports: Sequence[Export], root: Path) -> None:
    """Copies the file of the weights that each face encoder among `exports` was made of to `root`/<precision>/<component>/, after it
    was made. Weights that have none, and stand-ins, leave none there."""
    for export in exports:
        if export.component != FACE_ENCODER:
            continue
        target = root / export.precision / FACE_ENCODER / STATISTICS_FILE
        weights = None if export.seeded else weights_folder(export.variant, export.checkpoint)
        source = None if weights is None else weights / STATISTICS_FILE
        if source is None or not source.is_file():
            target.unlink(missing_ok=True)
        elif not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
            with replacing(target) as partial:
                shutil.copyfile(source, partial)
