"""Sealed identities: what comes back is what went in, nothing is seen from outside, and each wrong one is refused with its reason."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceclip_serving.audit.identities import MAGIC, Identities, Identity
from faceclip_serving.audit.keys import make_missing
from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.settings import resolve
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.marking.authority import KeysError

from .conftest import NOW

KEYS = bytes(range(32)), bytes(range(1, 33))
NANO = VARIANTS["nano"]
HEAD = 21
"""Bytes in front of what is sealed."""


def sealer(variant=NANO, keys=KEYS[:1], weights="w"):
    return Identities(keys, variant.name, weights, variant.face_features)


def identity(variant=NANO, **changes):
    rng = np.random.default_rng(5)
    features = {t.name: rng.standard_normal(t.shape({"faces": 1})).astype(np.float32) for t in variant.face_features}
    return Identity(variant.name, "w", features, "2026-11-26T11:00:00+00:00", 2, **changes)


SEALED = sealer().seal(identity())


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_what_was_sealed_comes_back_to_the_bit_for_every_variant(variant, record):
    told = identity(
        variant, expires="2027-01-01T00:00:00Z", consent=record(), references=[["a" * 64], ["b" * 64, "c" * 64]],
        descriptors=[[0.1] * 128], recogniser="r",
    )  # fmt: skip
    found = sealer(variant).open("identity", sealer(variant).seal(told), NOW)
    for name, array in told.features.items():
        assert found.features[name].dtype == np.float32
        np.testing.assert_array_equal(found.features[name], array)
    assert replace(found, features={}) == replace(told, features={})
    assert found.told() == {"id": told.id, "photographs": 2, "made": told.made, "expires": told.expires}


def test_nothing_is_seen_from_outside_and_no_two_files_are_alike(record):
    told = identity(consent=record(), references=[["a" * 64]])
    files = [sealer().seal(told) for _ in range(2)]
    assert files[0][HEAD:] != files[1][HEAD:] and files[0][:HEAD] == files[1][:HEAD]
    features = told.features["class_token"].tobytes()
    for file in files:
        for secret in (features[:8], b"S-1042", b"a" * 16, told.id.encode(), b"nano"):
            assert secret not in file
    assert len(SEALED) < 60_000 and len(sealer(VARIANTS["sdxl"]).seal(identity(VARIANTS["sdxl"]))) < 2**20


@given(place=st.integers(0, len(SEALED) - 1), bit=st.integers(0, 7))
def test_whatever_bit_is_changed_it_is_refused(place, bit):
    file = bytearray(SEALED)
    file[place] ^= 1 << bit
    with pytest.raises(InvalidRequest, match=r"^identity: "):
        sealer().open("identity", bytes(file), NOW)


@given(st.integers(0, len(SEALED) - 1))
def test_wherever_it_ends_too_early_it_is_refused(length):
    with pytest.raises(InvalidRequest, match=r"^identity: (the identity is cut off|expected a sealed identity)"):
        sealer().open("identity", SEALED[:length], NOW)


def altered(place):
    file = bytearray(SEALED)
    file[place] ^= 1
    return bytes(file)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (b"", "expected a sealed identity, .*got 0 bytes that do not begin as one; photographs belong in face_images"),
        (b"\xff\xd8\xff\xe0" + bytes(99), "got 103 bytes that do not begin as one"),
        (SEALED[:1000], rf"is cut off: expected {len(SEALED)} bytes, got 1000; send the whole file"),
        (SEALED + b"\n", rf"goes on behind its end: expected {len(SEALED)} bytes, got {len(SEALED) + 1}"),
        (altered(len(MAGIC)), "expected an identity of version 1, got one of version 0; make it again"),
        (altered(len(MAGIC) + 1), "sealed by another server, or by a key that this one has no more; make it again"),
        (altered(HEAD), "was altered or damaged"),
        (altered(HEAD + 500), "was altered or damaged"),
        (altered(len(SEALED) - 1), "was altered or damaged"),
        (sealer(keys=KEYS[1:]).seal(identity()), "sealed by another server"),
        (
            sealer(VARIANTS["tiny-flux"]).seal(identity(VARIANTS["tiny-flux"])),
            "one of 'tiny-flux', this server draws by 'nano'",
        ),
        (sealer().seal(replace(identity(), weights="v")), "made by other weights of 'nano'"),
        (
            sealer().seal(identity(expires="2026-11-26T13:00:00+01:00")),
            r"expired at 2026-11-26T13:00:00\+01:00, now it is 2026-11-26T12:00:00Z; make it again",
        ),
    ],
)
def test_each_wrong_one_is_refused_with_its_own_reason(file, words):
    with pytest.raises(InvalidRequest, match=f"^identity: .*{words}"):
        sealer().open("identity", file, NOW)


def test_it_lasts_until_its_end():
    file = sealer().seal(identity(expires=(NOW + timedelta(seconds=1)).isoformat()))
    assert sealer().open("identity", file, NOW).photographs == 2
    with pytest.raises(InvalidRequest, match="expired"):
        sealer().open("identity", file, NOW + timedelta(seconds=1))
    assert sealer().open("identity", SEALED, datetime(2999, 1, 1, tzinfo=UTC)).expires is None


def test_the_first_key_seals_and_all_open():
    old, new = sealer(keys=KEYS[:1]), sealer(keys=KEYS[::-1])
    assert new.open("identity", SEALED, NOW).weights == "w"
    with pytest.raises(InvalidRequest, match="a key that this one has no more"):
        old.open("identity", new.seal(identity()), NOW)


def test_keys_are_made_with_the_others_and_an_operator_may_have_none(tmp_path):
    told = {**resolve(CPU, "faceclip", environment={}), "marks_folder": str(tmp_path / "keys")}
    make_missing(told)
    key = tmp_path / "keys" / "identity.key"
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_text()
    make_missing(told)
    assert key.read_text() == before
    made = Identities.from_settings(told, "nano", "w", NANO.face_features)
    assert made.open("identity", made.seal(identity()), NOW).variant == "nano"
    key.chmod(0o644)
    with pytest.raises(KeysError, match=r"identity_key: .* `chmod 600"):
        Identities.from_settings(told, "nano", "w", NANO.face_features)
    off = {**told, "identities": "off", "marks_folder": str(tmp_path / "none")}
    make_missing(off)
    assert Identities.from_settings(off, "nano", "w", NANO.face_features) is None and not (tmp_path / "none").exists()


def test_a_secret_never_shows_in_what_is_printed(record):
    assert KEYS[0].hex()[:16] not in repr(sealer()) and "\\x01\\x02\\x03" not in repr(sealer())
    assert "array" not in repr(identity()) and json.dumps(identity().told())
