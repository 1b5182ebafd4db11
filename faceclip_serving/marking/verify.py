"""What marks a picture bears: its credentials (C2PA), the label in its metadata, and the invisible mark, each told by itself.

Reads one file in memory. Fetches nothing, keeps nothing. Says what was found and what that is worth; that nothing was found means
nothing, since all but the invisible mark is lost when a picture is saved again, and that one can be destroyed.
"""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from . import metadata
from .metadata import EDITED, GENERATED, Label

if TYPE_CHECKING:
    from .watermark import Found, Pixels  # whoever has no key needs no OpenCV

MAX_BYTES = 32 * 2**20
MAX_MEGAPIXELS = 64
MIME_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
"""Formats that are read."""
MAX_BLOCKS = 10_000
"""Chunks of a PNG or WebP, segments of a JPEG. Real files have some hundreds; readers spend seconds on a million."""
NOTHING = "that nothing was found does not mean that the picture is no generated one"


class UnreadablePicture(ValueError):
    """Bytes that are no picture which is read here; the message says what came."""


@dataclass(frozen=True)
class Credentials:
    """What a file's C2PA manifest says, and what that is worth."""

    state: str
    """`trusted`: whole, by a signer who is known. `valid`: whole, by an unknown signer. `invalid`: changed, expired or broken.
    `none`: there is no manifest. `not_read`: nothing here reads it."""
    why: str
    signer: str = ""
    generated: bool = False
    """Whether it says that a model made the picture."""
    actions: list[str] = field(default_factory=list)
    system: str = ""
    when: str = ""
    mark_id: str = ""
    """The invisible mark that it names."""
    manifest: str = ""
    """Its name."""
    captured: bool = False
    """Whether it says that a camera took the picture, or a scanner."""


@dataclass(frozen=True)
class Mark:
    """The invisible mark."""

    state: str
    """`found`, `none`, or `not_read`."""
    why: str
    mark_id: str = ""
    confidence: float = 0.0
    """Standard deviations over chance."""
    mirrored: bool = False


@dataclass(frozen=True)
class Report:
    """Of one picture."""

    format: str
    width: int
    height: int
    credentials: Credentials
    label: Label
    mark: Mark
    warnings: list[str]
    """What else is worth knowing of the file."""

    @property
    def found(self) -> bool:
        """Whether anything says that the picture is generated, and nothing speaks against that."""
        credentials = self.credentials.generated and self.credentials.state in ("trusted", "valid")
        return credentials or self.mark.state == "found" or (self.label.state == "found" and self.label.generated)

    @property
    def doubtful(self) -> bool:
        """Whether a technique was found that is broken, or two that disagree."""
        return self.credentials.state == "invalid" or self.label.state == "unreadable" or bool(self.conflict())

    def conflict(self) -> str:
        """In which way two techniques disagree; empty if they do not."""
        holds = self.credentials.state in ("trusted", "valid")
        named, found = self.credentials.mark_id if holds else "", self.mark.mark_id
        labelled = str(self.label.aigc.get("ProduceID", "")) if self.label.state == "found" else ""
        copied = "one of the two was copied from another picture"
        if named and found and named != found:
            return f"the credentials name the mark {named}, the picture bears {found}: {copied}"
        if labelled and found and not labelled.startswith(found):
            return f"the label names the picture {labelled[:80]!r}, the picture bears the mark {found}: {copied}"
        if labelled and named and not labelled.startswith(named):
            return f"the label names the picture {labelled[:80]!r}, the credentials name the mark {named}: {copied}"
        if holds and self.credentials.captured and (found or self.label.generated):
            what = "mark" if found else "label"
            return f"the credentials say that a camera took the picture, its {what} says that it is generated"
        return ""

    @property
    def conclusion(self) -> str:
        """In one sentence."""
        if self.doubtful:
            return "something was found that is broken or does not fit: see what each technique says"
        return "the picture says that it is generated" if self.found else f"nothing in it says that it is generated; {NOTHING}"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "found": self.found, "doubtful": self.doubtful, "conclusion": self.conclusion}


