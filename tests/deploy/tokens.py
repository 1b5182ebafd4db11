"""An issuer of JSON web tokens, for tests alone."""

import base64
import json
import time

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa


def _text(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    def __init__(self, name="https://issuer.example"):
        self.name = name
        self._key = rsa.generate_private_key(65537, 2048)

    def jwks(self):
        numbers = self._key.public_key().public_numbers()
        told = {
            name: _text(value.to_bytes((value.bit_length() + 7) // 8)) for name, value in (("n", numbers.n), ("e", numbers.e))
        }
        return json.dumps({"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", **told}]})

    def token(self, tenant="shop", **claims):
        """Claims that are None are left out."""
        told = {"iss": self.name, "aud": "faceclip", "exp": time.time() + 600, "tenant": tenant, **claims}
        parts = ({"alg": "RS256", "kid": "1"}, {name: value for name, value in told.items() if value is not None})
        head = ".".join(_text(json.dumps(part).encode()) for part in parts)
        return f"{head}.{_text(self._key.sign(head.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def headers(self, tenant="shop", **claims):
        return {"authorization": f"Bearer {self.token(tenant, **claims)}"}
