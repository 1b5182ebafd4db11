"""The audit log: what is appended stays, and whatever is done to it afterwards is found."""

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import date, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.audit.tampering import TAMPERINGS
from faceclip_serving.audit.keys import canonical, sign
from faceclip_serving.audit.log import HEAD, AuditError, AuditLog, overdue, segments, signed_content
from faceclip_serving.audit.verify import records, verify
from faceclip_serving.marking.authority import KeysError

from .conftest import KEY

ROOT = Path(__file__).resolve().parents[3]
PUBLIC = (KEY.public_key(),)
DAY = date(2026, 11, 26)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "audit"


@pytest.fixture
def written(folder):
    """Forty records over four days, and their receipts."""
    receipts = []
    for day in range(4):
        log = AuditLog(folder, KEY, today=lambda day=day: DAY + timedelta(days=day))
        receipts += [log.append({"event": "request", "id": f"{day}-{i}"}) for i in range(10)]
        log.close()
    return receipts


def kinds(folder, receipts=()):
    return {finding.kind for finding in verify(folder, PUBLIC, receipts).findings}


def test_records_form_one_chain_over_days_and_every_receipt_holds(folder, written):
    report = verify(folder, PUBLIC, written)
    assert report.whole and (report.records, report.segments, report.first, report.last) == (40, 4, 1, 40)
    assert [receipt["seq"] for receipt in written] == list(range(1, 41)) and report.head == written[-1]["head"]
    assert [told["id"] for told in records(folder)] == [f"{day}-{i}" for day in range(4) for i in range(10)]
    assert [told["seq"] for told in records(folder, DAY + timedelta(days=3))] == list(range(31, 41))


def test_it_goes_on_after_a_new_start_and_when_clocks_go_back(folder, written):
    log = AuditLog(folder, KEY, today=lambda: DAY)
    assert log.append({"event": "request"})["seq"] == 41
    log.close()
    assert verify(folder, PUBLIC).whole and len(segments(folder)) == 4


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_of_every_kind_is_found(folder, written, name):
    tampering = TAMPERINGS[name]
    tampering.apply(folder)
    receipts = written[-1:] if tampering.needs_receipt else ()
    assert tampering.kind in kinds(folder, receipts)


def test_an_older_end_that_is_put_back_whole_is_seen_by_a_receipt_alone(folder, written):
    """The limit of any log that lies in one place: said in the docs, and here."""
    TAMPERINGS["cut off, with an older head.json"].apply(folder)
    assert not kinds(folder) and kinds(folder, written[-1:]) == {"truncated"}


def test_whoever_writes_a_chain_of_their_own_lacks_the_key(folder, written):
    shutil.rmtree(folder)
    log = AuditLog(folder, Ed25519PrivateKey.generate())
    log.append({"event": "request"})
    log.close()
    assert kinds(folder) == {"forged"}


def test_a_receipt_of_another_log_is_forged_or_contradicts(folder, written):
    other = {**written[3], "signature": Ed25519PrivateKey.generate().sign(b"x").hex()}
    assert kinds(folder, [other]) == {"forged"}
    assert kinds(folder, [{**written[3], "head": "0" * 64, "signature": sign(KEY, signed_content(4, "0" * 64)).hex()}]) == {
        "changed"
    }


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("name", ["the end cut off", "the last day removed", "head.json removed", "head.json made unreadable"])
def test_a_writer_that_goes_on_keeps_the_proof_of_what_is_missing(folder, written, name, running, caplog):
    log = AuditLog(folder, KEY, today=lambda: DAY + timedelta(days=3)) if running else None
    TAMPERINGS[name].apply(folder)
    (log or AuditLog(folder, KEY, today=lambda: DAY + timedelta(days=3))).append({"event": "request", "id": "later"})
    told = list(records(folder))
    assert [each["event"] for each in told[-2:]] == ["gap", "request"] and "the end of the log in" in caplog.text
    assert told[-2]["found"]["seq"] == told[-3]["seq"] and told[-2]["seq"] == told[-3]["seq"] + 1
    if running or "head" not in name:
        assert told[-2]["known"]["head"] == written[-1]["head"]
    for day in (3, 4):
        AuditLog(folder, KEY, today=lambda day=day: DAY + timedelta(days=day)).append({"event": "request"})
        assert [each["event"] for each in records(folder)].count("gap") == 1, "it is told once"
        (finding,) = verify(folder, PUBLIC).findings
        assert (finding.kind, finding.seq) == ("truncated", told[-2]["seq"])


def test_a_writer_remembers_the_end_that_head_json_does_not_know_any_more(folder, written):
    log = AuditLog(folder, KEY, today=lambda: DAY + timedelta(days=3))
    log.append({"event": "request"})
    TAMPERINGS["cut off, with an older head.json"].apply(folder)
    log.append({"event": "request"})
    assert kinds(folder) == {"truncated"}


