"""`python -m server audit verify | show | export | purge`: an audit log, read where it lies. A server may write to it meanwhile."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.settings import marks_folder

# What needs cryptography or OpenCV is imported by the command that needs it.


class NoLogError(UserError):
    """A folder without an audit log, or one that cannot be read."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's parser."""
    text = "the audit log that a server keeps where the setting audit_folder names a folder"
    actions = commands.add_parser("audit", help=text, description=text).add_subparsers(required=True, metavar="action")
    verify = actions.add_parser(
        "verify",
        help="whether it is whole; exit code 1 if not",
        description="Checks every record, and prints what was changed, removed, moved, forged or cut off at the end. An end that was cut"
        " off together with head.json is seen by receipts alone.",
    )
    verify.add_argument("folder", type=Path, metavar="FOLDER", help="the setting audit_folder")
    verify.add_argument(
        "--key", type=Path, metavar="FILE", help="PEM file of the public keys that count (default: the own ones, audit.pem)"
    )
    verify.add_argument(
        "--keys-folder", type=Path, metavar="FOLDER", help="of own keys (default: where `run` looks, see marks_folder)"
    )
    verify.add_argument(
        "--receipt",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="JSON of a receipt, or of the details that hold it",
    )
    verify.set_defaults(run=_verify)
    show = actions.add_parser("show", help="print records", description="Prints records as lines of JSON, the oldest first.")
    for option, metavar, what in (
        ("--id", "ID", "of requests of this id"),
        ("--consent", "ID", "of requests by this record of consent"),
        ("--mark-id", "ID", "of the picture with this invisible mark, as `verify` reads it"),
    ):
        show.add_argument(option, metavar=metavar, help=what)
    show.add_argument(
        "--picture", type=Path, metavar="FILE", help="of pictures that are this one, or look like it, previews included"
    )
    show.add_argument("--last", type=int, metavar="N", help="the last N of them alone")
    show.set_defaults(run=_show)
    export = actions.add_parser(
        "export",
        help="print all, as it is signed",
        description="Prints lines of JSON: each record's body as text, hash, signature, key.",
    )
    export.set_defaults(run=_export)
    for command in (show, export):
        command.add_argument("folder", type=Path, metavar="FOLDER", help="the setting audit_folder")
        command.add_argument("--since", type=date.fromisoformat, metavar="DAY", help="from that day on, e.g. 2026-11-26 (UTC)")
    purge = actions.add_parser(
        "purge",
        help="delete old days",
        description="Deletes whole days, never the last one. The log says so, in a signed record. A server does it by itself once a day,"
        " see the setting audit_days.",
    )
    purge.add_argument("folder", type=Path, metavar="FOLDER", help="the setting audit_folder")
    purge.add_argument("--days", type=int, required=True, metavar="N", help="how many are kept besides today's")
    purge.add_argument(
        "--key", type=Path, metavar="FILE", help="PEM file of the key that signs (default: the own one, audit.key)"
    )
    purge.add_argument(
        "--keys-folder", type=Path, metavar="FOLDER", help="of own keys (default: where `run` looks, see marks_folder)"
    )
    purge.set_defaults(run=_purge)


def _verify(args: argparse.Namespace) -> int:
    from faceclip_serving.audit.keys import AUDIT_PUBLIC, read_public
    from faceclip_serving.audit.verify import verify

    keys = read_public(args.key or (args.keys_folder or Path(marks_folder())) / AUDIT_PUBLIC, "audit_key")
    report = verify(_folder(args), keys, [_receipt(path) for path in args.receipt])
    print(json.dumps(report.as_json(), indent=1))
    for finding in report.findings:
        print(f"{finding.kind}: {finding.segment}, record {finding.seq}: {finding.why}", file=sys.stderr)
    return 0 if report.whole else 1


def _show(args: argparse.Namespace) -> int:
    wanted = _wanted(args)
    found = [told for told in _records(args) if wanted(told)]
    for told in found[-args.last :] if args.last else found:
        print(json.dumps(told, ensure_ascii=False))
    return 0


def _export(args: argparse.Namespace) -> int:
    import sqlite3

    from faceclip_serving.audit.log import day_of, read_segment, segments

    try:
        for path in segments(_folder(args)):
            if args.since is None or day_of(path) >= args.since:
                for seq, body, found, signature, key in read_segment(path):
                    print(json.dumps({"seq": seq, "body": body, "hash": found, "signature": signature, "key": key}))
    except (sqlite3.Error, TypeError) as error:
        raise _unreadable(args, error) from None
    return 0


def _purge(args: argparse.Namespace) -> int:
    from faceclip_serving.audit.keys import AUDIT_KEY, read_private
    from faceclip_serving.audit.log import AuditError, AuditLog

    if args.days < 0:
        raise UserError(f"--days: expected 0 or more, got {args.days}")
    key = read_private(args.key or (args.keys_folder or Path(marks_folder())) / AUDIT_KEY, "audit_key")
    log = AuditLog(_folder(args), key)
    try:
        deleted = log.purge(datetime.now(UTC).date() - timedelta(days=args.days))
    except AuditError as error:
        raise NoLogError(str(error)) from None
    finally:
        log.close()
    print(json.dumps({"deleted": deleted}))
    return 0


def _folder(args: argparse.Namespace) -> Path:
    from faceclip_serving.audit.log import segments

    folder: Path = args.folder
    if not segments(folder):
        raise NoLogError(f"{folder}: expected a folder that holds an audit log, there is none; name the setting audit_folder")
    return folder


def _records(args: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
    import sqlite3

    from faceclip_serving.audit.verify import records

    try:
        yield from records(_folder(args), args.since)
    except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
        raise _unreadable(args, error) from None


def _unreadable(args: argparse.Namespace, error: Exception) -> NoLogError:
    return NoLogError(f"{args.folder} cannot be read ({error}); `python -m server audit verify` says where it is broken")


def _wanted(args: argparse.Namespace) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a record is asked for."""
    alike = _alike(args.picture) if args.picture else None

    def wanted(told: Mapping[str, Any]) -> bool:
        made = [*(told.get("outputs") or []), *(told.get("previews") or [])]
        return (
            (args.id is None or told.get("id") == args.id)
            and (args.consent is None or args.consent in _consents(told.get("consent") or {}))
            and (args.mark_id is None or any(each["mark_id"] == args.mark_id for each in made))
            and (alike is None or any(alike(each) for each in made))
        )

    return wanted


def _consents(told: Mapping[str, Any]) -> list[str | None]:
    """The records of consent that a request had: its own, and those of several people."""
    return [told.get("id"), *(each.get("id") for each in told.get("people") or [])]


def _alike(path: Path) -> Callable[[Mapping[str, Any]], bool]:
    """Whether an output that was recorded is this picture: the file itself, or one that looks like it."""
    import hashlib

    from faceclip_serving.audit.fingerprints import ALIKE, distance, perceptual_hash
    from faceclip_serving.face.photos import decode_photo

    content = path.read_bytes()
    sha256, look = hashlib.sha256(content).hexdigest(), perceptual_hash(decode_photo(content).pixels)
    return lambda made: made["sha256"] == sha256 or distance(made["perceptual_hash"], look) <= ALIKE


def _receipt(path: Path) -> Mapping[str, Any]:
    from faceclip_serving.audit.log import as_receipt

    try:
        told = json.loads(path.read_text())
        told = told.get("details", told)
        return as_receipt(told.get("receipt", told))
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"--receipt: expected JSON with seq, head and signature in {path} ({type(error).__name__}: {error})"
        ) from None
