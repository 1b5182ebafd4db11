"""Keys and certificates: what is made, what is refused and why, and that nothing unsigned comes out."""

import datetime
import io
import json
import os
import stat
import threading
from dataclasses import replace

import c2pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from faceclip_serving.marking import authority
from faceclip_serving.marking.authority import AlreadyThere, KeysError, make, watermark_keys
from faceclip_serving.marking.credentials import _PROBE, Claim, Signer
from faceclip_serving.marking.verify import read_credentials
from faceclip_serving.marking.watermark import Tiles

MARK = (Tiles.soft_binding, "0123456789abcdef")
CLAIM = Claim(
    "system",
    "1",
    (Tiles.soft_binding, "0123456789abcdef"),
    True,
    [{"manifest": "urn:c2pa:of-a-photograph"}],
    notes={"licence": "Apache-2.0"},
)
NOW = datetime.datetime.now(datetime.UTC)


def own(folder):
    return Signer(folder / authority.CERTIFICATE, str(folder / authority.CERTIFICATE_KEY))


def test_private_keys_can_be_read_by_their_owner_alone(folder):
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert {name for name, mode in modes.items() if mode == 0o600} == {"certificate.key", "root.key", "watermark.key"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_is_there_is_not_replaced_unless_asked(tmp_path):
    first = make(tmp_path, "One")
    key = watermark_keys(tmp_path / authority.WATERMARK_KEY)
    with pytest.raises(AlreadyThere, match=r"it has some of 'One'; choose another, or replace them"):
        make(tmp_path, "Two")
    second = make(tmp_path, "Two", replace=True)
    assert first.root_sha256 != second.root_sha256 and own(tmp_path).organisation == "Two"
    assert watermark_keys(tmp_path / authority.WATERMARK_KEY) == key, "pictures marked until now stay readable"


def test_of_several_at_once_one_makes(tmp_path):
    ends = []

    def once():
        try:
            make(tmp_path, "One")
            ends.append("made")
        except AlreadyThere:
            ends.append("there")

    threads = [threading.Thread(target=once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["made", "there", "there", "there"]
    own(tmp_path)


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "x" * 65])
def test_an_organisation_has_a_name(tmp_path, name):
    with pytest.raises(KeysError, match="organisation: expected a name"):
        make(tmp_path, name)


def test_signing_says_what_was_done(folder):
    signer = own(folder)
    file, manifest = signer.sign(_PROBE, "image/png", CLAIM)
    found = read_credentials(file, "PNG", signer.anchors)
    assert (found.state, found.manifest, found.signer) == ("trusted", manifest, "Bildwerk GmbH")
    assert found.actions == ["c2pa.created", "c2pa.edited", "c2pa.watermarked.bound"] and found.generated
    assert (found.mark_id, found.system) == ("0123456789abcdef", "system 1") and found.when.endswith("Z")
    with c2pa.Reader("image/png", io.BytesIO(file)) as reader:
        told = json.loads(reader.json())["manifests"][manifest]
    assert [each["relationship"] for each in told["ingredients"]] == ["inputTo"]
    assert told["ingredients"][0]["instance_id"] == "urn:c2pa:of-a-photograph"
    assert "thumbnail" not in told and {"licence": "Apache-2.0"} in [each["data"] for each in told["assertions"]]
    assert all(each["created"] for each in told["assertions"]), "the signer answers for each"


@pytest.mark.parametrize("parent", [{}, {"manifest": "urn:c2pa:of-a-picture"}])
def test_a_picture_that_was_changed_is_said_to_be(folder, parent):
    signer = own(folder)
    file, manifest = signer.sign(_PROBE, "image/png", replace(CLAIM, parent=parent))
    found = read_credentials(file, "PNG", signer.anchors)
    assert found.state == "trusted" and found.generated and not found.captured
    assert found.actions == ["c2pa.opened", "c2pa.edited", "c2pa.edited", "c2pa.watermarked.bound"]
    with c2pa.Reader("image/png", io.BytesIO(file)) as reader:
        told = json.loads(reader.json())["manifests"][manifest]
    assert [each["relationship"] for each in told["ingredients"]] == ["inputTo", "parentOf"]
    assert not parent or told["ingredients"][1]["instance_id"] == "urn:c2pa:of-a-picture"
    [edited] = [each for a in told["assertions"] for each in a["data"].get("actions", []) if "digitalSourceType" in each]
    assert edited["action"] == "c2pa.edited" and edited["digitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")


def test_one_signer_serves_several_threads(folder):
    signer, ids = own(folder), []

    def sign():
        for _ in range(5):
            file, manifest = signer.sign(_PROBE, "image/png", CLAIM)
            assert read_credentials(file, "PNG").state == "valid"
            ids.append(manifest)

    threads = [threading.Thread(target=sign) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 20


# ---------------------------------------------------------------------------------------------------------- the operator's own
def written(folder, key, days=(-1, 30), usage=True, identifier=True):
    """A chain and a key in files, with faults as asked."""
    root_key = ec.generate_private_key(ec.SECP256R1())
    name, issuer = (x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, each)]) for each in ("Operator", "Authority"))
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key()).serial_number(7)
        .not_valid_before(NOW + datetime.timedelta(days=days[0])).not_valid_after(NOW + datetime.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
    )  # fmt: skip
    if usage:
        builder = builder.add_extension(authority._usage(certificates=False), True)
    if identifier:
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False)
    certificate = builder.sign(root_key, hashes.SHA256())
    chain, secret = folder / "chain.pem", folder / "secret.key"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.touch(0o600)
    secret.write_bytes(authority._private_pem(key))
    return chain, str(secret)


