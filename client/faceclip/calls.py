"""What calls carry beside their tensors: a token, and what proxies read to count and to steer. Proxies see no tensors."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Mapping

from .errors import InvalidRequestError
from .transport import Arrays

TOKEN_VARIABLE = "FACECLIP_TOKEN"
TENANT_HEADER = "x-faceclip-tenant"
"""Whom the call is for, as the parameter `tenant` says; a proxy that knows better replaces it."""
FACE_HEADER = "x-faceclip-face"
"""Equal for equal faces of one process: by it a proxy may send them to the same server, which remembers them."""
_AUTHORIZATION = "authorization"
_FACES = ("face_images", "identity")
_KEY = secrets.token_bytes(32)
"""Of this process, so that nobody who sees the header can tell whose photograph it was."""
_PRINTABLE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def metadata_of_all(headers: Mapping[str, str] | None, token: str | None) -> list[tuple[str, str]]:
    """What every call carries. `token`: None: the one of the environment, where `headers` bring no authorization."""
    found = [(name.lower(), value) for name, value in (headers or {}).items()]
    has_own = any(name == _AUTHORIZATION for name, _ in found)
    if token is not None and has_own:
        raise InvalidRequestError("token: expected none beside a header 'authorization', got both; leave out one of them")
    token = token if token is not None else None if has_own else os.environ.get(TOKEN_VARIABLE)
    if not token:
        return found
    if not _PRINTABLE.fullmatch(token) or " " in token:
        raise InvalidRequestError(f"token: expected printable ASCII without spaces, got something else; see ${TOKEN_VARIABLE}")
    return [*found, (_AUTHORIZATION, f"Bearer {token}")]


def metadata_of_one(inputs: Arrays, affinity: bool) -> list[tuple[str, str]]:
    """What a request carries. `affinity`: its faces, in a form that tells nothing else of them."""
    found = []
    tenant = bytes(inputs["tenant"][0]).decode() if "tenant" in inputs else ""
    if _PRINTABLE.fullmatch(tenant):  # a header can be nothing else; then the parameter alone says it
        found.append((TENANT_HEADER, tenant))
    files = [bytes(file) for name in _FACES if name in inputs for file in inputs[name]]
    if affinity and files:
        digest = hashlib.blake2b(key=_KEY, digest_size=16)
        for file in files:
            digest.update(hashlib.sha256(file).digest())
        found.append((FACE_HEADER, digest.hexdigest()))
    return found
