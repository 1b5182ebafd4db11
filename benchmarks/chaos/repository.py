"""The repository that everything here is served from: a variant's, with a denoiser that sleeps."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faceclip_serving.contract.signatures import DENOISER

SLEEPING = Path(__file__).with_name("sleeping_denoiser.py")


@contextmanager
def with_sleeping_denoiser(repository: Path) -> Iterator[Path]:
    """A copy of an assembled repository, gone at the end; every other model is the real one."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        copy = Path(folder) / "repository"
        shutil.copytree(repository, copy)
        shutil.copyfile(SLEEPING, copy / DENOISER / "1" / "model.py")
        yield copy
