"""Pictures that were drawn, kept for a time: a folder each, with a manifest. Addresses of them are signed and expire.

A folder appears whole, by one rename, and before anything else says that it exists. So after a crash a folder that is there is a
result. `kept` tells whether its files are those of its manifest. Blocks.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from faceclip import FaceCLIPOutput

from .whole import NAME, PARTIAL, ours, own_secret, sync_folder
from .wordless import without_words

_NAME = re.compile(rf"({NAME})-(\d{{1,2}}\.(?:png|jpg|webp))")
_ENDINGS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
_MANIFEST = "manifest.json"
MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}


class FileRefusedError(Exception):
    """A picture that is not given. `status`: 403, the signature is not ours; 404, no such name; 410, its time is over."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Results:
    """A folder of them. `key`: the file of the key that signs."""

    def __init__(self, folder: Path, key: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._key = own_secret(key)

    def keep(self, result_id: str, output: FaceCLIPOutput, created: float, expires: float) -> dict[str, Any]:
        """Writes the pictures of `output`; returns the manifest. On the disk when this returns. Raises `OSError`; nothing is left then.

        Prompts are not kept (`wordless`).
        `result_id`: letters, an underscore, 32 hexadecimal digits. `created`, `expires`: seconds since 1970.
        """
        partial, place = self._folder / f"{result_id}{PARTIAL}", self._folder / result_id
        pictures = []
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(mode=0o700)
            for i, (content, made) in enumerate(zip(output.files, output.provenance, strict=True)):
                name = f"{i}.{_ENDINGS[made.format]}"
                _write(partial / name, content)
                pictures.append(
                    {
                        "name": name,
                        "format": made.format.lower(),
                        "size": [made.width, made.height],
                        "seed": made.seed,
                        "sha256": made.sha256,
                    }
                )
            manifest = {"created": created, "expires": expires, "pictures": pictures, "details": without_words(output.details)}
            _write(partial / _MANIFEST, json.dumps(manifest).encode())
            sync_folder(partial)
            shutil.rmtree(place, ignore_errors=True)
            partial.rename(place)
            sync_folder(self._folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return manifest

    def kept(self, result_id: str) -> dict[str, Any] | None:
        """The manifest, if every picture is as it says; else None."""
        folder = self._folder / result_id
        try:
            manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_bytes())
            digests = [hashlib.sha256((folder / picture["name"]).read_bytes()).hexdigest() for picture in manifest["pictures"]]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return manifest if digests == [picture["sha256"] for picture in manifest["pictures"]] else None

    def remove(self, result_id: str) -> None:
        """What is gone already is no error."""
        shutil.rmtree(self._folder / result_id, ignore_errors=True)

    def ids(self) -> list[str]:
        """Of all that are there."""
        return [folder.name for folder in ours(self._folder)]

    def sweep(self, now: float) -> None:
        """Takes away what is over, and what a crash has left half."""
        for folder in ours(self._folder):
            if self._over(folder, now):
                shutil.rmtree(folder, ignore_errors=True)

    def path(self, name: str, expires: str, signature: str, now: float) -> Path:
        """The file of a signed address. Raises `FileRefusedError`."""
        found = _NAME.fullmatch(name)
        if found is None:
            raise FileRefusedError(404, f"no file '{name[:80]}'")
        if (
            not expires.isascii()
            or not expires.isdigit()
            or not hmac.compare_digest(self._signature(name, expires), signature.encode())
        ):
            raise FileRefusedError(403, "expires, signature: expected an address as an answer gave it, unchanged")
        path = self._folder / found[1] / found[2]
        if int(expires) <= now or not path.is_file():
            raise FileRefusedError(410, f"file '{name}': its time is over, and it was deleted")
        return path

    def addresses(self, result_id: str, manifest: Mapping[str, Any]) -> list[str]:
        """Of each picture, below the gateway's own address. The same whenever they are asked for."""
        expires = str(int(manifest["expires"]))
        names = [f"{result_id}-{picture['name']}" for picture in manifest["pictures"]]
        return [
            f"/v1/files/{name}?{urlencode({'expires': expires, 'signature': self._signature(name, expires).decode()})}"
            for name in names
        ]

    def _signature(self, name: str, expires: str) -> bytes:
        return hmac.new(self._key, f"{name}\n{expires}".encode(), hashlib.sha256).hexdigest().encode()

    def _over(self, folder: Path, now: float) -> bool:
        try:
            return float(json.loads((folder / _MANIFEST).read_bytes())["expires"]) <= now or folder.name.endswith(PARTIAL)
        except (OSError, ValueError, KeyError, TypeError):
            return True


def _write(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
