"""What somebody may do to an audit log who can write to its folder and lacks its key, and what `verify` has to call it.

Each takes the triggers away first, as somebody who means it would.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from faceclip_serving.audit.log import HEAD, read_segment, segments


@dataclass(frozen=True)
class Tampering:
    kind: str
    """What must be found, of `verify.KINDS`."""
    apply: Callable[[Path], object]
    """Does it to a log of some segments with at least five records each."""
    needs_receipt: bool = False
    """Only a receipt from before shows it."""


def _in(number: int, *statements: str) -> Callable[[Path], None]:
    """SQL in one segment; {m}: number of a record in its middle, {last}: of its last."""

    def apply(folder: Path) -> None:
        path = segments(folder)[number]
        rows = list(read_segment(path))
        known = {"m": rows[len(rows) // 2][0], "last": rows[-1][0]}
        with closing(sqlite3.connect(path)) as connection, connection:
            for trigger in ("no_update", "no_delete"):
                connection.execute(f"DROP TRIGGER {trigger}")
            for statement in statements:
                connection.execute(statement.format(**known, **{"n": known["m"] + 1}))

    return apply


def _rewritten(folder: Path) -> None:
    """A record is changed, and its hash and all that follow are made to fit; only the key is missing."""
    begun, prev = False, ""
    for path in segments(folder):
        rows = list(read_segment(path))
        with closing(sqlite3.connect(path)) as connection, connection:
            for trigger in ("no_update", "no_delete"):
                connection.execute(f"DROP TRIGGER {trigger}")
            for seq, body, found, _, _ in rows:
                told = json.loads(body)
                if not begun and seq < rows[len(rows) // 2][0]:
                    prev = found
                    continue
                if not begun:
                    told["record"]["event"] = "another"
                begun, told["prev"] = True, prev
                body = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
                prev = hashlib.sha256(body.encode()).hexdigest()
                connection.execute("UPDATE records SET body = ?, hash = ? WHERE seq = ?", (body, prev, seq))


def _cut_with_head(folder: Path) -> None:
    """The end is cut off, and `head.json` made anew of what the record that is then the last one says itself."""
    _CUT(folder)
    *_, (seq, _, found, signature, key) = read_segment(segments(folder)[-1])
    (folder / HEAD).write_text(json.dumps({"seq": seq, "head": found, "signature": signature, "key": key}))


def _swapped_files(folder: Path) -> None:
    first, second = segments(folder)[:2]
    aside = first.with_suffix(".aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


_CUT = _in(-1, "DELETE FROM records WHERE seq > {m}")
_SWAP = (
    "UPDATE records SET seq = -1 WHERE seq = {m}",
    "UPDATE records SET seq = {m} WHERE seq = {n}",
    "UPDATE records SET seq = {n} WHERE seq = -1",
)

TAMPERINGS: Mapping[str, Tampering] = {
    "a text changed": Tampering(
        "changed", _in(1, """UPDATE records SET body = replace(body, 'request', 'another') WHERE seq = {m}""")
    ),
    "a text changed, and all hashes after it": Tampering("forged", _rewritten),
    "a text made unreadable": Tampering("changed", _in(1, "UPDATE records SET body = '{{' WHERE seq = {m}")),
    "a signature changed": Tampering("forged", _in(1, "UPDATE records SET signature = 'ab' WHERE seq = {m}")),
    "one removed": Tampering("removed", _in(1, "DELETE FROM records WHERE seq = {m}")),
    "one removed and the gap closed": Tampering(
        "reordered",
        _in(1, "DELETE FROM records WHERE seq = {m}", "UPDATE records SET seq = {m} WHERE seq = {last}"),
    ),
    "a day removed": Tampering("removed", lambda folder: segments(folder)[1].unlink()),
    "the first day removed": Tampering("removed", lambda folder: segments(folder)[0].unlink()),
    "two exchanged": Tampering("reordered", _in(1, *_SWAP)),
    "two days exchanged": Tampering("removed", _swapped_files),
    "the end cut off": Tampering("truncated", _CUT),
    "the last day removed": Tampering("truncated", lambda folder: segments(folder)[-1].unlink()),
    "cut off, with an older head.json": Tampering("truncated", _cut_with_head, needs_receipt=True),
    "head.json removed": Tampering("truncated", lambda folder: (folder / HEAD).unlink()),
    "head.json made unreadable": Tampering("unreadable", lambda folder: (folder / HEAD).write_text("x")),
    "a file cut off": Tampering("unreadable", lambda folder: segments(folder)[1].write_bytes(b"SQLite")),
}
