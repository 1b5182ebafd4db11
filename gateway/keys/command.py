"""`python -m gateway keys add | list | revoke`. A running gateway obeys from the next request on."""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ..settings import Settings, SettingsError
from .caller import SCOPES, Limits
from .store import KeyStore

_DAYS = re.compile(r"([1-9][0-9]{0,4})d")


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("keys", help="make, list and revoke API keys", description=__doc__)
    which = parser.add_subparsers(required=True, metavar="action")
    add = which.add_parser("add", help="make a key; it is printed this once", allow_abbrev=False)
    add.add_argument("name", help="whose it is, for lists and logs")
    add.add_argument("--scope", action="append", choices=SCOPES, help="what it is for; may be repeated (default: all)")
    add.add_argument("--expires", type=_moment, metavar="WHEN", help="30d, or a date such as 2027-01-31 (default: never)")
    add.add_argument("--requests-per-minute", type=_count, metavar="N")
    add.add_argument("--concurrent", type=_count, metavar="N", help="drawings at a time")
    add.add_argument("--pictures-per-day", type=_count, metavar="N", help="of the day in UTC")
    add.add_argument("--largest-side", type=_count, metavar="PIXELS", help="of width and of height, drawn and answered")
    add.add_argument(
        "--variant", action="append", dest="variants", metavar="NAME", help="model or variant; may be repeated (default: all)"
    )
    add.add_argument("--priority", choices=("interactive", "batch"), default="interactive", help="the highest that it gets")
    add.set_defaults(run=_add)
    listed = which.add_parser("list", help="one JSON line for each key; never the key itself")
    listed.set_defaults(run=_list)
    revoke = which.add_parser("revoke", help="end a key at once")
    revoke.add_argument("id", help="as `list` shows it")
    revoke.set_defaults(run=_revoke)
    for each in (add, listed, revoke):
        each.add_argument("--data", type=Path, default=Path(Settings.data), help="folder of the gateway (default: %(default)s)")


def _add(args: argparse.Namespace) -> int:
    if not 0 < len(args.name) <= 100 or not args.name.isprintable():
        raise SettingsError("name: expected 1 to 100 printable characters")
    told = {each.name: getattr(args, each.name) for each in fields(Limits)}
    limits = Limits(**{**told, "variants": tuple(args.variants) if args.variants else None})
    store = KeyStore(args.data)
    print(store.add(args.name, frozenset(args.scope or SCOPES), limits, args.expires))
    print("keep it: only its hash stays here; callers send it as 'Authorization: Bearer KEY'", file=sys.stderr)
    store.close()
    return 0


def _list(args: argparse.Namespace) -> int:
    for key in _existing(args.data).all():
        caller = key.caller
        limits = {name: value for name, value in asdict(caller.limits).items() if value is not None}
        about = {
            "id": caller.key_id,
            "name": caller.name,
            "state": key.state,
            "scopes": sorted(caller.scopes),
            "limits": limits,
        }
        print(json.dumps({**about, "created": key.created, "expires": key.expires, "revoked": key.revoked}))
    return 0


def _revoke(args: argparse.Namespace) -> int:
    if not _existing(args.data).revoke(args.id):
        raise SettingsError(f"id: no key '{args.id}'; see python -m gateway keys list --data {args.data}")
    return 0


def _existing(folder: Path) -> KeyStore:
    if not (folder / "keys.sqlite").is_file():
        raise SettingsError(f"--data {folder}: no keys are there; name the folder that the gateway was started with")
    return KeyStore(folder)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 10**9:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got '{text}'")
    return int(text)


def _moment(text: str) -> datetime:
    """`30d` from now, or a date or time; without a zone in UTC."""
    if days := _DAYS.fullmatch(text):
        return datetime.now(UTC) + timedelta(days=int(days[1]))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected 30d or 2027-01-31, got '{text}'") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment <= datetime.now(UTC):
        raise argparse.ArgumentTypeError(f"expected a time to come, got '{text}'")
    return moment
