"""A repository whose denoiser sleeps in place of computing, as one on a GPU leaves the cores to others; every other model is the real one.
Only the search of drawn pictures for small faces never ends with none, see `sleeping_denoiser`.

Whoever measures with it says so: no time is one of a real denoiser.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from faceclip_serving.contract.names import SAMPLER

from .sleeping_denoiser import AWAKE, SLEEP_FILE

SLEEPING = Path(__file__).with_name("sleeping_denoiser.py")


@dataclass(frozen=True)
class Sleep:
    """How long a call takes, in seconds."""

    call_s: float
    row_s: float

    def of(self, rows: int) -> float:
        return self.call_s + self.row_s * rows


QUICK = Sleep(0.001, 0.0005)
"""For thousands of requests in minutes."""
CARD = Sleep(0.010, 0.012)
"""In the order of SDXL on a large card."""


@contextmanager
def with_sleeping_denoiser(repository: Path, sleep: Sleep) -> Iterator[Path]:
    """A copy of an assembled repository, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="sleeping-") as folder:
        copy = Path(folder) / "repository"
        shutil.copytree(repository, copy)
        sampler = copy / SAMPLER / "1"
        (sampler / "model.py").rename(sampler / f"{AWAKE}.py")
        shutil.copyfile(SLEEPING, sampler / "model.py")
        (sampler / SLEEP_FILE).write_text(json.dumps(asdict(sleep)))
        yield copy
