"""What KMS v2 stores is what upstream stores, byte by byte; sizes and names are held to upstream's limits."""

from __future__ import annotations

import os

import pytest

from k3s.apiserver.encryption import envelope
from k3s.apiserver.encryption.ciphers import AesGcm, Tampered
from k3s.apiserver.encryption.envelope import KEY, SEED, Unfit, packed, seal, source, unpacked, unseal

PLACE = b"/registry/core/secrets/default/a"
SEED_OF_FIVES = b"\x05" * 32


def test_the_bytes_of_the_stored_form() -> None:
    """The message EncryptedObject written by hand from its definition: fields 1 to 5 with their types."""
    of = source("key-1", b"SEALED", {"a.example.com": b"\xff\x00"})
    data = b"D" * 60
    assert packed(of, data) == (
        b"\x0a\x3c" + data + b"\x12\x05key-1" + b"\x1a\x06SEALED"
        b"\x22\x13" + b"\x0a\x0da.example.com" + b"\x12\x02\xff\x00" + b"\x28\x01"
    )
    assert unpacked(packed(of, data)) == (of, data)


def test_the_key_of_a_value_comes_from_the_seed() -> None:
    """HKDF-Expand of another library gives the same key; the 32 bytes that it takes stand before nonce and value."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

    stored = seal(SEED_OF_FIVES, os.urandom, b"value", PLACE)
    key = HKDFExpand(SHA256(), 32, stored[:32]).derive(SEED_OF_FIVES)
    assert AesGcm(key, os.urandom).unseal(stored[32:], PLACE) == b"value"
    of = source("k", b"x", {})
    assert unseal(of, SEED_OF_FIVES, stored, PLACE) == b"value"
    assert seal(SEED_OF_FIVES, os.urandom, b"value", PLACE)[:32] != stored[:32]
    for secret, data, place in (
        (b"\x06" * 32, stored, PLACE),
        (SEED_OF_FIVES, stored[:-1] + b"x", PLACE),
        (SEED_OF_FIVES, stored, b"/elsewhere"),
        (SEED_OF_FIVES, stored[:20], PLACE),
        (b"short", stored, PLACE),
    ):
        with pytest.raises(Tampered):
            unseal(of, secret, data, place)


def test_the_older_form_is_read() -> None:
    """Before seeds there were keys (upstream up to 1.28)."""
    key = os.urandom(32)
    stored = AesGcm(key, os.urandom).seal(b"value", PLACE)
    assert unseal(source("k", b"x", {}, KEY), key, stored, PLACE) == b"value"
    with pytest.raises(Tampered, match="a key of 3 bytes"):
        unseal(source("k", b"x", {}, KEY), b"abc", stored, PLACE)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("", b"x", {}), "failed to validate key id: keyID is empty"),
        (("k" * 1025, b"x", {}), "keyID is 1025 bytes, which exceeds the max size of 1024"),
        (("k", b"", {}), "failed to validate encrypted DEK source: encrypted DEK source is empty"),
        (("k", b"x" * 1025, {}), "encrypted DEK source is 1025 bytes, which exceeds the max size of 1024"),
        (("k", b"x", {"": b""}), "failed to validate annotations: annotations: Required value"),
        (("k", b"x", {"one": b""}), 'Invalid value: "one": should be a domain with at least two segments separated by'),
        (("k", b"x", {"A.b": b""}), 'annotations: Invalid value: "A.b": a lowercase RFC 1123 subdomain must consist'),
        (("k", b"x", {"a.b": b"x" * 32766}), "total size of annotations is 32769, which exceeds the max size of 32768"),
        (("k", b"x", {}, 7), "unknown encryptedDEKSourceType: 7"),
    ],
)
def test_what_upstream_does_not_take(parts: tuple[object, ...], text: str) -> None:
    with pytest.raises(Unfit) as error:
        source(*parts)  # type: ignore[arg-type]
    assert text in str(error.value)


def test_limits_are_inclusive() -> None:
    assert source("k" * 1024, b"x" * 1024, {"a.b.": b"x" * 32764}, SEED).kind == envelope.SEED


@pytest.mark.parametrize("stored", [b"", b"\x0a\xff", b"\x12\x05key-1", b"no protobuf", b"\x0a\x01D\x12\x01\xff"])
def test_broken_bytes_are_seen(stored: bytes) -> None:
    with pytest.raises(Tampered):
        unpacked(stored)
