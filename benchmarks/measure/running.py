"""A server for a measurement: built if need be, on free ports, stopped at the end."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import Placement
from faceclip_serving.contract.variant import Variant

if TYPE_CHECKING:
    from faceclip import FaceCLIPPipeline
    from server.process import TritonServer


class ServingError(UserError):
    """The server that a measurement started did not do what was asked."""


@contextmanager
def serving(
    variant: Variant, placement: Placement, checkpoint: Path | None = None
) -> Iterator[tuple[TritonServer, FaceCLIPPipeline]]:
    """A ready server over the variant's repository, and a client of it."""
    from export.repository.from_nothing import build_repository  # torch
    from faceclip import FaceCLIPError, FaceCLIPPipeline
    from server.process import Ports, TritonServer

    repository = build_repository(variant, placement, checkpoint)
    with tempfile.TemporaryDirectory() as folder, TritonServer(repository, Ports.free(), log=Path(folder) / "log") as server:
        server.wait_ready()
        print(f"serving {repository} at {server.url}", file=sys.stderr)
        try:
            with FaceCLIPPipeline.from_pretrained(server.url) as pipe:
                yield server, pipe
        except FaceCLIPError as error:
            raise ServingError(f"a request of the measurement failed: {type(error).__name__}: {error}") from error
