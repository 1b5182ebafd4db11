"""The audit log with many records: what one costs, by one writer and by many, whether a crash loses any, and whether tampering is found.

The records are as long as those of requests with a photograph. Every kind of tampering is done to a copy of the whole log.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from faceclip_serving.audit.keys import AUDIT_KEY, AUDIT_PUBLIC, make_pair, read_private, read_public
from faceclip_serving.audit.log import AuditLog, Receipt, segments
from faceclip_serving.audit.verify import verify

from ..measure.report import emit, say
from .tampering import TAMPERINGS

DAYS = 4
_WRITER = """
import json, sys
from pathlib import Path
from benchmarks.audit.command import record
from faceclip_serving.audit.keys import read_private
from faceclip_serving.audit.log import AuditLog
log = AuditLog(Path(sys.argv[1]), read_private(Path(sys.argv[2]), "key"))
while True:
    print(json.dumps(log.append(record(0))), flush=True)
"""


def record(number: int) -> dict[str, Any]:
    """As of a request with a photograph, a record of consent and one picture."""
    return {
        "event": "request",
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "id": f"{number:032x}",
        "deployment": "faceclip",
        "model": "faceclip",
        "variant": "nano",
        "version": "0.1.0 0123456789ab",
        "tenant": "",
        "prompt": "a" * 64,
        "outcome": "ok",
        "consent": {"mode": "require", "id": "b" * 32, "expires": "2027-11-26T00:00:00Z", "signed": True},
        "references": ["c" * 64],
        "outputs": [
            {"sha256": "d" * 64, "perceptual_hash": "e" * 16, "id": "f" * 32, "mark_id": "0" * 16, "manifest": f"urn:c2pa:{'1' * 36}"}
        ],
    }  # fmt: skip


def measure_audit(records: int, writers: int) -> dict[str, Any]:
    """The report; `tampering`: what was done -> whether it was found as what it is."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_pair(root, AUDIT_KEY, AUDIT_PUBLIC)
        keys = read_public(root / AUDIT_PUBLIC, "key")
        receipts, told = _written(root, records, writers)
        begun = time.perf_counter()
        report = verify(root / "log", keys, receipts)
        verify_s = time.perf_counter() - begun
        size = sum(path.stat().st_size for path in segments(root / "log"))
        say(f"{report.records} records, whole: {report.whole}, verified in {verify_s:.1f} s")
        return {
            "records": report.records,
            **told,
            "bytes_per_record": round(size / records),
            "verify_s": round(verify_s, 2),
            "whole": report.whole and report.records == records,
            "tampering": _tampered(root, keys, receipts),
            "crash": _crashed(root, keys),
        }


def _written(root: Path, records: int, writers: int) -> tuple[list[Receipt], dict[str, Any]]:
    """A log over some days. One writer alone makes a tenth of the first day, many at once all else."""
    receipts: list[Receipt] = []
    alone_ms: list[float] = []
    together_s, together = 0.0, 0
    for day in range(DAYS):
        log = AuditLog(root / "log", read_private(root / AUDIT_KEY, "key"), today=partial(_later, day))
        left = records // DAYS if day else records - records // DAYS * (DAYS - 1)
        if not day:
            for number in range(left // 10):
                begun = time.perf_counter()
                receipts.append(log.append(record(number)))
                alone_ms.append((time.perf_counter() - begun) * 1e3)
            left -= left // 10
        with ThreadPoolExecutor(writers) as threads:
            begun = time.perf_counter()
            receipts += threads.map(log.append, map(record, range(left)))
            together_s, together = together_s + time.perf_counter() - begun, together + left
        log.close()
        say(f"{len(receipts)} records")
    return receipts, {
        "alone_ms_median": round(statistics.median(alone_ms), 3),
        "together_ms": round(together_s / together * 1e3, 3),
        "writers": writers,
    }


def _later(days: int) -> date:
    return datetime.now(UTC).date() + timedelta(days=days)


def _tampered(root: Path, keys: Sequence[Ed25519PublicKey], receipts: Sequence[Receipt]) -> Mapping[str, bool]:
    found = {}
    for name, tampering in TAMPERINGS.items():
        copy = root / "copy"
        shutil.copytree(root / "log", copy)
        tampering.apply(copy)
        report = verify(copy, keys, receipts[-1:] if tampering.needs_receipt else ())
        found[name] = tampering.kind in {finding.kind for finding in report.findings}
        shutil.rmtree(copy)
        say(f"{name}: {report.findings[0].kind if report.findings else 'NOT FOUND'}")
    return found


def _crashed(root: Path, keys: Sequence[Ed25519PublicKey], kills: int = 5) -> dict[str, Any]:
    """A writer that is killed while it writes, and started again: what it had acknowledged, and what of it is missing."""
    acknowledged: list[Receipt] = []
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(root / "crash"), str(root / AUDIT_KEY)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        acknowledged += [json.loads(process.stdout.readline()) for _ in range(100)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [json.loads(line) for line in process.stdout.read().splitlines() if line.endswith("}")]
        process.wait()
    report = verify(root / "crash", keys, acknowledged)
    return {"kills": kills, "acknowledged": len(acknowledged), "records": report.records, "whole": report.whole}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--records", type=int, default=10_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--writers", type=int, default=16, metavar="N", help="that write at once (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    found = measure_audit(args.records, args.writers)
    emit("audit", found)
    return 0 if found["whole"] and all(found["tampering"].values()) and found["crash"]["whole"] else 1
