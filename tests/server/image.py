"""The Dockerfiles of deploy/ carried out without a container engine.

The image's folders are made below a temporary root, as the file's instructions say; nothing of them is written here a second time.
In the place of the base image stands an interpreter with its standard library, for NVIDIA's the server of the wheel `nvidia-pytriton`, and
what `pip install -r` would add: exactly the distributions that the requirements name, and those that they require, hard-linked
from the environment that the tests run in. A real `pip install` there takes a minute, gigabytes and a network, and can only bring
the same pinned distributions; this takes seconds. It is made once for a set of versions, in build/.container.
"""

import hashlib
import importlib.metadata as metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import urllib.error
import urllib.request
from functools import cached_property
from pathlib import Path

import pytest
import tritonclient.grpc as grpc
from packaging.requirements import Requirement
from tritonclient.utils import InferenceServerException

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SERVER_WHEEL = "nvidia-pytriton"
SYSTEM = "/usr/bin:/bin"
KEY = "0123abc"
CLOSED = "model-repository,model-config"
"""What deploy/README.md says to close where every client has a key."""


# --------------------------------------------------------------------------------------------------------------- Dockerfile
def instructions(dockerfile="Dockerfile"):
    """(instruction, arguments) of a Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n", " ", (DEPLOY / dockerfile).read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def ignored(dockerfile="Dockerfile"):
    """(what may be copied, patterns of names that never are) of its ignore file."""
    lines = [line for line in (DEPLOY / f"{dockerfile}.dockerignore").read_text().splitlines() if line]
    assert lines[0] == "*", "all is left out but what is named"
    patterns = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    return [line[1:] for line in lines if line.startswith("!")], patterns


# --------------------------------------------------------------------------------------------------------------- base image
def closure(requirements):
    """Name -> distribution, of all that a requirements file names and what that requires, as pip would resolve it here."""
    lines = (line.split("#")[0].strip() for line in requirements.read_text().splitlines())
    waiting = [Requirement(line) for line in lines if line]
    found, seen = {}, set()
    while waiting:
        wanted = waiting.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        distribution = metadata.distribution(wanted.name)
        assert wanted.specifier.contains(distribution.version.split("+")[0]), f"{wanted}: {distribution.version} is installed"
        found[wanted.name.lower().replace("_", "-")] = distribution
        for text in distribution.requires or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in (*wanted.extras, "")):
                waiting.append(needed)
    return found


def interpreter(requirements, wheels=(SERVER_WHEEL,)):
    """A folder with bin/python3, the standard library, the closure of `requirements`, and `wheels` by themselves."""
    packages = {**closure(requirements), **{name: metadata.distribution(name) for name in wheels}}
    versions = sorted(f"{name} {distribution.version}" for name, distribution in packages.items())
    key = hashlib.sha256("\n".join([sys.version, sys.prefix, *versions]).encode()).hexdigest()[:16]
    folder = ROOT / "build" / ".container" / requirements.parent.name / key
    if folder.is_dir():
        return folder
    shutil.rmtree(folder.parent, ignore_errors=True)  # of other versions
    partial = folder.with_name(f"{key}.{os.getpid()}.partial")
    library = Path(sysconfig.get_path("stdlib")).relative_to(sys.base_prefix)
    (partial / "bin").mkdir(parents=True)
    _link(Path(sys.executable).resolve(), partial / "bin" / "python3")
    shared = Path(sysconfig.get_config_var("LIBDIR") or "").glob(f"libpython{sysconfig.get_python_version()}.so*")
    for path in shared:
        _link(path, partial / "lib" / path.name)
    left_out = shutil.ignore_patterns("site-packages", "dist-packages", "test", "config-*")
    shutil.copytree(sysconfig.get_path("stdlib"), partial / library, ignore=left_out, copy_function=_link)
    for path in (partial / library).glob("_sysconfigdata*.py"):  # where the interpreter says that its own library lies
        text = path.read_text().replace(sys.base_prefix, str(folder))
        path.unlink()  # it is a link
        path.write_text(text)
    for distribution in packages.values():
        for file in distribution.files or ():
            if file.parts[0] != "..":  # commands lie outside
                source = Path(distribution.locate_file(file))
                _link(source, partial / library / "site-packages" / file)
                compiled = source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
                if source.suffix == ".py" and compiled.exists():  # the image's Python writes none
                    _link(compiled, (partial / library / "site-packages" / file).parent / "__pycache__" / compiled.name)
    partial.replace(folder)
    return folder


def _link(source, target):
    target = Path(target)
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(Path(source).resolve(), target)
    except OSError:
        shutil.copy2(source, target)


# -------------------------------------------------------------------------------------------------------------------- image
class Image:
    """A Dockerfile's folders below `root`, and its commands run in them as its user, with its environment alone."""

    def __init__(self, dockerfile="Dockerfile", wheels=(SERVER_WHEEL,)):
        self.dockerfile, self.wheels = dockerfile, wheels
        self.root = Path(tempfile.mkdtemp(prefix="faceclip-image-"))
        self.root.chmod(0o755)
        (self.root / "tmp").mkdir()
        (self.root / "tmp").chmod(0o1777)
        self.environment = {}
        self.commands = {}
        self.python = None
        for instruction, argument in instructions(dockerfile):
            getattr(self, f"_{instruction.lower()}", lambda _: None)(argument)
        self.environment["PATH"] = f"{self.python / 'bin'}:{SYSTEM}"
        self.environment["LD_LIBRARY_PATH"] = str(
            self.python / "lib"
        )  # of its interpreter, whose own note names another folder

    def path(self, absolute):
        """Where a path of the image lies."""
        return self.root / absolute.removeprefix("/")

    # one method for each instruction that does something here
    def _workdir(self, argument):
        self.workdir = self.path(argument)
        self.workdir.mkdir(parents=True)

    def _env(self, argument):
        for name, value in (word.split("=", 1) for word in shlex.split(argument)):
            self.environment[name] = str(self.path(value)) if value.startswith("/") else value

    def _copy(self, argument):
        *sources, destination = argument.split()
        allowed, patterns = ignored(self.dockerfile)
        for source in sources:
            assert source in allowed, f"{source} is left out by the ignore file"
            target = self.workdir / destination / (Path(source).name if destination.endswith("/") else "")
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns(*patterns), dirs_exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, target)

    def _run(self, argument):
        if installs := re.search(r"pip install .*-r (\S+)", argument):
            self.python = interpreter(self.workdir / installs[1], self.wheels)
        elif "pip install" not in argument:  # TensorRT's package is for TensorRT's libraries
            command = argument if os.geteuid() == 0 else argument.split("&& chown")[0]
            subprocess.run(["sh", "-euc", command], cwd=self.workdir, check=True)

    def _user(self, argument):
        self.user = tuple(map(int, argument.split(":")))

    def _entrypoint(self, argument):
        self.entrypoint = json.loads(argument)

    def _cmd(self, argument):
        self.default = json.loads(argument)

    def _healthcheck(self, argument):
        self.healthcheck = json.loads(argument[argument.index("CMD") + len("CMD") :])

    def _stopsignal(self, argument):
        self.stop_signal = signal.Signals[argument]

    # ------------------------------------------------------------------------------------------------------------ running
    @cached_property
    def identity(self):
        """The image's user, where it can be taken on: by root, with this checkout readable to others."""
        if os.geteuid() != 0:
            return {}
        taken = {"user": self.user[0], "group": self.user[1], "extra_groups": []}
        try:
            tried = subprocess.run(["python3", "-c", ""], env=self.environment, cwd=self.workdir, check=False, **taken)
        except OSError:
            return {}
        return taken if tried.returncode == 0 else {}

    def start(self, *command, **options):
        """A process in the image, in a session of its own."""
        return subprocess.Popen(
            command, cwd=self.workdir, env=self.environment, text=True, start_new_session=True, **self.identity, **options
        )

    def run(self, *command, **environment):
        """Runs a command in the image to its end."""
        return subprocess.run(
            command, cwd=self.workdir, env={**self.environment, **environment}, capture_output=True, text=True, timeout=300,
            check=False, **self.identity,
        )  # fmt: skip

    def mount(self, source, place):
        """Puts a folder at a place of the image, as a volume that its user may write to."""
        target = self.path(place)
        shutil.copytree(source, target, copy_function=_link)
        if self.identity:
            for folder in (target, *(path for path in target.rglob("*") if path.is_dir())):
                os.chown(folder, *self.user)

    def remove(self):
        shutil.rmtree(self.root)


# --------------------------------------------------------------------------------------------------------------- entrypoint
def entrypoint(*arguments, key=KEY, **environment):
    """Lines that deploy/entrypoint.sh prints."""
    environment = {"PATH": SYSTEM} | environment | ({"FACECLIP_ADMIN_KEY": key} if key else {})
    command = ["sh", str(DEPLOY / "entrypoint.sh"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


def assert_statistics_are_closed(grpc_url, http_url):
    with grpc.InferenceServerClient(grpc_url) as client:
        with pytest.raises(InferenceServerException, match="protocol is restricted"):
            client.get_inference_statistics("faceclip")
        client.get_inference_statistics("faceclip", headers={"triton-grpc-protocol-admin-key": KEY})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://{http_url}/v2/models/faceclip/stats", timeout=10)
    assert caught.value.code == 403