P256 = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    "key",
    [
        P256,
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-256", "P-384", "Ed25519", "RSA"],
)
def test_an_operators_own_certificate_signs(tmp_path, key):
    signer = Signer(*written(tmp_path, key))
    file, _ = signer.sign(_PROBE, "image/png", CLAIM)
    assert signer.organisation == "Operator" and read_credentials(file, "PNG").state == "valid"


def test_a_key_service_signs_through_a_function(tmp_path):
    chain, secret = written(tmp_path, P256)
    code = tmp_path / "kms.py"
    code.write_text(
        "from cryptography.hazmat.primitives import hashes, serialization\n"
        "from cryptography.hazmat.primitives.asymmetric import ec\n"
        f"KEY = serialization.load_pem_private_key(open({secret!r}, 'rb').read(), None)\n"
        "def sign(data):\n    return KEY.sign(data, ec.ECDSA(hashes.SHA256()))\n"
    )
    file, _ = Signer(chain, f"{code}:sign").sign(_PROBE, "image/png", CLAIM)
    assert read_credentials(file, "PNG").state == "valid"


def test_a_key_service_that_fails_leaves_no_unsigned_picture(tmp_path):
    chain, _ = written(tmp_path, P256)
    code = tmp_path / "kms.py"
    code.write_text("def sign(data):\n    raise OSError('the key service is away')\n")
    with pytest.raises(KeysError, match="pictures cannot be signed"):
        Signer(chain, f"{code}:sign")


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ({"days": (-30, -1)}, r"expected one that is valid now, .* is valid from .*; renew it"),
        ({"days": (1, 30)}, "expected one that is valid now"),
        ({"usage": False}, "pictures cannot be signed by"),
        ({"identifier": False}, "pictures cannot be signed by"),
    ],
)
def test_a_certificate_that_cannot_sign_is_known_at_the_start(tmp_path, faults, said):
    with pytest.raises(KeysError, match=said):
        Signer(*written(tmp_path, P256, **faults))


def test_a_key_that_others_can_read_is_refused(tmp_path):
    chain, secret = written(tmp_path, P256)
    os.chmod(secret, 0o640)
    with pytest.raises(KeysError, match=r"its owner alone can read, got mode 0640; `chmod 600"):
        Signer(chain, secret)


def test_another_certificates_key_is_refused(tmp_path, folder):
    chain, _ = written(tmp_path, P256)
    with pytest.raises(KeysError, match="expected the key of the certificate, got another one"):
        Signer(chain, str(folder / authority.CERTIFICATE_KEY))


@pytest.mark.parametrize("key", ["nothing.here:sign", "json:missing", "/nowhere/kms.py:sign", "/nowhere/key.pem"])
def test_a_key_that_cannot_be_had_is_told(tmp_path, key):
    with pytest.raises(KeysError, match="certificate_key"):
        Signer(written(tmp_path, P256)[0], key)


def test_a_time_authority_that_does_not_answer_stops_the_start(tmp_path):
    chain, secret = written(tmp_path, P256)
    with pytest.raises(KeysError, match="pictures cannot be signed"):
        Signer(chain, secret, "http://127.0.0.1:9/")


@pytest.mark.parametrize("content", ["", "zz" * 32, "00" * 31, "00" * 32 + "\n00"])
def test_a_marks_key_file_holds_keys(tmp_path, content):
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text(content)
    with pytest.raises(KeysError, match="watermark_key: expected lines of 64 hexadecimal digits"):
        watermark_keys(path)
