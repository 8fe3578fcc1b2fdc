"""RSA keys of service-account tokens: reading them, checking signatures, and signing.

Checking is done here with integers: it uses no secret, takes 0.15 ms, and keeps a library of 10 MB out of a server that
only verifies. Signing uses `cryptography`, imported at the first signature: timing must not tell about the key.
Source: RFC 8017 (PKCS #1) and RFC 7517 (JSON Web Key).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

# DER of AlgorithmIdentifier rsaEncryption, and the DigestInfo prefix of SHA-256 (RFC 8017, 9.2 note 1).
_RSA_ALGORITHM = bytes.fromhex("300d06092a864886f70d0101010500")
_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")
_SEQUENCE, _INTEGER, _BITS, _OCTETS = 0x30, 0x02, 0x03, 0x04


class BadKey(ValueError):
    """A text that is not an RSA key; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public half: modulus and exponent; `kid` names the key in tokens and in the JWKS document."""

    modulus: int
    exponent: int
    kid: str

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's PKCS#1 v1.5 SHA-256 signature of `message`.

        The expected encoding is built and compared as a whole: nothing of the signature is parsed.
        """
        size = (self.modulus.bit_length() + 7) // 8
        number = int.from_bytes(signature, "big")
        if len(signature) != size or number >= self.modulus:
            return False
        found = pow(number, self.exponent, self.modulus).to_bytes(size, "big")
        digest = _SHA256_PREFIX + hashlib.sha256(message).digest()
        expected = b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest
        return hmac.compare_digest(found, expected)

    def jwk(self) -> dict[str, str]:
        """The key as a member of a JWKS document."""
        size = (self.modulus.bit_length() + 7) // 8
        return {
            "use": "sig",
            "kty": "RSA",
            "kid": self.kid,
            "alg": "RS256",
            "n": b64(self.modulus.to_bytes(size, "big")),
            "e": b64(self.exponent.to_bytes((self.exponent.bit_length() + 7) // 8, "big")),
        }


class Signer:
    """A private key, loaded at the first signature."""

    def __init__(self, pem: bytes) -> None:
        self.public = public_key(pem)
        self._pem = pem
        self._key: Any = None

    def sign(self, message: bytes) -> bytes:
        """The PKCS#1 v1.5 SHA-256 signature; 0.3 ms, the first one 80 ms more."""
        from cryptography.hazmat.primitives.asymmetric import padding
        from cryptography.hazmat.primitives.hashes import SHA256

        if self._key is None:
            from cryptography.hazmat.primitives.serialization import load_pem_private_key

            self._key = load_pem_private_key(self._pem, None)
        signature: bytes = self._key.sign(message, padding.PKCS1v15(), SHA256())
        return signature


def public_key(pem: bytes) -> PublicKey:
    """The public key in a PEM text that holds an RSA key, private or public (PKCS#1, PKCS#8, SPKI); raises BadKey."""
    label, der = _unwrap(pem)
    body = _members(der)
    try:
        if label == "PRIVATE KEY":  # version, algorithm, the PKCS#1 key in an octet string
            body = _members(body[2][1])
        elif label == "PUBLIC KEY":  # algorithm, the PKCS#1 key in a bit string
            body = _members(body[1][1][1:])
        private = label in ("RSA PRIVATE KEY", "PRIVATE KEY")
        modulus, exponent = (body[1], body[2]) if private else (body[0], body[1])
    except IndexError:
        raise BadKey("Cannot read the key: it is no RSA key") from None
    if modulus[0] != _INTEGER or exponent[0] != _INTEGER:
        raise BadKey("Cannot read the key: it is no RSA key")
    return _public(int.from_bytes(modulus[1], "big"), int.from_bytes(exponent[1], "big"))


def _public(modulus: int, exponent: int) -> PublicKey:
    if modulus.bit_length() < 2048 or exponent < 3:
        raise BadKey("Cannot use the key: RSA of at least 2048 bits is needed")
    numbers = _der(_SEQUENCE, _integer(modulus) + _integer(exponent))
    spki = _der(_SEQUENCE, _RSA_ALGORITHM + _der(_BITS, b"\x00" + numbers))
    return PublicKey(modulus, exponent, b64(hashlib.sha256(spki).digest()))


def b64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """The bytes of base64url without padding; raises ValueError for anything else."""
    if "=" in text or "+" in text or "/" in text:
        raise ValueError("not base64url without padding")
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _unwrap(pem: bytes) -> tuple[str, bytes]:
    lines = pem.decode("ascii", "replace").split("\n")
    label, body = "", []
    for line in (line.strip() for line in lines):
        if line.startswith("-----BEGIN ") and not label:
            label = line.removeprefix("-----BEGIN ").removesuffix("-----")
        elif line.startswith("-----END "):
            break
        elif label:
            body.append(line)
    if label not in ("RSA PRIVATE KEY", "PRIVATE KEY", "RSA PUBLIC KEY", "PUBLIC KEY"):
        raise BadKey("Cannot read the key: no PEM block of an RSA key")
    try:
        return label, base64.b64decode("".join(body), validate=True)
    except ValueError:
        raise BadKey("Cannot read the key: the PEM block is not base64") from None


def _members(der: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of the members of a DER sequence."""
    tag, content, _ = _element(der, 0)
    if tag != _SEQUENCE:
        raise BadKey("Cannot read the key: it is no RSA key")
    members, at = [], 0
    while at < len(content):
        tag, inner, at = _element(content, at)
        members.append((tag, inner))
    return members


def _element(der: bytes, at: int) -> tuple[int, bytes, int]:
    if at + 2 > len(der):
        raise BadKey("Cannot read the key: it ends early")
    tag, length, start = der[at], der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, start = int.from_bytes(der[start : start + count], "big"), start + count
    if start + length > len(der):
        raise BadKey("Cannot read the key: it ends early")
    return tag, der[start : start + length], start + length


def _der(tag: int, content: bytes) -> bytes:
    if len(content) < 0x80:
        return bytes((tag, len(content))) + content
    size = (len(content).bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + len(content).to_bytes(size, "big") + content


def _integer(number: int) -> bytes:
    return _der(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))
