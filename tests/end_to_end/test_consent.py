"""A real server that requires consent and keeps an audit log: right records are answered with a receipt, others refused in words."""

import json
import threading
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from faceclip import FaceCLIPPipeline, InvalidRequestError, Person, RefusedError
from faceclip.status import server_status
from faceclip_serving.audit.consent import signed
from faceclip_serving.audit.keys import AUDIT_PUBLIC, CONSENT_KEY, read_private, read_public
from faceclip_serving.audit.verify import records, verify
from server.control import told_by
from server.process import Ports, TritonServer

from .callers import until
from .running import command

PHOTO = Path(__file__).resolve().parents[2] / "examples" / "astronaut.jpg"
OTHER = PHOTO.with_name("portrait.png")
QUICK = {"num_inference_steps": 1, "height": 192, "width": 128, "guidance_scale": 1.0, "output_type": "bytes"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def requiring(repository, keys, audit, tmp_path_factory):
    """It is up, so the probe, whose grey square shows nobody, needed no consent."""
    log = tmp_path_factory.mktemp("requiring") / "log"
    settings = [f"marks_folder={keys}", "consent=require", "consent_scope=portrait", f"audit_folder={audit}"]
    with TritonServer(repository, Ports.free(), log=log, settings=settings) as server:
        server.wait_ready()
        yield server
        server.stop(0)


@pytest.fixture(scope="module")
def pipe(requiring):
    with FaceCLIPPipeline.from_pretrained(requiring.url, timeout_s=120) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def record(requiring, keys):
    """Changes -> a record for PHOTO, as the command signs it, and changed and signed again."""
    done = command(
        "consent", "sign", str(PHOTO), "--folder", str(keys), "--subject", "S-1042", "--adult", "--scope", "portrait",
        "--expires", "2099-01-01T00:00:00Z", "--confirmed-by", "Studio Nord", "--confirmed-how", "signed form", "--text", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made, key = json.loads(done.stdout), read_private(keys / CONSENT_KEY, "key")
    return lambda key=key, **changes: signed({**made, **changes}, key) if changes or key else made


def recorded(audit):
    return list(records(audit))


@pytest.mark.proof
def test_the_right_record_is_answered_with_a_receipt(pipe, record, keys, audit):
    for call in (pipe, lambda *args, **more: list(pipe.stream(*args, **more))[-1]):
        made = call("a secret lighthouse", face_image=PHOTO, consent=record(), request_id="right", **QUICK)
        assert made.receipt.keys() == {"seq", "head", "signature", "key"} and "for_audit" not in made.details
        assert made.details["consent"] == {
            "mode": "require", "id": record()["id"], "expires": "2099-01-01T00:00:00Z", "signed": True,
        }  # fmt: skip
        assert made.details["parameters"]["consent"] == record()["id"]
        told = recorded(audit)[-1]
        assert (
            told["policy"] == made.details["checks"]["policy"] and [each["action"] for each in told["checks"]] == ["allow"] * 3
        )
        assert (told["seq"], told["id"], told["outcome"]) == (made.receipt["seq"], "right", "ok")
        assert told["references"] == record()["references"] and told["consent"]["id"] == record()["id"]
        assert told["outputs"][0]["sha256"] == made.provenance[0].sha256
        marks = made.details["marks"]["pictures"][0]
        assert b"Apache-2.0" in made.files[0], "its credentials say what the weights allow"
        assert (told["outputs"][0]["mark_id"], told["outputs"][0]["manifest"]) == (marks["mark_id"], marks["manifest"])
        report = verify(audit, read_public(keys / AUDIT_PUBLIC, "key"), [made.receipt])
        assert report.whole and report.head
    everything = "".join(path.read_bytes().decode("latin1") for path in audit.glob("*.sqlite*"))
    assert "secret" not in everything and "S-1042" not in everything


@pytest.mark.parametrize(
    ("photo", "changes", "code", "words"),
    [
        (PHOTO, {"key": Ed25519PrivateKey.generate()}, "consent.signature", "not signed by a key that this server knows"),
        (
            PHOTO,
            {"expires": "2026-01-01T00:00:00Z", "given": "2025-01-01T00:00:00Z"},
            "consent.expired",
            "at 2026-01-01T00:00:00Z",
        ),
        (PHOTO, {"given": "2098-01-01T00:00:00Z"}, "consent.not_yet", "from 2098-01-01T00:00:00Z on"),
        (PHOTO, {"adult": False}, "consent.not_adult", "does not say that the person is an adult"),
        (PHOTO, {"scope": ["training"]}, "consent.scope", "is for training, this server makes 'portrait'"),
        (OTHER, {}, "consent.not_covered", "face_images[0]: the consent"),
        (PHOTO, None, "consent.missing", "face_images[0]: this server makes no picture of somebody without their consent"),
    ],
)
def test_what_does_not_do_is_refused_in_words_and_recorded(pipe, record, audit, photo, changes, code, words):
    consent = None if changes is None else record(**changes)
    for call in (pipe, lambda *args, **more: list(pipe.stream(*args, **more))):
        with pytest.raises(RefusedError) as error:
            call("a lighthouse", face_image=photo, consent=consent, request_id=code, **QUICK)
        assert error.value.code == code and words in str(error.value)
        told = recorded(audit)[-1]
        assert (told["id"], told["outcome"], told["code"]) == (code, "refused", code)
    assert told["consent"] == {"mode": "require", "id": None} if changes is None else told["consent"]["id"] == record()["id"]
    assert len(told.get("references", [])) == (code in ("consent.not_covered", "consent.missing"))


def test_a_malformed_record_is_told_what_it_lacks_and_not_recorded(pipe, audit):
    before = len(recorded(audit))
    with pytest.raises(InvalidRequestError, match=r"^consent: expected id, subject, .*, got no subject"):
        pipe("a lighthouse", face_image=PHOTO, consent={"id": "x"}, **QUICK)
    assert len(recorded(audit)) == before


def test_pictures_of_nobody_need_no_consent(pipe):
    assert pipe("a lighthouse", **QUICK).receipt


def test_an_identity_carries_its_consent_and_ends_with_it(pipe, record, keys, audit):
    with pytest.raises(RefusedError, match=r"^consent\.missing: face_images\[0\]"):
        pipe.identity(PHOTO)
    made = pipe.identity(PHOTO, consent=record(id="of-the-identity"))
    told = recorded(audit)[-1]
    assert (told["model"], told["outcome"], told["identity"]) == ("faceclip_faces", "ok", made.id)
    assert told["consent"]["id"] == "of-the-identity" and told["references"] == record()["references"]
    assert made.details["receipt"]["seq"] == told["seq"] and "for_audit" not in made.details
    drawn = pipe("a lighthouse", identity=made, **QUICK)
    assert drawn.details["consent"]["id"] == "of-the-identity"
    told = recorded(audit)[-1]
    assert (told["identities"][0], told["references"]) == (made.id, record()["references"])
    assert len(pipe.faces(PHOTO)) == 1, "to say where a face is pictures nobody"
    assert command("consent", "revoke", "--id", "of-the-identity", "--folder", str(keys)).returncode == 0
    with pytest.raises(RefusedError, match=r"^consent\.revoked"):
        pipe("a lighthouse", identity=made, **QUICK)
    assert pipe("a lighthouse", identity=made, consent=record(), **QUICK).receipt, "another record covers the photograph"


def test_the_server_tells_its_rules(requiring, pipe):
    told = told_by(requiring.connection)
    assert told["consent"] == {"mode": "require", "signatures": "checked", "scope": "portrait"} and told["audit"] == "on"
    assert told["licence"] == {"names": {"weights": "Apache-2.0"}, "commercial": True}
    assert server_status(pipe._transport).rules["faceclip"] == {key: told[key] for key in ("consent", "audit", "licence")}


def test_good_and_bad_requests_at_once_do_not_touch_each_other(pipe, record, keys, audit):
    before, outcomes = len(recorded(audit)), []

    def ask(consent):
        try:
            outcomes.append(pipe("a lighthouse", face_image=PHOTO, consent=consent, **QUICK).receipt["seq"])
        except RefusedError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=ask, args=(record(**({"adult": False} if i % 2 else {})),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("consent.not_adult") == 4 and len({seq for seq in outcomes if isinstance(seq, int)}) == 4
    assert len(recorded(audit)) == before + 8 and verify(audit, read_public(keys / AUDIT_PUBLIC, "key")).whole


def test_the_picture_is_found_again_in_the_log(pipe, record, keys, audit, tmp_path):
    made = pipe("a lighthouse", face_image=PHOTO, consent=record(), request_id="wanted", **QUICK)
    (tmp_path / "receipt.json").write_text(json.dumps(made.details))
    made.save(tmp_path / "out.png")
    from PIL import Image

    Image.open(tmp_path / "out.png").convert("RGB").save(tmp_path / "again.jpg", quality=70)
    mark_id = made.details["marks"]["pictures"][0]["mark_id"]
    for how in (("--mark-id", mark_id), ("--picture", str(tmp_path / "out.png")), ("--picture", str(tmp_path / "again.jpg"))):
        done = command("audit", "show", str(audit), *how)
        assert "wanted" in [json.loads(line)["id"] for line in done.stdout.splitlines()], how
    done = command("audit", "verify", str(audit), "--keys-folder", str(keys), "--receipt", str(tmp_path / "receipt.json"))
    assert done.returncode == 0 and json.loads(done.stdout)["whole"]
    done = command("audit", "show", str(audit), "--consent", record()["id"], "--last", "1")
    assert json.loads(done.stdout)["id"] == "wanted"
    lines = [json.loads(line) for line in command("audit", "export", str(audit)).stdout.splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))


@pytest.mark.proof
def test_nobody_slips_through_as_a_second_person_and_the_log_finds_each_by_their_consent(pipe, record, audit):
    from PIL import Image, ImageOps

    mine, theirs = record(id="of the first"), record(id="of the second")
    first, second = Person(PHOTO, (0, 0, 0.5, 1), consent=mine), Person(PHOTO, (0.5, 0, 1, 1), consent=theirs)
    made = pipe("two people", people=[first, second], request_id="two", **QUICK)
    assert [each["id"] for each in made.details["consent"]["people"]] == ["of the first", "of the second"]
    assert [each["consent"] for each in made.details["parameters"]["people"]] == ["of the first", "of the second"]
    for id in ("of the first", "of the second"):
        done = command("audit", "show", str(audit), "--consent", id)
        assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["two"]
    told = recorded(audit)[-1]
    assert len(told["references"]) == 2 and len(told["outputs"]) == 1
    stranger = ImageOps.mirror(Image.open(PHOTO).convert("RGB"))
    cases = [
        ([first, Person(stranger, second.box)], {}, "consent.missing"),
        ([Person(stranger, first.box), second], {}, "consent.missing"),
        ([first, Person(stranger, second.box, consent=theirs)], {}, "consent.not_covered"),
        ([Person(PHOTO, first.box), Person(stranger, second.box)], {"consent": mine}, "consent.not_covered"),
        ([first, Person(PHOTO, second.box, consent=record(adult=False))], {}, "consent.not_adult"),
        ([first, Person(identity=b"none", box=second.box)], {}, None),
    ]
    for people, more, code in cases:
        with pytest.raises(InvalidRequestError) as error:
            pipe("two people", people=people, **more, **QUICK)
        assert getattr(error.value, "code", None) == code


def test_consent_that_is_taken_back_counts_from_the_next_request_on(pipe, record, keys):
    mine = record(subject="S-7", id="to be revoked")
    assert pipe("a lighthouse", face_image=PHOTO, consent=mine, **QUICK).receipt
    assert command("consent", "revoke", "--subject", "S-7", "--folder", str(keys)).returncode == 0
    with pytest.raises(RefusedError) as error:
        pipe("a lighthouse", face_image=PHOTO, consent=mine, **QUICK)
    assert error.value.code == "consent.revoked"
    assert pipe("a lighthouse", face_image=PHOTO, consent=record(), **QUICK).receipt


def test_a_request_whose_caller_leaves_is_recorded(pipe, audit):
    stream = pipe.stream("a lighthouse", request_id="left", preview=True, **{**QUICK, "num_inference_steps": 200})
    next(stream)
    stream.close()
    until(lambda: [told for told in recorded(audit) if told.get("id") == "left" and told["outcome"] == "cancelled"], 20)
    (told,) = [told for told in recorded(audit) if told.get("id") == "left"]
    assert told["previews"] and "outputs" not in told, "they were delivered, and pictures were not"


def test_previews_are_recorded_with_their_request(pipe, audit, tmp_path):
    steps = {**QUICK, "num_inference_steps": 3}
    *events, _ = pipe.stream("a lighthouse", request_id="looked", preview=True, **steps)
    seen = [event.preview for event in events]
    told = recorded(audit)[-1]
    assert told["id"] == "looked" and len(told["previews"]) == 3 and len(told["outputs"]) == 1
    assert len({each["manifest"] for each in told["previews"] + told["outputs"]}) == 4, "each has credentials of its own"
    seen[1].convert("RGB").save(tmp_path / "seen.png")
    done = command("audit", "show", str(audit), "--picture", str(tmp_path / "seen.png"))
    assert "looked" in [json.loads(line)["id"] for line in done.stdout.splitlines()]


@pytest.mark.proof
def test_nothing_that_was_acknowledged_is_lost_when_the_server_is_killed(repository, tmp_path):
    folder, receipts = tmp_path / "audit", []
    settings = [f"marks_folder={tmp_path / 'keys'}", "marks=none", f"audit_folder={folder}"]
    with TritonServer(repository, Ports.free(), log=tmp_path / "log", settings=settings) as server:
        server.wait_ready()

        def ask():
            with FaceCLIPPipeline.from_pretrained(server.url, timeout_s=60) as pipe:
                while True:
                    try:
                        receipts.append(pipe("a lighthouse", **QUICK).receipt)
                    except Exception:  # noqa: BLE001 - the server was killed
                        return

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: len(receipts) > 10)
        server.kill()
        for thread in threads:
            thread.join(30)
    time.sleep(0.1)
    report = verify(folder, read_public(tmp_path / "keys" / AUDIT_PUBLIC, "key"), receipts)
    assert report.whole and report.records >= len(receipts) > 10


# ------------------------------------------------------------------------------------------------------------------- starts
def test_without_settings_there_is_no_log_and_no_consent_and_it_says_so(server):
    with FaceCLIPPipeline.from_pretrained(server.url, timeout_s=120) as pipe:
        made = pipe("a lighthouse", face_image=PHOTO, **QUICK)
    assert made.receipt is None and made.details["consent"] == {"mode": "off", "id": None}
    told = told_by(server.connection)
    assert told["audit"] == "off" and told["consent"]["mode"] == "off"


@pytest.mark.proof
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["consent=maybe"], "consent: expected one of off, record, require, got 'maybe'"),
        (["consent=require", "consent_key=/nowhere.pem"], "consent_key: /nowhere.pem: No such file or directory"),
        (["audit_folder=/dev/null"], "audit_folder: /dev/null cannot be written to"),
        (
            ["consent=record", "revoked=/nowhere.jsonl"],
            "revoked: /nowhere.jsonl is missing; without it no consent can be trusted",
        ),
        (["consent=record", "revoked=README.md"], "README.md, line 1: expected a JSON object with one of consent, subject"),
    ],
)
def test_what_cannot_be_used_ends_the_start(repository, tmp_path, settings, words):
    done = command("run", str(repository), "--set", f"marks_folder={tmp_path}", *(f"--set={each}" for each in settings))
    assert done.returncode == 1 and words in done.stderr


