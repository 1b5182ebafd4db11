"""Whatever makes the data folder, and whatever was there, its files are for their owner alone."""

import os

import pytest

from gateway.keys.store import KeyStore

from .drawn import Server, drawing, ended, working


@pytest.fixture(autouse=True)
def _wide_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def _open_to_others(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file() and file.stat().st_mode & 0o77)


@pytest.mark.parametrize("there", [False, True], ids=["a new folder", "a folder of the operator's"])
async def test_what_is_written_is_for_its_owner_alone(tmp_path, there):
    folder = tmp_path / "data"
    if there:
        folder.mkdir(mode=0o755)
        for name in ("jobs.sqlite", "lock", "keys.sqlite"):
            (folder / name).touch(0o644)
    keys = KeyStore(folder)
    async with working(folder, Server()) as jobs:
        job, _ = await jobs.accept(drawing(), "", "image_generation")
        assert (folder / "jobs.sqlite-wal").exists()
        assert _open_to_others(folder) == []
        await ended(jobs, job.id)
        assert _open_to_others(folder) == []
    keys.close()
    assert there or folder.stat().st_mode & 0o77 == 0
