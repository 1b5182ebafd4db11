"""docs/gateway.md: its commands are run as they stand, and it leaves out no endpoint, field or setting."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import fields

import pytest
from PIL import Image

from gateway.api.parameters import ParameterFields
from gateway.api.requests import ImageRequest
from gateway.keys.caller import Limits
from gateway.settings import Settings
from tests.gateway.running import ROOT

TEXT = (ROOT / "docs" / "gateway.md").read_text()
SHELL = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a user has his photograph, a picture to change, and its mask."""
    made = tmp_path_factory.mktemp("user")
    with Image.open(ROOT / "examples" / "astronaut.jpg") as photograph:
        photograph.convert("RGB").resize((512, 512)).save(made / "me.jpg")
    Image.new("RGB", (128, 128), (90, 120, 200)).save(made / "group.png")
    mask = Image.new("L", (128, 128))
    mask.paste(255, (32, 32, 96, 96))
    mask.save(made / "mask.png")
    return made


@pytest.mark.proof
@pytest.mark.parametrize("number", range(len(SHELL)))
def test_every_call_of_curl_works_as_it_stands(gate, folder, number):
    script = SHELL[number].replace("http://127.0.0.1:8080", gate.url)
    environment = {"PATH": "/usr/bin:/bin", "KEY": "none", "no_proxy": "127.0.0.1"}
    done = subprocess.run(["sh", "-ec", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (script, done.stdout[:500], done.stderr)
    assert shutil.which("curl") and done.stdout is not None


@pytest.mark.proof
def test_what_they_made_is_there(folder):
    with Image.open(folder / "library.png") as picture:
        assert picture.format == "PNG"


def test_there_are_commands():
    assert len(SHELL) >= 5


def test_every_endpoint_is_listed(gate):
    told = gate.http.get("/openapi.json").json()["paths"]
    real = {f"{method.upper()} {path}" for path, methods in told.items() for method in methods}
    assert real == set(re.findall(r"^\| `([A-Z]+ /\S+)` \|", TEXT, re.MULTILINE))


def test_openapi_says_the_scope_of_every_endpoint_as_the_table_does(gate):
    told = gate.http.get("/openapi.json").json()
    assert {name: (each["type"], each["scheme"]) for name, each in told["components"]["securitySchemes"].items()} == {
        "key": ("http", "bearer")
    }
    for method, path, scope in re.findall(r"^\| `([A-Z]+) (/\S+)` \| ([^|]+) \|", TEXT, re.MULTILINE):
        expected = [] if scope.startswith("none") else [{"key": [] if scope == "any" else [scope.strip("`")]}]
        assert told["paths"][path][method.lower()].get("security", []) == expected, (method, path)


def test_every_field_that_is_no_parameter_is_told():
    own = ImageRequest.model_fields.keys() - ParameterFields.model_fields.keys()
    assert not [name for name in own if f"`{name}`" not in TEXT]


def test_the_table_of_settings_is_theirs():
    for each in fields(Settings):
        default = each.default
        shown = (
            ", ".join(default) if isinstance(default, tuple) else f"{default:g}" if isinstance(default, float) else str(default)
        )
        row = f"| `--{each.name.replace('_', '-')}` | {f'`{shown}`' if shown else 'none'} | {each.metadata['doc']} |"
        assert row in TEXT


def test_every_limit_of_a_key_is_told():
    flags = {"variants": "--variant"}
    assert not [each.name for each in fields(Limits) if flags.get(each.name, f"--{each.name.replace('_', '-')}") not in TEXT]


@pytest.mark.proof
def test_it_runs_with_what_is_told_to_be_installed(tmp_path):
    """Of this project alone the folders that the command names; what `requirements.txt` names is the tests' own environment."""
    told = re.search(r"^pip install (.+)\n(python -m gateway run .+)$", TEXT, re.MULTILINE)
    installed = [word for word in told[1].split() if word.startswith("./")]
    for name in ("gateway", *installed):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    packages = tmp_path / "packages"
    install = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(packages)]
    subprocess.run([sys.executable, *install, *installed], cwd=tmp_path, check=True)
    # -S: no links from the environment into this checkout.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(packages), sysconfig.get_path("purelib")])}
    run = [sys.executable, "-S", *told[2].split()[1:], "--data=data", "--host=0.0.0.0"]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "there is no API key" in done.stderr, done.stderr
