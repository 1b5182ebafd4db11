"""The job store: which jobs were accepted, and what has become of them. SQLite in WAL mode; the record that a restart begins from.

What a method has done is on the disk when it returns (`synchronous=FULL`). A transition is one transaction that names the states it
may leave, so a job ends once, whoever would end it. The duty to tell a webhook is written in the transaction that ends the job.
Prompts and photographs are not in here (`spool`), nor pictures (`results`). Times are seconds since 1970. Blocks; one thread at a time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..failures import KeyReusedError, StoreFullError, UnknownJobError, WrongStateError
from ..records import Delivery, Job, NewJob
from ..states import Status, before
from .database import opened, readable, transaction

_COLUMNS = ", ".join(Job.__dataclass_fields__)


class Store:
    """`most`: jobs that may wait or be drawn at a time; more are refused."""

    def __init__(self, file: Path, most: int = 10_000) -> None:
        self._most = most
        self._db = opened(file)

    def accept(self, new: NewJob) -> tuple[Job, bool]:
        """The job, and whether it is a new one. Raises `KeyReusedError`, `StoreFullError`."""
        with transaction(self._db):
            if new.idempotency_key is not None and (same := self._known(new.owner, new.idempotency_key, new.digest)):
                return same, False
            if self._active() >= self._most:
                raise StoreFullError(self._most)
            values = {**vars(new), "status": Status.QUEUED}
            names = ", ".join(values)
            self._db.execute(f"INSERT INTO jobs ({names}) VALUES ({', '.join('?' * len(values))})", tuple(values.values()))
            return self._get(new.id), True

    def known(self, owner: str, idempotency_key: str, digest: str) -> Job | None:
        """The owner's job of a key. Raises `KeyReusedError` where that was of another request."""
        with readable():
            return self._known(owner, idempotency_key, digest)

    def get(self, job_id: str) -> Job:
        """Raises `UnknownJobError`."""
        with readable():
            return self._get(job_id)

    def page(self, owner: str, limit: int, below: int | None = None) -> list[Job]:
        """The owner's, the newest first, numbers under `below`; swept ones left out."""
        with readable():
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM jobs WHERE owner = ? AND NOT swept AND number < ? ORDER BY number DESC LIMIT ?",
                (owner, 2**63 - 1 if below is None else below, limit),
            )
            return [_job(row) for row in rows]

    def unfinished(self) -> list[Job]:
        """Those that wait, and those that are drawn; in the order of their acceptance."""
        with readable():
            query = f"SELECT {_COLUMNS} FROM jobs WHERE status IN (?, ?) ORDER BY number"
            return [_job(row) for row in self._db.execute(query, (Status.QUEUED, Status.GENERATING))]

    def has_result(self, job_id: str) -> bool:
        """Whether the job is known, `completed`, and not swept."""
        with readable():
            query = "SELECT 1 FROM jobs WHERE id = ? AND status = ? AND NOT swept"
            return self._db.execute(query, (job_id, Status.COMPLETED)).fetchone() is not None

    def overdue(self, now: float) -> list[str]:
        """Those that wait, and whose deadline has passed."""
        with readable():
            rows = self._db.execute("SELECT id FROM jobs WHERE status = ? AND deadline <= ?", (Status.QUEUED, now))
            return [row["id"] for row in rows]

    def counts(self) -> dict[Status, int]:
        """Jobs in each state."""
        with readable():
            found = dict(tuple(row) for row in self._db.execute("SELECT status, count(*) FROM jobs GROUP BY status"))
            return {status: found.get(status, 0) for status in Status}

    def pictures(self, owner: str, since: float) -> int:
        """Of the owner's jobs that were accepted since then: those that were drawn, and those that may yet be."""
        with readable():
            query = "SELECT coalesce(sum(pictures), 0) FROM jobs WHERE owner = ? AND created >= ? AND status NOT IN (?, ?)"
            return int(self._db.execute(query, (owner, since, Status.FAILED, Status.CANCELLED)).fetchone()[0])

    def claim(self, job_id: str, now: float) -> Job:
        """`queued` to `generating`: one attempt more."""
        return self._move(job_id, Status.GENERATING, "attempts = attempts + 1, started = coalesce(started, ?)", now)

    def give_back(self, job_id: str, lost: bool) -> Job:
        """`generating` to `queued`. `lost`: the server was, after it had begun."""
        return self._move(job_id, Status.QUEUED, "losses = losses + ?", int(lost))

    def complete(self, job_id: str, result: Mapping[str, Any], now: float, expires: float) -> Job:
        """`generating` to `completed`."""
        return self._end(job_id, Status.COMPLETED, now, expires, result=json.dumps(result))

    def fail(self, job_id: str, error: Mapping[str, Any], now: float, expires: float) -> Job:
        """To `failed`, with an error as answers have it."""
        return self._end(job_id, Status.FAILED, now, expires, error=json.dumps(error))

    def cancel(self, job_id: str, now: float, expires: float) -> Job:
        """To `cancelled`."""
        return self._end(job_id, Status.CANCELLED, now, expires)

    def sweep(self, now: float, forget_s: float) -> list[str]:
        """Ended jobs whose time is over lose result and error; those `forget_s` past it are forgotten. The ids of the former."""
        with transaction(self._db):
            rows = self._db.execute("SELECT id FROM jobs WHERE expires <= ? AND NOT swept", (now,)).fetchall()
            self._db.execute(
                "UPDATE jobs SET swept = 1, result = NULL, error = NULL, webhook_url = NULL WHERE expires <= ? AND NOT swept",
                (now,),
            )
            self._db.execute("DELETE FROM jobs WHERE expires <= ? AND swept", (now - forget_s,))
            return [row["id"] for row in rows]

    def due(self, now: float, limit: int) -> list[Delivery]:
        """What is to be sent now, the longest overdue first."""
        with readable():
            rows = self._db.execute("SELECT * FROM deliveries WHERE due <= ? ORDER BY due LIMIT ?", (now, limit))
            return [Delivery(**row) for row in rows]

    def next_due(self, now: float = 0.0) -> float | None:
        """When the first delivery after `now` is to be sent; None: there is none."""
        with readable():
            when: float | None = self._db.execute("SELECT min(due) FROM deliveries WHERE due > ?", (now,)).fetchone()[0]
            return when

    def delivered(self, job_id: str) -> None:
        """Nothing is to be sent any more, since it was, or since it never will be."""
        with transaction(self._db):
            self._db.execute("DELETE FROM deliveries WHERE job = ?", (job_id,))

    def postpone(self, job_id: str, due: float) -> None:
        """One attempt more has failed; the next at `due`."""
        with transaction(self._db):
            self._db.execute("UPDATE deliveries SET attempts = attempts + 1, due = ? WHERE job = ?", (due, job_id))

    def close(self) -> None:
        """Nothing can be asked afterwards."""
        self._db.close()

    def _end(self, job_id: str, status: Status, now: float, expires: float, **columns: str) -> Job:
        names = "".join(f", {name} = ?" for name in columns)
        return self._move(job_id, status, f"ended = ?, expires = ?{names}", now, expires, *columns.values())

    def _move(self, job_id: str, status: Status, changes: str, *values: Any) -> Job:
        """The one transition. Raises `WrongStateError` where the job is in none of the states that `status` may follow."""
        earlier = before(status)
        with transaction(self._db):
            done = self._db.execute(
                f"UPDATE jobs SET status = ?, {changes} WHERE id = ? AND status IN ({', '.join('?' * len(earlier))})",
                (status, *values, job_id, *earlier),
            )
            job = self._get(job_id)
            if not done.rowcount:
                raise WrongStateError(job_id, job.status, status)
            if status.ended and job.webhook_url is not None:
                self._db.execute(
                    "INSERT INTO deliveries (job, url, due) VALUES (?, ?, ?)", (job_id, job.webhook_url, job.ended)
                )
            return job

    def _known(self, owner: str, idempotency_key: str, digest: str) -> Job | None:
        query = "SELECT id, digest FROM jobs WHERE owner = ? AND idempotency_key = ?"
        same = self._db.execute(query, (owner, idempotency_key)).fetchone()
        if same is None:
            return None
        if same["digest"] != digest:
            raise KeyReusedError(same["id"])
        return self._get(same["id"])

    def _get(self, job_id: str) -> Job:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise UnknownJobError(job_id)
        return _job(row)

    def _active(self) -> int:
        query = "SELECT count(*) FROM jobs WHERE status IN (?, ?)"
        return int(self._db.execute(query, (Status.QUEUED, Status.GENERATING)).fetchone()[0])


def _job(row: sqlite3.Row) -> Job:
    values = dict(row)
    read = {name: None if values[name] is None else json.loads(values[name]) for name in ("result", "error")}
    return Job(**{**values, **read, "status": Status(values["status"]), "swept": bool(values["swept"])})
