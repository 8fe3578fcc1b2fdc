"""The keys of service-account tokens: those whose signatures count, and the one that signs.

A PEM text may hold several keys: public, private (PKCS#1, PKCS#8, SEC1) or certificates. Signing, elliptic curves and
certificates use `cryptography`, imported when first needed; checking with RSA keys does without (see decision 7).
Source: upstream's --service-account-key-file; k3s' service.key, whose first key signs (k3s certificate rotate-ca).
"""

from __future__ import annotations

from typing import Any, Protocol

from k3s.apiserver import rsa
from k3s.apiserver.rsa import BadKey

_PRIVATE = ("RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY")
_PUBLIC = ("RSA PUBLIC KEY", "PUBLIC KEY", "CERTIFICATE")


class Key(Protocol):
    """A public key: its name, and the one algorithm of JSON web tokens that it is for."""

    @property
    def kid(self) -> str:
        """The name of the key in tokens and documents."""

    @property
    def algorithm(self) -> str:
        """RS256, ES256, ES384 or ES512."""

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether it made the signature."""

    def jwk(self) -> dict[str, str]:
        """The key as a member of a JWKS document."""


class Signer:
    """The first private key of a PEM text, loaded at the first signature. Raises BadKey."""

    def __init__(self, pem: bytes) -> None:
        found = [block for block in rsa.blocks(pem) if block[0] in _PRIVATE]
        if not found:
            raise BadKey("it holds no private RSA or ECDSA key")
        self._der = found[0][1]
        self.public = _public(*found[0])
        self._key: Any = None

    def sign(self, message: bytes) -> bytes:
        """The signature as a token has it; 0.3 ms with RSA, the first one 80 ms more."""
        from cryptography.hazmat.primitives.asymmetric import padding
        from cryptography.hazmat.primitives.hashes import SHA256

        if self._key is None:
            self._key = _loaded(self._der)
        if self.public.algorithm != "RS256":
            from k3s.apiserver import curves

            return curves.sign(self._key, message)
        signature: bytes = self._key.sign(message, padding.PKCS1v15(), SHA256())
        return signature


def keys(pem: bytes) -> list[Key]:
    """The public keys of every key and certificate of a PEM text, each once; other blocks are passed over.

    Raises BadKey when there is none.
    """
    found = {
        key.kid: key
        for label, der in rsa.blocks(pem)
        if label in (*_PRIVATE, *_PUBLIC)
        for key in [_public(label, der)]
    }
    if not found:
        raise BadKey("it holds no RSA or ECDSA key")
    return list(found.values())


def _public(label: str, der: bytes) -> Key:
    if rsa.is_rsa(label, der):
        return rsa.of_block(label, der)
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return _of_library(label, der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKey(f"the block {label} cannot be used: {error}") from None


def _of_library(label: str, der: bytes) -> Key:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from k3s.apiserver.curves import CurveKey

    if label == "CERTIFICATE":
        from cryptography.x509 import load_der_x509_certificate

        public: Any = load_der_x509_certificate(der).public_key()
    elif label == "PUBLIC KEY":
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        public = load_der_public_key(der)
    else:
        public = _loaded(der).public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        return CurveKey(public)
    if isinstance(public, RSAPublicKey):
        numbers = public.public_numbers()
        return rsa.of_numbers(numbers.n, numbers.e)
    raise ValueError("it is neither RSA nor ECDSA")


def _loaded(der: bytes) -> Any:
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    return load_der_private_key(der, None)
