"""The keys of an issuer: JSON Web Keys, and the check of a signature with one of them.

Only servers that believe other issuers load the library for it (see decision 7). Source: RFC 7515, 7517 and 7518.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from k3s.api.object import Object
from k3s.apiserver.rsa import unb64

_HASHES: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVES: dict[str, tuple[str, ec.EllipticCurve]] = {
    "P-256": ("ES256", ec.SECP256R1()),
    "P-384": ("ES384", ec.SECP384R1()),
    "P-521": ("ES512", ec.SECP521R1()),
}
_LEAST_BITS = 2048


class Key:
    """A public key; `kid` names it in tokens, empty when it has no name."""

    def __init__(self, kid: str, public: Any, algorithm: str) -> None:
        self.kid = kid
        self._public = public
        self._algorithm = algorithm  # the only one that it is for; empty for any of its type

    def verifies(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Whether it made the signature, by an algorithm of JSON Web Signature. A key of another type never did."""
        if self._algorithm and algorithm != self._algorithm:
            return False
        digest = _HASHES[algorithm[2:]]
        try:
            if algorithm.startswith("ES"):
                return self._verifies_curve(message, signature, digest)
            if not isinstance(self._public, rsa.RSAPublicKey):
                return False
            pad: Any = padding.PKCS1v15()
            if algorithm.startswith("PS"):
                pad = padding.PSS(padding.MGF1(digest), digest.digest_size)
            self._public.verify(signature, message, pad, digest)
        except InvalidSignature:
            return False
        return True

    def _verifies_curve(self, message: bytes, signature: bytes, digest: hashes.HashAlgorithm) -> bool:
        if not isinstance(self._public, ec.EllipticCurvePublicKey):
            return False
        size = (self._public.key_size + 7) // 8
        if len(signature) != 2 * size:
            return False
        r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        self._public.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(digest))
        return True


def keys(document: Any) -> list[Key]:
    """The keys of a JWKS document that are for signatures and of a known type; others are passed over."""
    listed: Iterable[Any] = document.get("keys") or () if isinstance(document, dict) else ()
    return [key for row in listed if isinstance(row, dict) and (key := _key(row)) is not None]


def _key(row: Object) -> Key | None:
    if row.get("use", "sig") != "sig":
        return None
    kid, algorithm = str(row.get("kid") or ""), str(row.get("alg") or "")
    try:
        if row.get("kty") == "RSA":
            public: Any = rsa.RSAPublicNumbers(_number(row["e"]), _number(row["n"])).public_key()
            return Key(kid, public, algorithm) if public.key_size >= _LEAST_BITS else None
        if row.get("kty") == "EC":
            wanted, curve = _CURVES[row["crv"]]
            public = ec.EllipticCurvePublicNumbers(_number(row["x"]), _number(row["y"]), curve).public_key()
            return Key(kid, public, wanted)
    except (KeyError, TypeError, ValueError, UnsupportedAlgorithm):
        return None
    return None


def _number(text: str) -> int:
    return int.from_bytes(unb64(text), "big")