def test_a_log_that_was_only_opened_and_one_whose_writer_died_before_head_json_have_no_gap(folder, written):
    head = (folder / HEAD).read_bytes()
    log = AuditLog(folder, KEY)
    log.append({"event": "request"})
    (folder / HEAD).write_bytes(head)  # as if it had been killed between the two
    AuditLog(folder, KEY).append({"event": "request"})
    assert verify(folder, PUBLIC).whole


def test_an_end_that_is_removed_before_anything_is_appended_is_recorded_by_opening(folder, written):
    TAMPERINGS["the end cut off"].apply(folder)
    AuditLog(folder, KEY).close()
    assert list(records(folder))[-1]["event"] == "gap" and kinds(folder) == {"truncated"}


@pytest.mark.parametrize("column", ["body", "hash", "signature", "key"])
def test_what_is_stored_as_bytes_is_changed(folder, written, column):
    with sqlite3.connect(segments(folder)[1]) as connection:
        connection.execute("DROP TRIGGER no_update")
        connection.execute(f"UPDATE records SET {column} = CAST({column} AS BLOB) WHERE seq = 15")
    assert [(each.kind, each.seq) for each in verify(folder, PUBLIC).findings][:1] == [("changed", 15)]


@pytest.mark.parametrize(
    "body", ["[" * 100_000, "[]", '{"seq":1e999,"prev":""}', '{"seq":15,"prev":"","record":{"event":"purge"}}']
)
def test_a_text_of_another_kind_is_a_finding(folder, written, body):
    with sqlite3.connect(segments(folder)[1]) as connection:
        connection.execute("DROP TRIGGER no_update")
        connection.execute("UPDATE records SET body = ? WHERE seq = 15", (body,))
    assert verify(folder, PUBLIC).findings


@pytest.mark.parametrize("seq", ["1e999", "true", '"1"', "-1", "1" * 40, "null"])
def test_a_head_with_no_number_is_unreadable(folder, written, seq):
    (folder / HEAD).write_text(f'{{"seq":{seq},"head":"{"0" * 64}","signature":""}}')
    assert kinds(folder) == {"unreadable"}


def test_the_database_itself_refuses_changes(folder, written):
    with sqlite3.connect(segments(folder)[0]) as connection:
        for change in ("UPDATE records SET body = ''", "DELETE FROM records", "DELETE FROM records WHERE seq = 3"):
            with pytest.raises(sqlite3.IntegrityError, match="records are never"):
                connection.execute(change)


# ------------------------------------------------------------------------------------------------------------------- writing
def test_threads_and_logs_that_write_at_once_make_one_chain(folder):
    logs = [AuditLog(folder, KEY) for _ in range(2)]
    receipts, lock = [], threading.Lock()

    def write(log):
        for i in range(25):
            receipt = log.append({"event": "request", "i": i})
            with lock:
                receipts.append(receipt)

    threads = [threading.Thread(target=write, args=(log,)) for log in logs * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(receipt["seq"] for receipt in receipts) == list(range(1, 201))
    assert verify(folder, PUBLIC, receipts).whole


WRITER = """
import sys
from pathlib import Path
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from faceclip_serving.audit.log import AuditLog
import json
log = AuditLog(Path(sys.argv[1]), load_pem_private_key(Path(sys.argv[2]).read_bytes(), None))
while True:
    print(json.dumps(log.append({"event": "request", "text": "x" * 500})), flush=True)
"""


def test_a_crash_loses_nothing_that_was_acknowledged(folder, tmp_path):
    from faceclip_serving.audit.keys import make_pair, read_public

    make_pair(tmp_path, "k.key", "k.pem")
    acknowledged = []
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(folder), str(tmp_path / "k.key")]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        acknowledged += [json.loads(process.stdout.readline()) for _ in range(40)]
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines()
        process.wait()
        acknowledged += [json.loads(line) for line in rest if line.endswith("}")]
    report = verify(folder, read_public(tmp_path / "k.pem", "k"), acknowledged)
    assert report.whole and report.records >= len(acknowledged) >= 120


def test_what_json_cannot_hold_fails_alone(folder):
    log = AuditLog(folder, KEY)
    for record in ({"x": float("nan")}, {"x": 2**60}, {"x": "\ud800"}, {"x": b"bytes"}):
        with pytest.raises(AuditError, match="expected what JSON can hold"):
            log.append(record)
    assert log.append({"x": 1})["seq"] == 1


