"""ECDSA keys of service-account tokens. Only servers that are given such keys load the library for them.

Source: RFC 7518, 3.4 and 6.2; the curves are those that upstream's service-account keys may have.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from k3s.apiserver.oidc.keys import Key
from k3s.apiserver.rsa import BadKey, b64, key_id

_CURVES: dict[str, tuple[str, str, HashAlgorithm]] = {
    "secp256r1": ("P-256", "ES256", SHA256()),
    "secp384r1": ("P-384", "ES384", SHA384()),
    "secp521r1": ("P-521", "ES512", SHA512()),
}


class CurveKey:
    """A public key; `kid` names it as `rsa.key_id` does. Raises BadKey for another curve."""

    def __init__(self, public: ec.EllipticCurvePublicKey) -> None:
        if public.curve.name not in _CURVES:
            raise BadKey(f"the curve {public.curve.name} is not known: use P-256, P-384 or P-521")
        self._curve, self.algorithm, _ = _CURVES[public.curve.name]
        self.kid = key_id(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        self._numbers = public.public_numbers()
        self._size = size(public)
        self._key = Key(self.kid, public, self.algorithm)

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's signature of `message`."""
        return self._key.verifies(self.algorithm, message, signature)

    def jwk(self) -> dict[str, str]:
        """The key as a member of a JWKS document."""
        x, y = (b64(number.to_bytes(self._size, "big")) for number in (self._numbers.x, self._numbers.y))
        rest = {"kid": self.kid, "crv": self._curve, "alg": self.algorithm, "x": x, "y": y}
        return {"use": "sig", "kty": "EC", **rest}


def size(key: Any) -> int:
    """Bytes of a coordinate, and of each half of a signature."""
    return (int(key.key_size) + 7) // 8


def sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """The signature of `message` as JSON web tokens have it: both numbers, one after the other."""
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(_CURVES[key.curve.name][2])))
    return r.to_bytes(size(key), "big") + s.to_bytes(size(key), "big")
