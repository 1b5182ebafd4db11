"""What marks a picture bears: credentials and label are read here, the invisible mark by the server, which has its key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .errors import FaceCLIPError, InvalidRequestError, ModelNotFoundError
from .marks.verify import Mark, Report, UnreadablePicture
from .marks.verify import verify as read_marks
from .served import CONTROL_TIMEOUT_S, DEFAULT_MODEL, VERIFY_SUFFIX
from .transport import Transport

VERIFY_TIMEOUT_S = 60.0


def verify_picture(
    picture: bytes | str | Path,
    server: Transport | None = None,
    *,
    model: str | None = None,
    anchors: str = "",
    mark_keys: Sequence[bytes] = (),
) -> Report:
    """Which marks a picture bears, each technique by itself; that none was found means nothing.

    `picture`: a PNG, JPEG or WebP file, or its path. `server`: is asked for the invisible mark, and gets the picture for that; it
    keeps nothing. `model`: a deployment there, where it has several. `anchors`: certificates in PEM, as text, of authorities whose
    signatures count as of a known signer. `mark_keys`: the server's keys, 32 bytes each, with which nobody need be asked.

    Raises `InvalidRequestError` for what is no such picture. That the server cannot be asked is told in the report.
    """
    try:
        file = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
        report = read_marks(file, anchors, _reader(mark_keys) if mark_keys else None)
    except UnreadablePicture as error:
        raise InvalidRequestError(f"{'picture' if isinstance(picture, bytes) else picture}: {error}") from None
    except ValueError as error:
        raise InvalidRequestError(str(error)) from None
    return report if server is None or mark_keys else _with_server(report, server, model, file)


def _reader(keys: Sequence[bytes]) -> Callable[[Any], Any]:
    from .marks.watermark import Tiles  # here, since whoever has no key needs no OpenCV

    return Tiles(tuple(keys)).read


def _with_server(report: Report, server: Transport, model: str | None, file: bytes) -> Report:
    try:
        told = server.verify(_model_of(server, model), file, VERIFY_TIMEOUT_S)
        mark, theirs = Mark(**told["mark"]), dict(told["credentials"])
    except FaceCLIPError as error:
        return replace(report, mark=Mark("not_read", f"the server could not be asked: {error}"))
    except (KeyError, TypeError, ValueError) as error:
        return replace(report, mark=Mark("not_read", f"the server at {server.address} answered something else ({error!r})"))
    asked = replace(report, mark=mark, credentials=_known(report, theirs, server.address))
    conflict = asked.conflict()
    return replace(asked, warnings=[*asked.warnings, *([conflict] if conflict else [])])


def _known(report: Report, theirs: dict[str, Any], address: str) -> Any:
    """A signer whom nobody here knows may be the server that was asked."""
    ours = report.credentials
    same = ours.state == "valid" and theirs.get("state") == "trusted" and theirs.get("manifest") == ours.manifest
    return (
        replace(ours, state="trusted", why=f"the signature holds, and {address} says that its signer is its own")
        if same
        else ours
    )


def _model_of(server: Transport, model: str | None) -> str:
    if model is not None:
        return model.removesuffix(VERIFY_SUFFIX) + VERIFY_SUFFIX
    names = [state.name for state in server.models(CONTROL_TIMEOUT_S) if state.ready and state.name.endswith(VERIFY_SUFFIX)]
    if not names:
        raise ModelNotFoundError(f"{server.address} has no model that reads marks (such as '{DEFAULT_MODEL}{VERIFY_SUFFIX}')")
    return DEFAULT_MODEL + VERIFY_SUFFIX if DEFAULT_MODEL + VERIFY_SUFFIX in names else names[0]