def test_a_disk_that_takes_nothing_fails_closed_and_then_goes_on(folder, monkeypatch):
    log = AuditLog(folder, KEY)
    log.append({"x": 1})
    with monkeypatch.context() as patch:
        patch.setattr(log, "_append", lambda *_: (_ for _ in ()).throw(sqlite3.OperationalError("database or disk is full")))
        with pytest.raises(AuditError, match=r"nothing is answered that cannot be recorded \(database or disk is full\)"):
            log.append({"x": 2})
    assert log.append({"x": 3})["seq"] == 2 and verify(folder, PUBLIC).whole


def test_a_folder_that_cannot_be_written_to_is_known_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KeysError, match=r"audit_folder: .*file.* cannot be written to"):
        AuditLog(tmp_path / "file", KEY)


@pytest.mark.parametrize("name", ["a#b", "a?b", "50%25 x", "a%41", "ü b"])
def test_a_folder_may_have_any_name(tmp_path, name):
    for day in range(2):
        AuditLog(tmp_path / name, KEY, today=lambda day=day: DAY + timedelta(days=day)).append({"event": "request"})
    report = verify(tmp_path / name, PUBLIC)
    assert report.whole and report.records == 2 and [path.name for path in tmp_path.iterdir()] == [name]


def test_only_their_owner_reads_its_files(folder, written):
    assert {path.stat().st_mode & 0o077 for path in (folder, *folder.iterdir())} == {0}


# ------------------------------------------------------------------------------------------------------------------- retention
def test_a_purge_deletes_whole_days_and_is_no_gap(folder, written):
    log = AuditLog(folder, KEY, today=lambda: DAY + timedelta(days=3))
    assert log.purge(DAY + timedelta(days=2)) == ["2026-11-26", "2026-11-27"]
    assert log.purge(DAY + timedelta(days=2)) == []
    assert log.purge(DAY + timedelta(days=30)) == ["2026-11-28"], "the last day stays"
    log.close()
    report = verify(folder, PUBLIC, written)
    assert report.whole and (report.first, report.purged_through, report.segments) == (31, 30, 1)
    purges = [told for told in records(folder) if told["event"] == "purge"]
    assert [(told["days"], told["through_seq"]) for told in purges] == [
        (["2026-11-26", "2026-11-27"], 20),
        (["2026-11-28"], 30),
    ]


def test_days_are_deleted_by_themselves(folder):
    today = [DAY]
    log = AuditLog(folder, KEY, days=2, today=lambda: today[0])
    for _ in range(6):
        log.append({"event": "request"})
        today[0] += timedelta(days=1)
    log.close()
    assert [path.stem for path in segments(folder)] == ["2026-11-29", "2026-11-30", "2026-12-01"]
    assert verify(folder, PUBLIC).whole


@pytest.mark.parametrize("content", [b"", b"SQLite", b"\xff" * 5000])
@pytest.mark.parametrize("day", [DAY - timedelta(days=1), DAY + timedelta(days=4)])
def test_an_old_day_that_cannot_be_read_stops_no_request(folder, written, content, day):
    (folder / f"{day}.sqlite").write_bytes(content)
    log = AuditLog(folder, KEY, today=lambda: DAY + timedelta(days=5))
    assert log.append({"event": "request"})["seq"] == 41
    assert {(each.kind, each.segment) for each in verify(folder, PUBLIC).findings} == {("unreadable", f"{day}.sqlite")}
    log = AuditLog(folder, KEY, days=1, today=lambda: DAY + timedelta(days=7))
    assert log.append({"event": "request"})["seq"] == 42 and verify(folder, PUBLIC).whole and len(segments(folder)) == 1


def test_days_that_cannot_be_deleted_are_told_and_stop_no_request(folder, written, caplog, monkeypatch):
    today = DAY + timedelta(days=5)
    log = AuditLog(folder, KEY, days=3, today=lambda: today)
    assert not overdue(folder, 0, today) and not overdue(folder, 5, today)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError("no")))
        assert [log.append({"event": "request"})["seq"] for _ in range(3)] == [41, 43, 44], "42 says what was to be deleted"
    assert caplog.text.count("could not be deleted") == 1 and overdue(folder, 3, today) == ["2026-11-26"]
    AuditLog(folder, KEY, days=3, today=lambda: today).append({"event": "request"})
    assert verify(folder, PUBLIC).whole and not overdue(folder, 3, today)


def test_a_first_day_that_somebody_else_deleted_is_a_gap(folder, written):
    segments(folder)[0].unlink()
    (finding,) = verify(folder, PUBLIC).findings
    assert finding.kind == "removed" and re.search("begins with it, and says nowhere", finding.why)


def test_nothing_written_is_whole_and_empty(folder):
    AuditLog(folder, KEY).close()
    report = verify(folder, PUBLIC)
    assert report.whole and report.records == 0 and json.loads((folder / HEAD).read_text())["seq"] == 0
    assert canonical(report.as_json())
