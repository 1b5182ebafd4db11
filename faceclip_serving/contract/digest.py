"""Digest of the shared code, so that models assembled from different versions never work together unnoticed."""

from __future__ import annotations

import hashlib
from pathlib import Path

DIGEST_FILE = "code.sha256"
"""Beside the copied package in a model's version folder: the digest it had when the repository was assembled."""
WEIGHTS_FILE = "face_encoder.sha256"
"""Beside the models that seal and open identities: the digest of the face encoder whose features they hold."""


def weights_of(folder: Path) -> str:
    """What `WEIGHTS_FILE` of a model's version folder says."""
    return (folder / WEIGHTS_FILE).read_text().strip()


def package_digest(package: Path) -> str:
    """SHA-256 over names and contents of the package's files of code, and of the data that it reads."""
    digest = hashlib.sha256()
    for path in sorted(path for kind in ("py", "onnx", "otf", "toml") for path in package.rglob(f"*.{kind}")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
