"""Which server draws: the one that does least for us; among those nearly as free, the one that has seen this face before.

Servers remember encodings of photographs for some minutes. By rendezvous hashing the same face goes to the same server, and when one
comes or goes, only its own faces move.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol, TypeVar

from ..drawing import Drawing

SLACK = 2
"""A server that has seen the face may have so many drawings more in flight than the freest one."""


class Server(Protocol):
    in_flight: int
    address: str


_Server = TypeVar("_Server", bound=Server)


def face_of(drawing: Drawing) -> bytes | None:
    """A digest of the photographs or identities; None: nobody is pictured."""
    files = [*drawing.photos, *drawing.identities]
    if not files:
        return None
    return hashlib.sha256(b"".join(hashlib.sha256(file).digest() for file in files)).digest()


def in_order(servers: Sequence[_Server], drawing: Drawing) -> list[_Server]:
    """The servers, best first."""
    by_load = sorted(servers, key=lambda each: each.in_flight)
    face = face_of(drawing)
    if face is None or len(by_load) < 2:
        return by_load
    free = [each for each in by_load if each.in_flight <= by_load[0].in_flight + SLACK]
    known = max(free, key=lambda each: hashlib.sha256(face + each.address.encode()).digest())
    return [known, *(each for each in by_load if each is not known)]