def test_a_key_of_the_log_that_others_can_read_ends_the_start(repository, tmp_path):
    from faceclip_serving.audit.keys import AUDIT_KEY, make_pair

    make_pair(tmp_path, AUDIT_KEY, AUDIT_PUBLIC)
    (tmp_path / AUDIT_KEY).chmod(0o644)
    done = command("run", str(repository), "--set", f"marks_folder={tmp_path}", "--set", f"audit_folder={tmp_path / 'log'}")
    assert done.returncode == 1 and "audit_key: expected a file that its owner alone can read, got mode 0644" in done.stderr


def test_commercial_use_needs_a_licence_that_allows_it(tmp_path):
    (tmp_path / "faceclip").mkdir()
    config = 'name: "faceclip"\nparameters {{ key: "{}" value {{ string_value: "{}" }} }}\n'
    told = {"variant": "flux", "placement": "cpu", "interface": "{}"}
    (tmp_path / "faceclip" / "config.pbtxt").write_text(
        'name: "faceclip"\n' + "".join(config.format(*each).partition("\n")[2] for each in told.items())
    )
    done = command("run", str(tmp_path), "--commercial")
    assert done.returncode == 1
    assert (
        "the weights of 'flux' (deployment 'faceclip') are for non-commercial use (FaceCLIP: CC BY-NC 4.0; FLUX.1-dev: "
        in done.stderr
    )
