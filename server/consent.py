"""`python -m server consent sign | show | revoke`: records of consent, made by whoever asks people, with the server's own keys.

Reads and writes files; no server need run.
"""

from __future__ import annotations

import argparse
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from faceclip_serving.contract.errors import Refused, UserError
from faceclip_serving.contract.settings import marks_folder

# What needs cryptography or Pillow is imported by the command that needs it.


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's parser."""
    text = "records of the consent of people in photographs"
    actions = commands.add_parser("consent", help=text, description=text).add_subparsers(required=True, metavar="action")
    sign = actions.add_parser(
        "sign",
        help="make and sign a record",
        description="Prints a record of consent, signed by the own key, which is made where it is missing. It names the photographs by"
        " a keyed hash of their pixels: those the person has seen and agreed to, and no others.",
    )
    sign.add_argument("photos", nargs="+", type=Path, metavar="PHOTO", help="what the record covers")
    for option, metavar, what in (
        ("--subject", "PSEUDONYM", "the person, by a name that says nothing to others"),
        ("--expires", "TIME", "until when, e.g. 2027-01-31T12:00:00Z"),
        ("--confirmed-by", "WHO", "who answers for it that the person agreed"),
        ("--confirmed-how", "HOW", "e.g. signed form, video call"),
        ("--text", "VERSION", "of the text that the person agreed to"),
    ):
        sign.add_argument(option, required=True, metavar=metavar, help=what)
    sign.add_argument(
        "--scope",
        required=True,
        action="append",
        metavar="PURPOSE",
        help="what for; may be repeated, see the setting consent_scope",
    )
    sign.add_argument("--adult", action="store_true", help="the person is an adult; without it no server takes the record")
    sign.add_argument("--given", metavar="TIME", help="from when on (default: now)")
    sign.add_argument("--id", metavar="NAME", help="of the record, by which it can be revoked (default: drawn)")
    sign.set_defaults(run=_sign)
    show = actions.add_parser(
        "show",
        help="whether a record would do",
        description="Prints a record, and for each photograph whether it is covered. Exit code 1 where a server with consent=require"
        " and these settings would refuse.",
    )
    show.add_argument("record", type=Path, metavar="RECORD", help="file of a record")
    show.add_argument("--scope", default="", metavar="PURPOSE", help="as the setting consent_scope (default: anything)")
    show.add_argument("photos", nargs="*", type=Path, metavar="PHOTO", help="what is to be made pictures from")
    show.set_defaults(run=_show)
    revoke = actions.add_parser(
        "revoke",
        help="take consent back",
        description="From now on records are refused that have this id, or are of this person. Servers that use the file notice within a"
        " second, and forget all encodings.",
    )
    whose = revoke.add_mutually_exclusive_group(required=True)
    whose.add_argument("--id", metavar="NAME", help="of a record")
    whose.add_argument("--subject", metavar="PSEUDONYM", help="all records of a person")
    revoke.set_defaults(run=_revoke)
    for command in (sign, show):
        command.add_argument("--consent-key", type=Path, metavar="FILE", help=_KEYS[command is show])
        command.add_argument(
            "--reference-key", type=Path, metavar="FILE", help="as the setting reference_key (default: the own one)"
        )
    for command in (show, revoke):
        command.add_argument("--revoked", type=Path, metavar="FILE", help="as the setting revoked (default: the own list)")
    for command in (sign, show, revoke):
        command.add_argument(
            "--folder", type=Path, metavar="FOLDER", help="of own keys (default: where `run` looks, see marks_folder)"
        )


_KEYS = {
    False: "PEM file of the Ed25519 key that signs (default: the own one)",
    True: "PEM file of the public keys that count (default: the own one)",
}


def _sign(args: argparse.Namespace) -> int:
    from faceclip_serving.audit.consent import signed
    from faceclip_serving.audit.keys import CONSENT_KEY, CONSENT_PUBLIC, REFERENCE_KEY, make_pair, make_references, read_private
    from faceclip_serving.contract.consent import ConsentRecord

    folder = _folder(args)
    if args.consent_key is None:
        make_pair(folder, CONSENT_KEY, CONSENT_PUBLIC)
    if args.reference_key is None:
        make_references(folder)
    names = _names(args.photos, args.reference_key or folder / REFERENCE_KEY)
    record = {
        "id": args.id or uuid.uuid4().hex,
        "subject": args.subject,
        "adult": args.adult,
        "scope": args.scope,
        "references": [found[0] for found in names],
        "confirmed_by": args.confirmed_by,
        "confirmed_how": args.confirmed_how,
        "given": args.given or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "expires": args.expires,
        "text": args.text,
    }
    record = ConsentRecord().read("record", json.dumps(record))
    print(json.dumps(signed(record, read_private(args.consent_key or folder / CONSENT_KEY, "consent_key")), ensure_ascii=False))
    return 0


def _show(args: argparse.Namespace) -> int:
    from faceclip_serving.audit.consent import Rule
    from faceclip_serving.audit.keys import CONSENT_PUBLIC, REFERENCE_KEY, REVOKED, References, read_public
    from faceclip_serving.contract.consent import ConsentRecord
    from faceclip_serving.marking.authority import hex_keys

    folder = _folder(args)
    record = ConsentRecord().read("record", _text(args.record))
    settings: dict[str, Any] = {
        "keys": read_public(args.consent_key or folder / CONSENT_PUBLIC, "consent_key"),
        "references": References(hex_keys(args.reference_key or folder / REFERENCE_KEY, "reference_key")),
        "revoked": _revoked(args.revoked or folder / REVOKED),
        "scope": args.scope,
    }
    told: dict[str, Any] = {"record": record, "refused": None, "photos": {}}
    try:
        consent = Rule("require", **settings).of_request(record)
    except Refused as error:
        told["refused"] = str(error)
    else:
        for index, path in enumerate(args.photos):
            try:
                consent.check(f"face_images[{index}]", _pixels(path, index))
                told["photos"][str(path)] = "covered"
            except Refused as error:
                told["photos"][str(path)] = str(error)
    print(json.dumps(told, ensure_ascii=False, indent=1))
    return 1 if told["refused"] or set(told["photos"].values()) - {"covered"} else 0


def _revoke(args: argparse.Namespace) -> int:
    from faceclip_serving.audit.keys import REVOKED
    from faceclip_serving.contract.consent import NAME

    kind, option, name = ("consent", "--id", args.id) if args.id is not None else ("subject", "--subject", args.subject)
    _revoked(args.revoked or _folder(args) / REVOKED).add(kind, NAME.read(option, name))
    print(json.dumps({"revoked": {kind: name}}))
    return 0


def _revoked(path: Path) -> Any:
    from faceclip_serving.audit.revoked import Revoked

    return Revoked(path)


def _names(photos: list[Path], key: Path) -> list[tuple[str, ...]]:
    from faceclip_serving.audit.keys import References
    from faceclip_serving.marking.authority import hex_keys

    references = References(hex_keys(key, "reference_key"))
    return [references.of_photo(_pixels(path, index)) for index, path in enumerate(photos)]


def _pixels(path: Path, index: int) -> Any:
    from faceclip_serving.face.photos import decode_photo

    return decode_photo(path.read_bytes(), index).pixels


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except ValueError as error:
        raise UserError(f"record: expected JSON in UTF-8 in {path} ({error})") from None


def _folder(args: argparse.Namespace) -> Path:
    return args.folder or Path(marks_folder())
