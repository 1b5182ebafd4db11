"""What a server's models and its operator are known by, see `faceclip_serving/contract/callers.py`.

A server's operator key lies in a file that its user alone can read, so that commands on the same machine find it by the gRPC port;
elsewhere it comes from the environment.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from faceclip_serving.contract.callers import OPERATOR_KEY, OPERATOR_KEY_VARIABLE, SECRET, SECRET_VARIABLE


def _new() -> str:
    return secrets.token_hex(32)


@dataclass(frozen=True)
class Keys:
    """Of one server."""

    secret: str = field(default_factory=_new, repr=False)
    """The models'."""
    operator: str = field(default_factory=lambda: os.environ.get(OPERATOR_KEY_VARIABLE) or _new(), repr=False)

    @property
    def environment(self) -> Mapping[str, str]:
        """For the server's processes."""
        return {SECRET_VARIABLE: self.secret, OPERATOR_KEY_VARIABLE: self.operator}

    @property
    def parameters(self) -> Mapping[str, str]:
        """Of a request that comes from whoever started the server."""
        return {SECRET: self.secret}


def remember(port: int, key: str) -> Path | None:
    """Writes the operator's key of the server on that gRPC port for commands of the same user; the file, or None where that is not safe."""
    try:
        folder = _folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(folder):
            return None
        path = folder / str(port)
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
    if not key and _is_here(host) and port.isdigit():
        path = _folder() / port
        if _is_ours(path.parent) and path.is_file():
            key = path.read_text()
    return {OPERATOR_KEY: key} if key else {}


def _is_here(host: str) -> bool:
    """Whether a host is this very machine, whatever names it."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _folder() -> Path:
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"faceclip-keys-{os.getuid()}"


def _is_ours(folder: Path) -> bool:
    """Whether it is the user's own, and nobody else may look into it."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return found.st_uid == os.getuid() and not found.st_mode & 0o077 and folder.is_dir() and not folder.is_symlink()
