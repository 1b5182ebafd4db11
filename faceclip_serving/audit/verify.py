"""Reads an audit log and says whether it is whole. Changes nothing, so that it can be run beside a server that writes."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .keys import canonical, is_signed
from .log import BEGINNING, GAP, HEAD, PURGE, Receipt, day_of, read_head, read_segment, segments, signed_content

KINDS = ("changed", "removed", "reordered", "truncated", "forged", "unreadable")
"""What may be found: a record's text is another; records are missing; records stand elsewhere; the end is missing; a signature is not
by a known key; a file cannot be read."""
_MOST = 100
"""Findings that are told; one fault can bring many."""


@dataclass(frozen=True)
class Finding:
    kind: str
    """One of `KINDS`."""
    segment: str
    """The day's file."""
    seq: int | None
    why: str


@dataclass
class Report:
    """What was found. `records` from `first` to `last`; `head`: hash of the last."""

    records: int = 0
    segments: int = 0
    first: int | None = None
    last: int = 0
    head: str = BEGINNING
    purged_through: int = 0
    """Records up to this number were deleted, as the log itself says."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        return {"whole": self.whole, **asdict(self)}

    def find(self, kind: str, segment: str, seq: int | None, why: str) -> None:
        if len(self.findings) < _MOST:
            self.findings.append(Finding(kind, segment, seq, why))


def records(folder: Path, since: date | None = None) -> Iterator[dict[str, Any]]:
    """What is recorded, the oldest first: `seq`, and the record. Does not check; raises `sqlite3.Error`, ValueError and KeyError."""
    for segment in segments(folder):
        if since is not None and day_of(segment) < since:
            continue
        for _, body, _, _, _ in read_segment(segment):
            told = json.loads(body)
            yield {"seq": told["seq"], **told["record"]}


def verify(folder: Path, keys: Sequence[Ed25519PublicKey], receipts: Sequence[Mapping[str, Any]] = ()) -> Report:
    """Checks every record, and that the log has what its receipts are of. `keys`: whose signatures count."""
    head = _head(folder)  # before the records: a server may write meanwhile
    report = Report()
    purges: dict[int, str] = {}
    hashes = {int(receipt["seq"]): "" for receipt in (*receipts, *([head] if isinstance(head, Mapping) else ()))}
    before: tuple[int, str] | None = None
    opening = ""
    for segment in segments(folder):
        report.segments += 1
        try:
            for row in read_segment(segment):
                told = _checked(report, segment.name, row, before, keys)
                if report.first is None:
                    report.first, opening = row[0], str(told.get("prev"))
                if row[0] in hashes:
                    hashes[row[0]] = row[2]
                recorded = told.get("record")
                recorded = recorded if isinstance(recorded, dict) else {}
                if recorded.get("event") == PURGE:
                    purges[int(recorded["through_seq"])] = str(recorded["through_head"])
                elif recorded.get("event") == GAP:
                    why = f"the end before it was missing when it was written: {recorded.get('why')}"
                    report.find("truncated", segment.name, row[0], why)
                before = (row[0], row[2])
                report.records += 1
        except (sqlite3.Error, ValueError, KeyError, TypeError, OverflowError) as error:
            report.find("unreadable", segment.name, None, f"{type(error).__name__}: {error}")
    if before is not None:
        report.last, report.head = before
    _check_beginning(report, opening, purges)
    if isinstance(head, str):
        report.find("unreadable", HEAD, None, head)
    elif head is not None:
        _check_receipt(report, head, hashes, keys, HEAD)
    elif report.records:
        report.find("truncated", HEAD, None, "it is missing, so that only receipts could tell whether the end was cut off")
    for receipt in receipts:
        _check_receipt(report, receipt, hashes, keys, "receipt")
    return report


def _checked(
    report: Report,
    segment: str,
    row: tuple[int, str, str, str, str],
    before: tuple[int, str] | None,
    keys: Sequence[Ed25519PublicKey],
) -> dict[str, Any]:
    """The body of a record, after all that can be wrong with it was found."""
    seq, body, found, signature, key = row
    try:
        if not all(isinstance(text, str) for text in row[1:]):
            raise TypeError("expected texts, got something else")
        told: dict[str, Any] = json.loads(body)
        own_seq, prev = told["seq"], told["prev"]
        if canonical(told) != body.encode():
            raise ValueError("no canonical JSON")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        report.find("changed", segment, seq, f"its text is none that was written here ({error})")
        return {}
    if before is not None and seq != before[0] + 1:
        report.find("removed", segment, seq, f"records {before[0] + 1} to {seq - 1} are missing before it")
    if own_seq != seq:
        report.find("reordered", segment, seq, f"it stands at {seq} and says that it is {own_seq}")
    elif hashlib.sha256(body.encode()).hexdigest() != found:
        report.find("changed", segment, seq, "its text is another than its hash")
    elif not is_signed(keys, signed_content(seq, found), _bytes(signature)):
        report.find("forged", segment, seq, f"its signature is by none of the known keys (it names {key})")
    if before is not None and seq == before[0] + 1 and prev != before[1]:
        report.find("changed", segment, seq, f"it does not follow from record {before[0]}: one of the two was exchanged")
    return told


def _check_beginning(report: Report, opening: str, purges: Mapping[int, str]) -> None:
    if report.first is None:
        return
    report.purged_through = report.first - 1
    told = {0: BEGINNING, **purges}.get(report.first - 1)
    if told is None:
        report.find("removed", "", report.first, "the log begins with it, and says nowhere that those before were deleted")
    elif told != opening:
        report.find("removed", "", report.first, "it does not follow from the last record that was deleted")


def _check_receipt(
    report: Report, receipt: Mapping[str, Any], hashes: Mapping[int, str], keys: Sequence[Ed25519PublicKey], what: str
) -> None:
    seq, head = int(receipt["seq"]), str(receipt["head"])
    if not is_signed(keys, signed_content(seq, head), _bytes(str(receipt["signature"]))):
        report.find("forged", what, seq, "its signature is by none of the known keys")
    elif seq > report.last:
        report.find("truncated", what, seq, f"the log ends with record {report.last}, and it is of record {seq}")
    elif seq >= (report.first or 1) and hashes.get(seq) != head:
        report.find("changed" if hashes.get(seq) else "removed", what, seq, f"the log has another record {seq} than it is of")


def _head(folder: Path) -> Receipt | str | None:
    """The last receipt, as the writer left it; why it cannot be read; None: there is none."""
    found = _read_head(folder)
    if isinstance(found, str):  # a writer may have been at it
        time.sleep(0.05)
        found = _read_head(folder)
    return found


def _read_head(folder: Path) -> Receipt | str | None:
    try:
        return read_head(folder)
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def _bytes(signature: str) -> bytes:
    try:
        return bytes.fromhex(signature)
    except ValueError:
        return b""
