"""Whether the gateway can listen where it is told to, and who is in the way where it cannot."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from .settings import SettingsError

_LISTENS = "0A"
"""A socket's state in the system's tables."""


def refuse_port(host: str, port: int) -> None:
    """Said before anything begins. Raises `SettingsError` where `host` is not of this machine, or its port is somebody's."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            cure = "stop that one, or choose another port: --port PORT (0 takes any free one)"
            told = f"port: expected a free one on {host}, got {port}, where {_listener(port)} listens; {cure}"
        elif error.errno == errno.EACCES:
            told = f"port: expected one that this user may open, got {port}; choose one from 1024 up: --port PORT"
        else:
            told = f"host: expected an address of this machine, got {host!r} ({error}); 127.0.0.1 is itself, 0.0.0.0 all it has"
        raise SettingsError(told) from None


def _listener(port: int) -> str:
    """The process, as far as this user may know it."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    for link in Path("/proc").glob("[0-9]*/fd/*") if sockets else ():
        with contextlib.suppress(OSError):  # it may be closed meanwhile, or another user's
            if os.readlink(link) in sockets:
                return f"process {link.parts[2]} ({_program(Path(*link.parts[:3]))})"
    return "another program"


def _listening(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _program(process: Path) -> str:
    """Its command up to the first long option, since those may hold secrets."""
    words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    shown = [Path(words[0]).name]
    for word in words[1:]:
        if word.startswith("--"):
            break
        shown.append(word)
    return " ".join(shown).strip()[:80]
