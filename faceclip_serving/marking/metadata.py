"""The label in a file's metadata: one XMP packet, with China's `TC260:AIGC` (GB 45438-2025) and the fields of IPTC 2025.1.

Writes a packet and reads one back. What others wrote is only looked for, never trusted: a document type or an entity in it is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape

AIGC_NAMESPACE = "http://www.tc260.org.cn/ns/AIGC/1.0/"
IPTC_NAMESPACE = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's term for what a trained model made."""
EDITED = GENERATED.replace("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia")
"""IPTC's term for a picture that a trained model made a part of."""
AIGC_KEYS = ("Label", "ContentProducer", "ProduceID", "ReservedCode1", "ContentPropagator", "PropagateID", "ReservedCode2")
"""Exactly these, in this order; `Label` "1": generated."""
MAX_PACKET_BYTES = 2**20

_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:TC260="{tc260}" xmlns:Iptc4xmpExt="{iptc}">
<TC260:AIGC>{aigc}</TC260:AIGC>
<Iptc4xmpExt:DigitalSourceType>{source}</Iptc4xmpExt:DigitalSourceType>
<Iptc4xmpExt:AISystemUsed>{system}</Iptc4xmpExt:AISystemUsed>
<Iptc4xmpExt:AISystemVersionUsed>{version}</Iptc4xmpExt:AISystemVersionUsed>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""


def packet(provider: str, produce_id: str, system: str, version: str, source: str = GENERATED) -> bytes:
    """The XMP packet of a picture that `provider` made by `system`, known by `produce_id`. `source`: `GENERATED` or `EDITED`."""
    aigc = dict(zip(AIGC_KEYS, ("1", provider, produce_id, "", provider, produce_id, ""), strict=True))
    return _PACKET.format(
        tc260=AIGC_NAMESPACE,
        iptc=IPTC_NAMESPACE,
        aigc=escape(json.dumps(aigc, ensure_ascii=False, separators=(",", ":"))),
        source=source,
        system=escape(system),
        version=escape(version),
    ).encode()


@dataclass(frozen=True)
class Label:
    """What a file's XMP says of where it comes from."""

    state: str
    """`found`, `none`, or `unreadable`."""
    why: str
    aigc: dict[str, Any] = field(default_factory=dict)
    """The entries of `TC260:AIGC`, as they are."""
    digital_source_type: str = ""
    ai_system: str = ""
    ai_system_version: str = ""

    @property
    def generated(self) -> bool:
        """Whether it says that the picture was made, or might have been made, by a model."""
        return self.aigc.get("Label") in ("1", "2", "3") or self.digital_source_type in (GENERATED, EDITED)


def read(packet: bytes | None) -> Label:
    """The label in an XMP packet; of whatever others may have put there."""
    if not packet:
        return Label("none", "the file has no XMP metadata")
    if len(packet) > MAX_PACKET_BYTES:
        return Label("unreadable", f"expected at most {MAX_PACKET_BYTES} bytes of XMP, got {len(packet)}")
    try:
        found = _properties(packet)
    except _RefusedError as error:
        return Label("unreadable", str(error))
    except (expat.ExpatError, ValueError, RecursionError) as error:
        return Label("unreadable", f"the file's XMP is no well-formed XML ({error})")
    iptc = {
        name: found.get(f"{IPTC_NAMESPACE} {name}", "") for name in ("DigitalSourceType", "AISystemUsed", "AISystemVersionUsed")
    }
    text = found.get(f"{AIGC_NAMESPACE} AIGC", "")
    aigc, why = _read_aigc(text)
    if not aigc and not why and not any(iptc.values()):
        return Label("none", "the file's XMP has neither TC260:AIGC nor IPTC's fields of generated pictures")
    return Label(
        "unreadable" if why else "found",
        why or "read from the file's XMP; anybody can write or remove it",
        aigc,
        *iptc.values(),
    )


def _read_aigc(text: str) -> tuple[dict[str, Any], str]:
    """The entries, or why there are none though there is a text."""
    if not text:
        return {}, ""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}, f"TC260:AIGC: expected a JSON object, got {text[:80]!r}"
    if not isinstance(document, dict):
        return {}, f"TC260:AIGC: expected a JSON object, got {type(document).__name__}"
    return document, ""


class _RefusedError(ValueError):
    """XML that is not read, whatever it says."""


_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_DESCRIPTION = f"{_RDF} Description"


def _properties(packet: bytes) -> dict[str, str]:
    """`namespace name` -> text, of what stands in an `rdf:Description`, as an element or as an attribute."""
    found: dict[str, list[str]] = {}
    path: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == _DESCRIPTION:
            found.update({name: [value] for name, value in attributes.items()})
        path.append(name)
        if len(path) > 64:
            raise _RefusedError("the file's XMP is nested too deeply to be read")

    def end(_name: str) -> None:
        path.pop()

    def text(data: str) -> None:
        if _DESCRIPTION in path[:-1]:
            name = path[path.index(_DESCRIPTION) + 1]
            found.setdefault(name, []).append(data)

    def refuse(*_: object) -> None:
        raise _RefusedError("the file's XMP has a document type (DTD), which is not read: entities in it could do harm")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.Parse(packet.strip(b"\0 \r\n\t"), True)
    return {name: "".join(parts).strip() for name, parts in found.items()}
