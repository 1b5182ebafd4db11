"""What `make setup` takes, without setting anything up, and the order of `make test`."""

import subprocess
import sys

import pytest

from export.paths import ROOT
from tests.conftest import LONGEST

PRETENDER = """#!{python}
import sys
version = (3, {minor}, 4)
sys.version_info, sys.version = version, ".".join(map(str, version)) + " (pretended)"
if sys.argv[1] == "-c":
    exec(sys.argv[2])
else:
    sys.exit("goes on to make the environment")
"""


@pytest.mark.parametrize(("minor", "taken"), [(10, False), (11, True), (12, True), (13, False)])
def test_the_pythons_that_the_pins_install_on_are_taken_and_others_are_told_which(tmp_path, minor, taken):
    python = tmp_path / "python"
    python.write_text(PRETENDER.format(python=sys.executable, minor=minor))
    python.chmod(0o755)
    command = ["make", "setup", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and not (tmp_path / "venv").exists()
    if taken:
        assert "goes on to make the environment" in done.stderr
    else:
        assert f"CPython 3.11 or 3.12 is needed, for which the pinned packages exist; this is 3.{minor}.4" in done.stderr


def test_the_files_that_are_begun_first_are_there():
    assert [name for name in LONGEST if not (ROOT / "tests" / name).is_file()] == []
