"""Keys before a server starts: own ones are made where they are wanted and missing, and all are tried."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from faceclip_serving.contract.placements import CPU
from faceclip_serving.marking import authority
from faceclip_serving.marking.authority import KeysError, make
from server.marks import prepare

BOTH = {"faceclip": CPU, "flux": CPU}


def prepared(folder, **settings):
    prepare(BOTH, {"": {"marks_folder": str(folder), **settings}})
    return {path.name for path in folder.iterdir()} - {".lock"} if folder.exists() else set()


def test_what_is_missing_is_made_once_and_told(tmp_path, capsys):
    folder = tmp_path / "a" / "b"
    made = prepared(folder)
    assert made == {"watermark.key", "certificate.pem", "certificate.key", "root.pem", "root.key", "identity.key"}
    assert "made keys and a certificate of its own" in capsys.readouterr().err
    before = (folder / "root.pem").read_bytes()
    assert prepared(folder) == made and (folder / "root.pem").read_bytes() == before
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("marks", "made"),
    [("none", set()), ("metadata", set()), ("watermark", {"watermark.key"}), ("watermark,metadata", {"watermark.key"})],
)
def test_only_what_is_wanted_is_made(tmp_path, marks, made):
    assert prepared(tmp_path / "own", marks=marks, identities="off") == made
    assert prepared(tmp_path / "also", marks=marks) == {*made, "identity.key"}


def test_an_operators_keys_take_the_place_of_own_ones(tmp_path):
    make(tmp_path / "theirs", "Operator")
    theirs = {
        name: str(tmp_path / "theirs" / file)
        for name, file in (
            ("certificate", "certificate.pem"),
            ("certificate_key", "certificate.key"),
            ("watermark_key", "watermark.key"),
            ("identity_key", "watermark.key"),
        )
    }
    assert prepared(tmp_path / "own", **theirs) == set()


@pytest.mark.parametrize("marks", ["all", "watermark"])
def test_a_folder_that_cannot_be_written_is_told(tmp_path, marks):
    (tmp_path / "file").write_text("")
    with pytest.raises(KeysError, match=r"marks_folder: .*Not a directory"):
        prepare(BOTH, {"": {"marks_folder": str(tmp_path / "file" / "own"), "marks": marks}})


@pytest.mark.parametrize("marks", ["all", "watermark"])
def test_of_servers_that_start_together_one_makes_the_watermarks_key(tmp_path, monkeypatch, marks):
    """The second finds the first's, however long that takes: whoever marked by a key that was replaced could never be recognised."""
    drawn = []

    def slowly(count):
        drawn.append(count)
        time.sleep(0.2)
        return "ab" * count

    monkeypatch.setattr(authority.secrets, "token_hex", slowly)
    with ThreadPoolExecutor(4) as servers:
        for each in [servers.submit(prepared, tmp_path, marks=marks, identities="off") for _ in range(4)]:
            each.result()
    assert drawn.count(authority.KEY_BYTES) == 1


def test_one_deployment_may_have_keys_that_fail(tmp_path):
    with pytest.raises(KeysError, match=r"certificate: /nowhere\.pem: No such file"):
        prepare(BOTH, {"": {"marks_folder": str(tmp_path)}, "flux": {"certificate": "/nowhere.pem"}})