def verify(file: bytes, anchors: str = "", read_mark: Callable[[Pixels], Found | None] | None = None) -> Report:
    """What a picture's file bears. Raises `UnreadablePicture`.

    `anchors`: certificates in PEM whose signatures count as of a known signer. `read_mark`: finds the invisible mark; None: it is not
    read.
    """
    image, problem = _opened(file)
    label = metadata.read(_packet(image))
    image_format = (
        "JPEG" if image.format == "MPO" else str(image.format)
    )  # several JPEGs one after the other, as phones write them
    credentials = read_credentials(file, image_format, anchors)
    report = Report(
        image_format, *image.size, credentials, label, _mark(image, problem, read_mark), [problem] if problem else []
    )
    behind = _bytes_behind(file, image_format)
    if behind:
        report.warnings.append(f"{behind} bytes follow the end of the picture: the file may be another kind of file as well")
    if conflict := report.conflict():
        report.warnings.append(conflict)
    return report


def _opened(file: bytes) -> tuple[Image.Image, str]:
    """The picture, decoded as far as that goes, and what is wrong with it."""
    if len(file) > MAX_BYTES:
        raise UnreadablePicture(f"expected a picture of at most {MAX_BYTES >> 20} MiB, got {len(file) / 2**20:.1f} MiB")
    if has_many_blocks(file):
        raise UnreadablePicture(f"expected a picture whose file has at most {MAX_BLOCKS} chunks or segments, got more")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(file), formats=tuple(MIME_TYPES))
        except Exception:  # noqa: BLE001 - decoders of hostile files raise almost any class
            raise UnreadablePicture(
                f"expected a PNG, JPEG or WebP file, got {len(file)} bytes that do not begin as one"
            ) from None
        if image.width * image.height > MAX_MEGAPIXELS * 10**6:
            raise UnreadablePicture(f"expected at most {MAX_MEGAPIXELS} megapixels, got {image.width} x {image.height}")
        try:
            image.load()
        except Exception as error:  # noqa: BLE001
            return image, f"the picture is damaged or cut off ({error or type(error).__name__})"
    return image, ""


def _packet(image: Image.Image) -> bytes | None:
    found = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    return found.encode() if isinstance(found, str) else found


# ----------------------------------------------------------------------------------------------------------------------- C2PA
_STATES = {"Trusted": "trusted", "Valid": "valid"}
_SETTINGS = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
"""Nothing is fetched: a picture must not make its reader call somebody."""


def read_credentials(file: bytes, image_format: str, anchors: str = "") -> Credentials:
    """The C2PA manifest of a file; whatever is wrong with it is told, not raised. `anchors`: see `verify`."""
    try:
        import c2pa
    except ImportError:
        return Credentials("not_read", "c2pa-python is not installed here: pip install 'faceclip-client[verify]'")
    settings = {**_SETTINGS, **({"trust": {"user_anchors": anchors}} if anchors else {})}
    try:
        with (
            c2pa.Context.from_dict(settings) as context,
            c2pa.Reader(MIME_TYPES[image_format], io.BytesIO(file), context=context) as reader,
        ):
            store = json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return Credentials("none", "the file has no C2PA manifest")
    except Exception as error:  # noqa: BLE001 - whatever a hostile manifest brings about
        return Credentials("invalid", f"the file's C2PA manifest cannot be read ({error})")
    return _told(store)


_BEGIN = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"RIFF": "WEBP"}


def input_credentials(file: bytes) -> Credentials | None:
    """The C2PA manifest of a photograph that came in, by name; None where it has none that can be named."""
    image_format = next((name for begin, name in _BEGIN.items() if file.startswith(begin)), None)
    if image_format is None or b"jumb" not in file:  # the box that holds manifests: most photographs need no reader
        return None
    if has_many_blocks(file):
        return None
    found = read_credentials(file, image_format)
    return found if found.manifest else None


def _told(store: dict[str, Any]) -> Credentials:
    name = store.get("active_manifest", "")
    manifest = store.get("manifests", {}).get(name, {})
    results = store.get("validation_results", {}).get("activeManifest", {})
    failures = [f"{each.get('code')}: {each.get('explanation', '')}".rstrip(": ") for each in results.get("failure", [])]
    state = _STATES.get(store.get("validation_state", ""), "invalid")
    signature = manifest.get("signature_info", {})
    actions = _actions(manifest)
    sources = [str(action.get("digitalSourceType", "")) for each in _with_parents(store, name) for action in _actions(each)]
    agents = [action.get("softwareAgent") for action in actions if action.get("softwareAgent")]
    agent = agents[0] if agents else ""
    why = {
        "trusted": "the signature holds, and its signer is one that is trusted here",
        "valid": "the signature holds, of a signer who is not among those that are trusted here",
        "invalid": "; ".join(failures) or "the signature does not hold",
    }[state]
    return Credentials(
        state,
        why,
        signer=str(signature.get("issuer") or signature.get("common_name") or ""),
        generated=any(source in (GENERATED, EDITED) for source in sources),
        actions=[str(action.get("action", "")) for action in actions],
        system=" ".join(str(agent.get(key, "")) for key in ("name", "version")).strip()
        if isinstance(agent, dict)
        else str(agent),
        when=str(next((action["when"] for action in actions if "when" in action), signature.get("time", ""))),
        mark_id=_named_mark(manifest),
        manifest=name,
        captured=any(source.rpartition("/")[2] in _CAPTURED for source in sources),
    )


