"""Keys of consent and of the log, and a record that does."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from faceclip_serving.audit.consent import Rule, signed
from faceclip_serving.audit.keys import References
from faceclip_serving.audit.revoked import Revoked
from faceclip_serving.contract.consent import ConsentRecord

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
KEY = Ed25519PrivateKey.generate()
REFERENCES = References((bytes(range(32)),))
PHOTO = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)


@pytest.fixture
def record():
    """Changes -> a record with them, signed, as it comes with a request."""

    def made(key=KEY, **changes):
        content = {
            "id": "c-1",
            "subject": "S-1042",
            "adult": True,
            "scope": ["portrait"],
            "references": [REFERENCES.of_photo(PHOTO)[0]],
            "confirmed_by": "Studio Nord",
            "confirmed_how": "signed form",
            "given": "2026-11-01T00:00:00Z",
            "expires": "2027-11-01T00:00:00+01:00",
            "text": "2026-11",
            **changes,
        }
        return ConsentRecord().read("consent", json.dumps(signed(content, key) if key else content))

    return made


@pytest.fixture
def rule(tmp_path):
    (tmp_path / "revoked").touch(0o600)

    def made(mode="require", **changes):
        settings = {"keys": (KEY.public_key(),), "references": REFERENCES, "revoked": Revoked(tmp_path / "revoked"), **changes}
        return Rule(mode, **settings)

    return made
