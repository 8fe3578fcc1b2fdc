"""NaCl's secretbox: the stream cipher XSalsa20 with the authenticator Poly1305.

Source: D. J. Bernstein, "Cryptography in NaCl" and "Extending the Salsa20 nonce". The library that everything else here
uses has Poly1305 but not Salsa20, and a whole second library for one seldom chosen provider would be too much.
"""

from __future__ import annotations

import struct

_SIGMA = struct.unpack("<4I", b"expand 32-byte k")
_MASK = 0xFFFFFFFF
# Which words a quarter round mixes: columns, then rows.
_ROUNDS = (
    *((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)),
    *((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)),
)


class Broken(Exception):
    """A box that was not made with this key, or was changed."""


def _mixed(words: list[int], mask: int = _MASK) -> list[int]:
    """Twenty rounds of Salsa20: of one block, or of many side by side.

    Each word may hold that word of many blocks, every 64 bits one, of which `mask` has the lower half: what additions
    and shifts carry into the upper half is cut off. Python counts as fast with long numbers as with short ones.
    """
    x = list(words)
    for _ in range(10):
        for a, b, c, d in _ROUNDS:
            t = (x[a] + x[d]) & mask
            x[b] ^= ((t << 7) | (t >> 25)) & mask
            t = (x[b] + x[a]) & mask
            x[c] ^= ((t << 9) | (t >> 23)) & mask
            t = (x[c] + x[b]) & mask
            x[d] ^= ((t << 13) | (t >> 19)) & mask
            t = (x[d] + x[c]) & mask
            x[a] ^= ((t << 18) | (t >> 14)) & mask
    return x


def _block(key: tuple[int, ...], middle: tuple[int, ...]) -> list[int]:
    """The sixteen words that are mixed."""
    s = _SIGMA
    return [s[0], *key[:4], s[1], *middle, s[2], *key[4:], s[3]]


def _subkey(key: bytes, nonce: bytes) -> tuple[int, ...]:
    """HSalsa20: the key for a nonce of sixteen bytes."""
    x = _mixed(_block(struct.unpack("<8I", key), struct.unpack("<4I", nonce)))
    return (x[0], x[5], x[10], x[15], x[6], x[7], x[8], x[9])


def _stream(key: bytes, nonce: bytes, length: int) -> bytes:
    """The first bytes of XSalsa20's stream; less than 256 GiB."""
    count = (length + 63) // 64
    subkey, rest = _subkey(key, nonce[:16]), struct.unpack("<2I", nonce[16:])
    ones = int.from_bytes(b"\x01\0\0\0\0\0\0\0" * count, "little")
    mask = ones * _MASK
    words = [word * ones for word in _block(subkey, (*rest, 0, 0))]
    words[8] = int.from_bytes(struct.pack(f"<{count}Q", *range(count)), "little")  # which block it is
    out = bytearray(64 * count)
    for place, (mixed, word) in enumerate(zip(_mixed(words, mask), words, strict=True)):
        data = ((mixed + word) & mask).to_bytes(8 * count, "little")
        for part in range(4):
            out[4 * place + part :: 64] = data[part::8]
    return bytes(out[:length])


def _mixed_in(stream: bytes, data: bytes) -> bytes:
    size = len(data)
    return (int.from_bytes(stream, "little") ^ int.from_bytes(data, "little")).to_bytes(size, "little")


def seal_box(key: bytes, nonce: bytes, value: bytes) -> bytes:
    """The tag and the sealed value; the key has 32 bytes, the nonce 24, never used twice with one key."""
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    stream = _stream(key, nonce, 32 + len(value))
    sealed = _mixed_in(stream[32:], value)
    return Poly1305.generate_tag(stream[:32], sealed) + sealed


def open_box(key: bytes, nonce: bytes, box: bytes) -> bytes:
    """The value of a box. Raises Broken."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    if len(nonce) != 24 or len(box) < 16:
        raise Broken
    tag, sealed = box[:16], box[16:]
    stream = _stream(key, nonce, 32 + len(sealed))
    try:
        Poly1305.verify_tag(stream[:32], sealed, tag)
    except InvalidSignature:
        raise Broken from None
    return _mixed_in(stream[32:], sealed)