_CAPTURED = ("digitalCapture", "computationalCapture", "negativeFilm", "positiveFilm", "print")
"""IPTC's terms for what a camera or a scanner took."""


def _actions(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        action
        for each in manifest.get("assertions", [])
        if str(each.get("label", "")).startswith("c2pa.actions")
        for action in each.get("data", {}).get("actions", [])
    ]


def _with_parents(store: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A manifest, and those of the pictures that it was edited from: what they were made by, it was, too."""
    manifests, found, waiting = store.get("manifests", {}), dict[str, dict[str, Any]](), [name]
    while waiting:
        name = waiting.pop()
        if name in manifests and name not in found:
            found[name] = manifests[name]
            ingredients = manifests[name].get("ingredients", [])
            waiting += [each.get("active_manifest", "") for each in ingredients if each.get("relationship") == "parentOf"]
    return list(found.values())


def _named_mark(manifest: dict[str, Any]) -> str:
    for each in manifest.get("assertions", []):
        if str(each.get("label", "")).startswith("c2pa.soft-binding"):
            for block in each.get("data", {}).get("blocks", []):
                return _mark_id(str(block.get("value", "")))
    return ""


def _mark_id(value: str) -> str:
    """The id in the value of a soft binding. TrustMark's is the number of its schema, a star, and bits."""
    schema, star, bits = value.partition("*")
    if not (star and schema.isdecimal() and bits and set(bits) <= {"0", "1"}):
        return value
    digits = len(bits) // 4
    return f"{int(bits[: 4 * digits] or '0', 2):0{digits}x}"


# ------------------------------------------------------------------------------------------------------------------- the mark
def _mark(image: Image.Image, problem: str, read_mark: Callable[[Pixels], Found | None] | None) -> Mark:
    if read_mark is None:
        return Mark("not_read", "the key of the mark is not known here; the server that made the picture has it")
    if problem:
        return Mark("not_read", problem)
    found = read_mark(np.asarray(image.convert("RGB"), np.uint8))
    if found is None:
        return Mark("none", f"no mark was found that can be read here; {NOTHING}")
    return Mark("found", "read from the picture itself", found.mark_id, found.confidence, found.mirrored)


# ------------------------------------------------------------------------------------------------------------ parts of the file
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
"""Not those within coded data."""
_ENDS = (b"IEND", b"\xd9")


def has_many_blocks(file: bytes) -> bool:
    """Whether a PNG, JPEG or WebP file is made of more than `MAX_BLOCKS`, counted by their lengths alone."""
    return any(before >= MAX_BLOCKS for before, _ in enumerate(_blocks(file)))


def _bytes_behind(file: bytes, image_format: str) -> int:
    """How many bytes follow the picture's end; 0 where the end is not found."""
    if image_format == "WEBP":
        size = 8 + int.from_bytes(file[4:8], "little")
        return max(0, len(file) - size - size % 2)
    return max(0, len(file) - next((end for kind, end in _blocks(file) if kind in _ENDS), len(file)))


def _blocks(file: bytes) -> Iterator[tuple[bytes, int]]:
    """Kind and end of each chunk of a PNG or WebP, or segment of a JPEG. Pictures within a segment are passed over."""
    if file.startswith(b"\x89PNG"):
        position = 8
        while position + 12 <= len(file):
            size, kind = int.from_bytes(file[position : position + 4], "big"), file[position + 4 : position + 8]
            position += 12 + size
            yield kind, position
    elif file.startswith(b"RIFF"):
        position = 12
        while position + 8 <= len(file):
            kind, size = file[position : position + 4], int.from_bytes(file[position + 4 : position + 8], "little")
            position += 8 + size + size % 2
            yield kind, position
    elif file.startswith(b"\xff\xd8"):
        position = 2
        while (marker := _JPEG_MARKER.search(file, position)) is not None:
            position = marker.end()
            if marker[1] not in _ENDS:
                position += max(int.from_bytes(file[position : position + 2], "big"), 2)
            yield marker[1], position
