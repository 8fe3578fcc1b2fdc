"""The ways to seal a value, each with upstream's stored form: `k8s:enc:<provider>:v1:<key name>:<sealed bytes>`.

Source: "Encrypting Confidential Data at Rest", Kubernetes documentation. The library is loaded by who uses it.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Protocol

from k3s.apiserver.encryption.secretbox import Broken, open_box, seal_box

#: As many fresh random bytes as asked for.
Fresh = Callable[[int], bytes]


class Tampered(Exception):
    """Sealed bytes that no key of theirs made, or that were changed or moved since."""


class Cipher(Protocol):
    """One key."""

    def seal(self, value: bytes, place: bytes) -> bytes:
        """The sealed form of a value; `place` is where it stands."""

    def unseal(self, sealed: bytes, place: bytes) -> bytes:
        """The value. Raises Tampered."""

    def is_current(self, sealed: bytes) -> bool:
        """Whether `seal` would use the same key today for what it sealed once."""


class _Fixed:
    """A key that stays the same for as long as its name."""

    def is_current(self, sealed: bytes) -> bool:
        return True


class AesCbc(_Fixed):
    """AES in CBC mode with PKCS 7 padding: secret, but whoever can write the datastore can change it unseen."""

    sizes = (16, 24, 32)

    def __init__(self, key: bytes, fresh: Fresh) -> None:
        self._key = key
        self._fresh = fresh

    def seal(self, value: bytes, place: bytes) -> bytes:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        start = self._fresh(16)
        pad = 16 - len(value) % 16
        run = Cipher(algorithms.AES(self._key), modes.CBC(start)).encryptor()
        return start + run.update(value + bytes([pad]) * pad) + run.finalize()

    def unseal(self, sealed: bytes, place: bytes) -> bytes:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        if len(sealed) < 32 or len(sealed) % 16:
            raise Tampered("its length is none of AES-CBC")
        run = Cipher(algorithms.AES(self._key), modes.CBC(sealed[:16])).decryptor()
        value = run.update(sealed[16:]) + run.finalize()
        pad = value[-1]
        if not 1 <= pad <= 16 or not hmac.compare_digest(value[-pad:], bytes([pad]) * pad):
            raise Tampered("its padding is wrong")
        return value[:-pad]


class AesGcm(_Fixed):
    """AES in GCM mode: a value that is changed, or moved to another place, is seen."""

    sizes = (16, 24, 32)

    def __init__(self, key: bytes, fresh: Fresh) -> None:
        self._key = key
        self._fresh = fresh

    def seal(self, value: bytes, place: bytes) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = self._fresh(12)
        return nonce + AESGCM(self._key).encrypt(nonce, value, place)

    def unseal(self, sealed: bytes, place: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(self._key).decrypt(sealed[:12], sealed[12:], place)
        except (InvalidTag, ValueError) as error:
            raise Tampered("it was changed or moved") from error


class SecretBox(_Fixed):
    """XSalsa20 and Poly1305, as NaCl's secretbox: a value that is changed is seen."""

    sizes = (32,)

    def __init__(self, key: bytes, fresh: Fresh) -> None:
        self._key = key
        self._fresh = fresh

    def seal(self, value: bytes, place: bytes) -> bytes:
        nonce = self._fresh(24)
        return nonce + seal_box(self._key, nonce, value)

    def unseal(self, sealed: bytes, place: bytes) -> bytes:
        try:
            return open_box(self._key, sealed[:24], sealed[24:])
        except Broken as error:
            raise Tampered("it was changed") from error


CIPHERS: dict[str, type[AesCbc] | type[AesGcm] | type[SecretBox]] = {
    "aescbc": AesCbc,
    "aesgcm": AesGcm,
    "secretbox": SecretBox,
}
