"""Consent: what a record must be, for which photographs it holds, and in which words it is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from faceclip_serving.audit.consent import Rule
from faceclip_serving.audit.keys import References, canonical, make_missing
from faceclip_serving.audit.revoked import Revoked
from faceclip_serving.contract.consent import ConsentRecord
from faceclip_serving.contract.errors import InvalidRequest, Refused
from faceclip_serving.marking.authority import KeysError
from server.__main__ import main

from .conftest import NOW, PHOTO, REFERENCES

ROOT = Path(__file__).resolve().parents[3]
GREY = np.full((64, 64, 3), 128, np.uint8)
OTHER = np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8)


def refusal(call, *arguments):
    with pytest.raises(Refused) as error:
        call(*arguments)
    assert str(error.value).startswith(f"{error.value.code}: ")
    return error.value


def test_a_right_record_covers_its_photographs(rule, record):
    consent = rule().of_request(record(), NOW)
    assert consent.check("face_images[0]", PHOTO) == REFERENCES.of_photo(PHOTO)[0]
    assert consent.told() == {"mode": "require", "id": "c-1", "expires": "2027-11-01T00:00:00+01:00", "signed": True}
    assert "S-1042" not in json.dumps(consent.told())


def test_a_photograph_that_is_not_covered_is_named(rule, record):
    consent = rule().of_request(record(), NOW)
    found = refusal(consent.check, "face_images[1]", OTHER)
    assert found.code == "consent.not_covered" and "face_images[1]: the consent 'c-1' is for 1 other photograph;" in str(found)
    assert refusal(consent.check, "face_images[0]", PHOTO[:, ::-1]).code == "consent.not_covered"


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"adult": False}, "consent.not_adult", "does not say that the person is an adult"),
        ({"given": "2026-12-01T00:00:00Z"}, "consent.not_yet", "from 2026-12-01T00:00:00Z on, now it is 2026-11-26T12:00:00Z"),
        (
            {"expires": "2026-11-26T12:00:00Z"},
            "consent.expired",
            "expired at 2026-11-26T12:00:00Z, now it is 2026-11-26T12:00:00Z",
        ),
        ({"scope": ["training"]}, "consent.scope", "is for training, this server makes 'portrait'"),
    ],
)
def test_a_record_that_does_not_do_is_refused_in_words(rule, record, changes, code, words):
    for mode in ("record", "require"):
        found = refusal(rule(mode, scope="portrait").of_request, record(**changes), NOW)
        assert found.code == code and words in str(found)
    assert rule("off").of_request(record(**changes), NOW).record is None


def test_clocks_may_differ_a_little(rule, record):
    assert rule().of_request(record(given="2026-11-26T12:04:00Z"), NOW).record
    for zone in ("Z", "+23:59", "-23:59"):
        assert rule().of_request(record(given=f"0001-01-01T00:00:00{zone}", expires=f"9999-12-31T23:59:59{zone}"), NOW).record


@pytest.mark.parametrize("field", ["id", "subject", "scope", "references", "expires", "text"])
def test_any_change_breaks_the_signature(rule, record, field):
    changed = {**record(), field: ["a" * 64] if field in ("scope", "references") else "2028-01-01T00:00:00Z"}
    assert refusal(rule().of_request, changed, NOW).code == "consent.signature"


def test_strangers_signatures_and_none_at_all_do_not_count(rule, record):
    for key in (Ed25519PrivateKey.generate(), None):
        assert refusal(rule().of_request, record(key), NOW).code == "consent.signature"
    assert refusal(rule().of_request, {**record(), "signature": "no base64"}, NOW).code == "consent.signature"
    assert not rule(keys=()).of_request(record(None), NOW).told()["signed"], "no key is configured: it is taken, and said so"


def test_the_signature_holds_however_the_record_is_written(rule, record):
    again = dict(reversed(json.loads(json.dumps(record(), indent=2)).items()))
    assert rule().of_request(again, NOW).record


def test_without_a_record_only_require_refuses_and_only_where_somebody_may_be_shown(rule):
    found = refusal(rule().of_request(None).check, "face_images[0]", PHOTO)
    assert found.code == "consent.missing" and "face_images[0]: " in str(found)
    for flat in (GREY, GREY * np.array([1, 0, 1], np.uint8)):
        assert rule().of_request(None).check("face_images[0]", flat), "a picture of one colour shows nobody"
    assert (
        refusal(rule().of_request(None).check, "face_images[0]", GREY ^ np.eye(64, dtype=np.uint8)[..., None]).code
        == "consent.missing"
    )
    for mode in ("off", "record"):
        assert rule(mode).of_request(None).check("face_images[0]", PHOTO)


def test_revoked_is_noticed_at_once_by_id_and_by_person(rule, record, tmp_path):
    asked, revoked = rule(), Revoked(tmp_path / "revoked")
    assert asked.of_request(record(), NOW).record
    revoked.add("consent", "c-1")
    assert refusal(asked.of_request, record(), NOW).code == "consent.revoked"
    assert asked.of_request(record(id="c-2"), NOW).record
    revoked.add("subject", "S-1042")
    assert refusal(asked.of_request, record(id="c-2"), NOW).code == "consent.revoked"
    assert asked.of_request(record(id="c-2", subject="S-7"), NOW).record


@pytest.mark.parametrize(
    "line", ["nonsense", "[]", '{"person": "S"}', '{"consent": "a", "subject": "b"}', '{"subject": ""}', '{"subject": null}']
)
def test_a_list_of_revocations_that_cannot_be_read_lets_nothing_through(rule, record, tmp_path, line, caplog):
    asked = rule()
    (tmp_path / "revoked").write_text(f'{{"consent": "x"}}\n{line}\n')
    found = refusal(asked.of_request, record(), NOW)
    assert found.code == "consent.unchecked" and str(tmp_path) not in str(found)
    assert "revoked, line 2: expected a JSON object with one of consent, subject" in caplog.text


def test_a_list_of_revocations_that_is_gone_lets_nothing_through_and_counts_when_it_is_back(rule, record, tmp_path, caplog):
    asked, path = rule(), tmp_path / "revoked"
    assert asked.of_request(record(), NOW).record
    Revoked(path).add("subject", "S-1042")
    path.rename(tmp_path / "away")
    found = refusal(asked.of_request, record(id="c-2"), NOW)
    assert found.code == "consent.unchecked" and str(tmp_path) not in str(found) and f"{path} is missing" in caplog.text
    with pytest.raises(KeysError, match=r"is missing, so nothing was revoked"):
        Revoked(path).add("subject", "S-7")
    assert not path.exists(), "one who is revoked now does not take the place of all who were before"
    (tmp_path / "away").rename(path)
    assert refusal(asked.of_request, record(id="c-2"), NOW).code == "consent.revoked"


def test_the_own_list_is_made_with_the_first_keys_alone_and_a_named_one_must_be_there(tmp_path):
    settings = {
        "consent": "record", "consent_key": "", "consent_scope": "", "revoked": "", "reference_key": "", "audit_folder": "",
        "identities": "off", "marks_folder": str(tmp_path / "keys"),
    }  # fmt: skip
    make_missing(settings)
    own = tmp_path / "keys" / "revoked.jsonl"
    assert own.read_bytes() == b"" and own.stat().st_mode & 0o077 == 0
    assert Rule.from_settings(settings).mode == "record"
    own.unlink()
    make_missing(settings)
    for lost in (settings, {**settings, "revoked": str(tmp_path / "named")}):
        with pytest.raises(KeysError, match=r"revoked: .* is missing; without it .* make an empty file there"):
            Rule.from_settings(lost)


# ----------------------------------------------------------------------------------------------------------------- the command
@pytest.fixture
def asked(capsys):
    def ask(*arguments):
        code = main(["consent", *map(str, arguments)])
        told = capsys.readouterr()
        return code, told.out, told.err

    return ask


def test_the_command_makes_shows_and_takes_back_a_record(asked, tmp_path):
    photo, keys = ROOT / "examples" / "astronaut.jpg", ("--folder", tmp_path)
    code, told, _ = asked(
        "sign", photo, *keys, "--subject", "S-1", "--adult", "--scope", "portrait", "--expires", "2099-01-01T00:00:00Z",
        "--confirmed-by", "X", "--confirmed-how", "form", "--text", "1",
    )  # fmt: skip
    assert code == 0
    (tmp_path / "c.json").write_text(told)
    show = ("show", tmp_path / "c.json", photo, *keys)
    assert asked(*show)[0] == asked(*show, "--scope", "portrait")[0] == 0
    code, told, _ = asked(*show, "--scope", "training")
    assert code == 1 and json.loads(told)["refused"].startswith("consent.scope: ")
    for option in ("--id", "--subject"):
        code, _, told = asked("revoke", option, "", *keys)
        assert code == 1 and f"{option}: expected 1 to 128 characters, got ''" in told
    assert (tmp_path / "revoked.jsonl").read_text() == ""
    assert asked("revoke", "--subject", "S-1", *keys)[0] == 0
    code, told, _ = asked(*show)
    assert code == 1 and json.loads(told)["refused"].startswith("consent.revoked: ")


# ------------------------------------------------------------------------------------------------------------------ the record
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": ""}, "consent: id: expected 1 to 128 characters, got ''"),
        ({"id": "\ud800"}, "consent: id: expected 1 to 128 characters"),
        ({"subject": 7}, "consent: subject: expected 1 to 128 characters, got '7'"),
        ({"adult": "yes"}, "consent: adult: expected true or false"),
        ({"scope": []}, "consent: scope: expected a list of 1 to 16, got 0 of them"),
        ({"scope": "portrait"}, "consent: scope: expected a list of 1 to 16, got 'portrait'"),
        ({"references": ["abc"]}, "consent: references[0]: expected 64 hexadecimal digits"),
        ({"references": ["a" * 64] * 257}, "consent: references: expected a list of 1 to 256, got 257"),
        ({"given": "yesterday"}, "consent: given: expected a time such as"),
        ({"expires": "2027-01-01T00:00:00"}, "consent: expires: expected a time such as"),
        ({"expires": None}, "consent: expires: expected a time such as"),
        ({"signature": 1}, "consent: signature: expected a text, got 1"),
        ({"colour": "red"}, "got 'colour'"),
        ({"subjects": "red"}, "did you mean 'subject'?"),
    ],
)
def test_a_record_of_another_form_is_refused_by_the_entry(record, change, words):
    with pytest.raises(InvalidRequest, match=re.escape(words)):
        ConsentRecord().read("consent", json.dumps({**record(), **change}))


@pytest.mark.parametrize("entry", ["id", "adult", "references", "expires"])
def test_nothing_but_the_signature_may_be_missing(record, entry):
    found = record()
    found.pop("signature")
    assert ConsentRecord().read("consent", json.dumps(found)) == found
    found.pop(entry)
    with pytest.raises(InvalidRequest, match=f"got no {entry}; write e.g. what `python -m server consent sign` prints"):
        ConsentRecord().read("consent", json.dumps(found))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"c-1"', "[" * 50_000])
def test_what_is_no_object_is_refused(text):
    with pytest.raises(InvalidRequest, match=r"^consent: expected"):
        ConsentRecord().read("consent", text)


# ------------------------------------------------------------------------------------------------------------- names and forms
def test_photographs_are_named_by_their_pixels_and_the_key():
    (name,) = REFERENCES.of_photo(PHOTO)
    assert (name,) == REFERENCES.of_photo(np.asfortranarray(PHOTO.copy()))
    others = [PHOTO.reshape(30, 40, 3), np.where(PHOTO[0, 0, 0] == PHOTO, PHOTO ^ 1, PHOTO)]
    found = {name, *(REFERENCES.of_photo(each)[0] for each in others), References((bytes(32),)).of_photo(PHOTO)[0]}
    assert len(found) == 4
    assert REFERENCES.of_text("a") != REFERENCES.of_text("b")


def test_an_old_key_still_knows_its_photographs(rule, record):
    rotated = rule(references=References((bytes(32), *REFERENCES.keys)))
    assert rotated.of_request(record(), NOW).check("face_images[0]", PHOTO) == References((bytes(32),)).of_photo(PHOTO)[0]


def test_json_is_canonical():
    assert canonical({"b": 1.0, "a": ["ü", True, None]}) == '{"a":["ü",true,null],"b":1}'.encode()
    with pytest.raises(ValueError):
        canonical({"a": float("nan")})


def test_off_needs_no_keys(tmp_path):
    settings = {"consent": "off", "audit_folder": "", "marks_folder": str(tmp_path)}
    assert Rule.from_settings(settings).told() == {"mode": "off", "signatures": "not checked", "scope": ""}


# ------------------------------------------------------------------------------------------------------- sealed identities
def test_an_identity_is_covered_by_a_record_that_names_all_its_photographs(rule, record):
    names = [REFERENCES.of_photo(each) for each in (PHOTO, OTHER)]
    both = rule().of_request(record(references=[each[0] for each in names]), NOW)
    both.check_identity(names)
    both.check_identity([("f" * 64, names[0][0])])  # named by an older key too
    one = rule().of_request(record(), NOW)
    one.check_identity(names[:1])
    found = refusal(one.check_identity, names)
    assert found.code == "consent.not_covered" and found.audit["references"] == [each[0] for each in names]
    nameless = refusal(one.check_identity, [])
    assert nameless.code == "consent.not_covered" and "had no names here" in str(nameless)


def test_an_identity_without_a_record_is_refused_where_one_is_required_alone(rule):
    names = [REFERENCES.of_photo(PHOTO)]
    found = refusal(rule().of_request(None).check_identity, names)
    assert found.code == "consent.missing" and str(found).startswith("consent.missing: identity: ")
    for mode in ("off", "record"):
        rule(mode).of_request(None).check_identity(names)
