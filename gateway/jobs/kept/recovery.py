"""What a start makes of the data folder that the last gateway has left, whatever its end was. Blocks."""

from __future__ import annotations

import logging
import time

from ..records import Job
from ..states import Status
from .results import Results
from .spool import Spool
from .store import Store

log = logging.getLogger(__name__)


def recover(store: Store, spool: Spool, results: Results) -> list[Job]:
    """Jobs that wait. One that was being drawn, and whose result is whole, has ended; another is drawn again."""
    waiting = []
    for job in store.unfinished():
        if job.status is Status.QUEUED:
            waiting.append(job)
        elif manifest := results.kept(job.id):
            store.complete(job.id, manifest, time.time(), manifest["expires"])
            log.info("job %s: its result was whole, and is taken over", job.id)
        else:
            waiting.append(store.give_back(job.id, lost=False))
    spool.remove_all_but(job.id for job in waiting)
    for result_id in results.ids():
        if result_id.startswith("job_") and not store.has_result(result_id):
            results.remove(result_id)
    return waiting
