"""Pictures that are kept: whole or not at all, and given to whoever has a signed address, for its time."""

import errno
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.jobs.kept import results as module
from gateway.jobs.kept.results import FileRefusedError, Results

from .drawn import output, picture

ID = "job_" + "a" * 32


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results", tmp_path / "key")


def parts(address):
    found = urlsplit(address)
    query = parse_qs(found.query)
    return found.path.rsplit("/", 1)[1], query["expires"][0], query["signature"][0]


def test_an_address_gives_its_picture(results):
    manifest = results.keep(ID, output(5), 100.0, 200.0)
    (address,) = results.addresses(ID, manifest)
    assert results.path(*parts(address), now=199.0).read_bytes() == picture(5)
    assert results.addresses(ID, results.kept(ID)) == [address]


def test_addresses_hold_over_a_restart(results, tmp_path):
    (address,) = results.addresses(ID, results.keep(ID, output(5), 100.0, 200.0))
    again = Results(tmp_path / "results", tmp_path / "key")
    assert again.path(*parts(address), now=150.0).is_file()
    assert (tmp_path / "key").stat().st_mode & 0o77 == 0


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"name": f"{ID}-1.png"}, 403),
        ({"expires": "999"}, 403),
        ({"expires": "٢٠٠"}, 403),
        ({"expires": ""}, 403),
        ({"signature": "0" * 64}, 403),
        ({"signature": "ö"}, 403),
        ({"name": "../key"}, 404),
        ({"name": f"{ID}-0.png/../../key"}, 404),
        ({"name": "manifest.json"}, 404),
        ({"now": 200.0}, 410),
    ],
)
def test_any_other_address_gives_nothing(results, changed, status):
    (address,) = results.addresses(ID, results.keep(ID, output(5), 100.0, 200.0))
    name, expires, signature = parts(address)
    asked = {"name": name, "expires": expires, "signature": signature, "now": 150.0} | changed
    with pytest.raises(FileRefusedError) as refused:
        results.path(**asked)
    assert refused.value.status == status


def test_what_was_swept_is_gone(results):
    (address,) = results.addresses(ID, results.keep(ID, output(5), 100.0, 200.0))
    results.sweep(199.0)
    assert results.ids() == [ID]
    results.sweep(200.0)
    assert results.ids() == []
    with pytest.raises(FileRefusedError) as refused:
        results.path(*parts(address), now=150.0)
    assert refused.value.status == 410


@pytest.mark.parametrize("after", range(4))
def test_a_disk_that_fills_leaves_nothing(results, monkeypatch, after):
    """Within the pictures, the manifest, or when names are written."""
    calls = 0

    def failing(real):
        def call(*arguments):
            nonlocal calls
            calls += 1
            if calls > after:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments)

        return call

    monkeypatch.setattr(module.os, "fsync", failing(module.os.fsync))
    with pytest.raises(OSError, match="No space"):
        results.keep(ID, output(5), 100.0, 200.0)
    assert [name for name in results.ids() if name.endswith(".partial")] == []
    assert after == 3 or results.kept(ID) is None


@pytest.mark.parametrize("broken", ["0.png", "manifest.json"])
@pytest.mark.parametrize("how", ["gone", "half", "empty"])
def test_a_result_that_is_not_whole_is_none(results, tmp_path, broken, how):
    results.keep(ID, output(5), 100.0, 200.0)
    file = tmp_path / "results" / ID / broken
    content = file.read_bytes()
    file.unlink()
    if how != "gone":
        file.write_bytes(content[: len(content) // 2] if how == "half" else b"")
    assert results.kept(ID) is None


def test_a_result_is_replaced_by_that_of_a_second_drawing(results):
    results.keep(ID, output(5), 100.0, 200.0)
    results.keep(ID, output(6), 100.0, 200.0)
    assert results.kept(ID)["pictures"][0]["seed"] == 6
