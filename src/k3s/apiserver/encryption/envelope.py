"""What KMS v2 stores: a value under a key that comes from a seed, and the seed as the plugin has encrypted it.

Pure. Source: KEP-3299 and the message EncryptedObject of upstream's API server (package v2). From the seed and 32
fresh bytes HKDF-Expand with SHA-256 makes the AES-GCM key of one value; those bytes stand before the nonce.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import NamedTuple

from k3s.api import names
from k3s.apiserver.encryption.ciphers import AesGcm, Fresh, Tampered
from k3s.base.protobuf import Codec

#: What the plugin has encrypted: the key itself (which is read, but not written any more), or a seed for keys.
KEY, SEED = 0, 1
SEED_BYTES = 32
_INFO = 32
_LARGEST_SEED = _LARGEST_KEY_ID = 1024
_LARGEST_ANNOTATIONS = 32 * 1024
_OBJECT = "EncryptedObject"
_CODEC = Codec(
    {
        _OBJECT: {
            "encryptedData": [1, "bytes"],
            "keyID": [2, "string"],
            "encryptedDEKSource": [3, "bytes"],
            "annotations": [4, "map<string,bytes>"],
            "encryptedDEKSourceType": [5, "int32"],
        }
    },
    {},
)


class Source(NamedTuple):
    """Where the keys of values come from: `sealed` is what the plugin made of the seed with its key `key_id`."""

    key_id: str
    sealed: bytes
    annotations: tuple[tuple[str, bytes], ...] = ()
    kind: int = SEED


class Unfit(ValueError):
    """A source that upstream would not take; the text is upstream's."""


def source(key_id: str, sealed: bytes, annotations: Mapping[str, bytes], kind: int = SEED) -> Source:
    """A source that has been checked. Raises Unfit."""
    if kind not in (KEY, SEED):
        raise Unfit(f"unknown encryptedDEKSourceType: {kind}")
    size = len(sealed)
    if not size or size > _LARGEST_SEED:
        why = f"is {size} bytes, which exceeds the max size of {_LARGEST_SEED}" if size else "is empty"
        raise Unfit(f"failed to validate encrypted DEK source: encrypted DEK source {why}")
    if why := wrong_key_id(key_id):
        raise Unfit(f"failed to validate key id: {why}")
    wrong = [text for name in annotations if (text := _wrong_annotation(name))]
    total = sum(len(name.encode()) + len(value) for name, value in annotations.items())
    if total > _LARGEST_ANNOTATIONS:
        wrong.append(f"total size of annotations is {total}, which exceeds the max size of {_LARGEST_ANNOTATIONS}")
    if wrong:
        raise Unfit(f"failed to validate annotations: {wrong[0] if len(wrong) == 1 else '[' + ', '.join(wrong) + ']'}")
    return Source(key_id, sealed, tuple(sorted(annotations.items())), kind)


def wrong_key_id(key_id: str) -> str:
    """Why a key's id cannot be used; empty when it can."""
    size = len(key_id.encode())
    if not size:
        return "keyID is empty"
    return f"keyID is {size} bytes, which exceeds the max size of {_LARGEST_KEY_ID}" if size > _LARGEST_KEY_ID else ""


def _wrong_annotation(name: str) -> str:
    """A domain name of at least two parts."""
    if not name:
        return "annotations: Required value"
    bare = name.removesuffix(".")
    problems = names.dns_subdomain(bare)
    if not problems and "." not in bare:
        problems = ["should be a domain with at least two segments separated by dots"]
    return f'annotations: Invalid value: "{name}": {problems[0]}' if problems else ""


def packed(of: Source, data: bytes) -> bytes:
    """The stored form of sealed bytes."""
    return _CODEC.encode(
        _OBJECT,
        {
            "encryptedData": data,
            "keyID": of.key_id,
            "encryptedDEKSource": of.sealed,
            "annotations": dict(of.annotations),
            "encryptedDEKSourceType": of.kind,
        },
    )


def unpacked(stored: bytes) -> tuple[Source, bytes]:
    """The source of a stored form, and the sealed bytes. Raises Tampered."""
    try:
        found = _CODEC.decode(_OBJECT, stored)
        if not found["encryptedData"]:
            raise Unfit("encrypted data is empty")
        parts = found["keyID"], found["encryptedDEKSource"], found["annotations"], found["encryptedDEKSourceType"]
        return source(*parts), found["encryptedData"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Tampered(str(error)) from error


def seal(seed: bytes, fresh: Fresh, value: bytes, place: bytes) -> bytes:
    """A value under a key that is used for it alone."""
    info = fresh(_INFO)
    return info + AesGcm(_derived(seed, info), fresh).seal(value, place)


def unseal(of: Source, secret: bytes, data: bytes, place: bytes) -> bytes:
    """The value; `secret` is what the plugin says of the source. Raises Tampered."""
    if of.kind == KEY:
        if len(secret) not in AesGcm.sizes:
            raise Tampered(f"the plugin gives a key of {len(secret)} bytes")
        return AesGcm(secret, _none).unseal(data, place)
    if len(secret) < SEED_BYTES:
        raise Tampered(f"invalid seed length {len(secret)} used for key generation")
    if len(data) < _INFO:
        raise Tampered("the stored data was shorter than the required size")
    return AesGcm(_derived(secret, data[:_INFO]), _none).unseal(data[_INFO:], place)


def _derived(seed: bytes, info: bytes) -> bytes:
    """The first block of HKDF-Expand (RFC 5869): a key of 32 bytes."""
    return hmac.new(seed, info + b"\x01", hashlib.sha256).digest()


def _none(size: int) -> bytes:
    raise AssertionError("who unseals needs no chance")
