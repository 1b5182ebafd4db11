"""The label in XMP: exactly what the standard asks, and whatever others have written."""

import json

import pytest

from faceclip_serving.marking.metadata import AIGC_KEYS, GENERATED, MAX_PACKET_BYTES, packet, read

NASTY = 'Bild & <Werk> "GmbH" 公司'


def test_the_aigc_entry_has_the_seven_keys_in_their_order():
    label = read(packet(NASTY, "abc123", "faceclip-triton sdxl", "1.2.3"))
    assert label.state == "found" and label.generated
    assert list(label.aigc) == list(AIGC_KEYS) and all(isinstance(value, str) for value in label.aigc.values())
    assert label.aigc == {
        "Label": "1", "ContentProducer": NASTY, "ProduceID": "abc123", "ReservedCode1": "",
        "ContentPropagator": NASTY, "PropagateID": "abc123", "ReservedCode2": "",
    }  # fmt: skip
    assert (label.digital_source_type, label.ai_system, label.ai_system_version) == (GENERATED, "faceclip-triton sdxl", "1.2.3")


AIGC = 'xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/"'


def described(inside="", attributes=""):
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {AIGC} {attributes}>{inside}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


def test_what_others_write_as_an_attribute_is_read():
    text = json.dumps({"Label": "2", "ContentProducer": "x"}).replace('"', "&quot;")
    label = read(described(attributes=f'TC260:AIGC="{text}"'))
    assert label.state == "found" and label.generated and label.aigc == {"Label": "2", "ContentProducer": "x"}


@pytest.mark.parametrize("content", [None, b"", described(), described('<dc:t xmlns:dc="urn:dc">x</dc:t>')])
def test_nothing_is_found_where_nothing_is(content):
    assert read(content).state == "none"


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>' + described("&b;")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (BOMB, "document type"),
        (b'<!DOCTYPE x SYSTEM "http://example.org/x.dtd">' + described(), "document type"),
        (described("<TC260:AIGC>{not json</TC260:AIGC>"), "expected a JSON object"),
        (described("<TC260:AIGC>[1]</TC260:AIGC>"), "expected a JSON object, got list"),
        (described(f"<TC260:AIGC>{'[' * 100_000}</TC260:AIGC>"), "expected a JSON object"),
        (b"<open>", "no well-formed XML"),
        (b"\xff\xfe\x00junk", "no well-formed XML"),
        (described("<a>" * 100 + "</a>" * 100), "nested too deeply"),
        (b" " * (MAX_PACKET_BYTES + 1), "at most"),
        (described("&undefined;"), "no well-formed XML"),
    ],
    ids=range(10),
)
def test_hostile_metadata_is_told_not_raised(content, why):
    label = read(content)
    assert label.state == "unreadable" and why in label.why and not label.generated
