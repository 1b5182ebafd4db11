"""What a server's models and its operator are known by, see `faceclip_serving/contract/callers.py`.

A server's operator key lies in a file that its user alone can read, so that commands on the same machine find it by the gRPC port;
elsewhere it comes from the environment.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from faceclip_serving.contract.callers import OPERATOR_KEY, OPERATOR_KEY_VARIABLE, SECRET, SECRET_VARIABLE
from faceclip_serving.contract.errors import UserError


def _new() -> str:
    return secrets.token_hex(32)


class WeakKeyError(UserError):
    """An operator's key that nobody could show, or that is soon guessed."""


def _operator_key() -> str:
    """The one that the environment gives. Raises `WeakKeyError`."""
    key = os.environ.get(OPERATOR_KEY_VARIABLE, "")
    if key and (len(key) < 16 or not key.isprintable()):
        raise WeakKeyError(
            f"{OPERATOR_KEY_VARIABLE}: expected at least 16 characters of text, got {len(key)}; e.g. `openssl rand -hex 32`"
        )
    return key


@dataclass(frozen=True)
class Keys:
    """Of one server."""

    secret: str = field(default_factory=_new, repr=False)
    """The models'."""
    operator: str = field(default_factory=lambda: _operator_key() or _new(), repr=False)

    @property
    def environment(self) -> Mapping[str, str]:
        """For the server's processes."""
        return {SECRET_VARIABLE: self.secret, OPERATOR_KEY_VARIABLE: self.operator}

    @property
    def parameters(self) -> Mapping[str, str]:
        """Of a request that comes from whoever started the server."""
        return {SECRET: self.secret}


def remember(port: int, key: str, host: str = "127.0.0.1") -> Path | None:
    """Writes the operator's key of the server at that gRPC address for commands of the same user; the file, or None where that is not safe.

    `host`: the IP address that it listens on.
    """
    try:
        folder = _folders()[0]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(folder):
            return None
        path = folder / _name(host, port)
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(key)
    except OSError:  # nowhere to write: the environment is left
        return None
    return path


def operator_parameters(target: str) -> Mapping[str, str]:
    """The request parameter that shows an operator to the server at `target`, as far as a key is known here."""
    key = os.environ.get(OPERATOR_KEY_VARIABLE, "")
    host, _, port = target.rpartition(":")
    if not key and port.isdigit():
        listening = [address for each in _addresses(host) for address in (each, "0.0.0.0", "::")]
        paths = [folder / _name(address, int(port)) for folder in _folders() if _is_ours(folder) for address in listening]
        found = [path for path in paths if path.is_file()]  # of a server that was killed, one may be left
        key = max(found, key=lambda path: path.stat().st_mtime_ns).read_text() if found else ""
    return {OPERATOR_KEY: key} if key else {}


def _addresses(host: str) -> list[str]:
    """The IP addresses of this machine that a host's name or address means; none where it is another machine."""
    if host == "localhost":
        return ["127.0.0.1", "::1"]
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET) as test:
            test.bind((str(address), 0))  # nobody can listen at another machine's
    except (ValueError, OSError):
        return []
    return [str(address)]


def _name(host: str, port: int) -> str:
    return f"{ipaddress.ip_address(host.strip('[]'))}-{port}"


def _folders() -> list[Path]:
    """Where keys are; the first for new ones. A service and a login of the same user differ in XDG_RUNTIME_DIR."""
    name = f"faceclip-keys-{os.getuid()}"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    folders = [Path(runtime) / name, Path(tempfile.gettempdir()) / name]
    return folders if Path(runtime).is_dir() else folders[1:]


def _is_ours(folder: Path) -> bool:
    """Whether it is the user's own, and nobody else may look into it."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return found.st_uid == os.getuid() and not found.st_mode & 0o077 and folder.is_dir() and not folder.is_symlink()
