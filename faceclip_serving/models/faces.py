"""What the public model of photographs does: it says which faces they show. Nothing is drawn."""

from __future__ import annotations

import time
from typing import Any

from ..contract.job import Job
from ..contract.models import PURPOSE, Purpose
from ..contract.names import PREPARE
from ..contract.tensors import bytes_tensor, json_tensor
from .audit import FOR_AUDIT
from .streaming import Arrays, Call, Flow


def look(digest: str, call: Call, arrays: Arrays, place: str) -> Flow:
    """The faces of photographs, as `details`."""
    yield from ()
    prepared = call(PREPARE, {**arrays, PURPOSE.name: bytes_tensor([Purpose.LIST.value.encode()])})
    job = Job.decode(prepared["job"], digest)
    return {"details": json_tensor(details(job))}


def details(job: Job) -> dict[str, Any]:
    """The public report of a request that draws nothing, with what the audit log is told."""
    prepare_s, total_s = (at - job.clock["received"] for at in (job.clock["prepared"], time.monotonic()))
    return {
        "id": job.id,
        "timings_s": {"prepare": round(prepare_s, 6), "total": round(total_s, 6)},
        "faces": job.faces,
        "warnings": job.warnings,
        FOR_AUDIT: job.for_audit(),
    }
