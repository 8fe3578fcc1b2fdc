"""Short stable hashes for names: the same template always has the same one.

Source of the form: 32-bit FNV-1a, its decimal text mapped to letters that make no words (as upstream's template hash).
"""

from __future__ import annotations

from typing import Any

import msgspec

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_canonical = msgspec.json.Encoder(order="deterministic")


def template_hash(value: Any, collisions: int | None = None) -> str:
    """The hash of any JSON value; `collisions` makes another one when the name is taken by something else."""
    data = _canonical.encode(value)
    if collisions is not None:
        data += collisions.to_bytes(8, "little")
    return safe(str(fnv1a(data)))


def fnv1a(data: bytes) -> int:
    """The 32-bit FNV-1a hash."""
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def safe(text: str) -> str:
    """The text with each character replaced by one that is allowed in names and makes no words."""
    return "".join(_ALPHABET[ord(char) % len(_ALPHABET)] for char in text)
