"""Makes odd inputs of good ones: bytes changed, pieces repeated, joined, nested, cut, numbers at their limits."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

WORDS = (
    *(b"null", b"true", b"{}", b"[]", b'""', b"0", b"-1", b"1e400", b"-0", b"9223372036854775808", b"1" * 400),
    *(b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\xe2\x80\xa8", b"\r\n", b"\r\n\r\n", b"%00", b"../", b"~1"),
    *(
        b'"$patch":"delete"',
        b'"$patch":"replace"',
        b'"$setElementOrder/containers":[{"name":"a"}]',
        b"&a",
        b"*a",
        b"<<",
    ),
    *(b"!!", b"---\n", b"? ", b"- ", b": ", b"|", b">", b"!=", b" in (", b")", b",", b"1e9999999", b"1Ei", b"5n"),
    *(b"k:{}", b'k:{"name":"a"}', b"f:", b"v:", b"i:-1", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"\x7f"),
)
OPENERS = (b"[", b"{", b'{"a":', b"(", b"- ", b"a:\n ", b"!", b"-", b'[{"a":', b"\x0a\x7f", b"\x12\x05", b"k?", b"[[")


def _flip(data: bytearray, chance: random.Random, corpus: Sequence[bytes]) -> bytearray:
    for _ in range(chance.randrange(1, 5)):
        if data:
            data[chance.randrange(len(data))] = chance.randrange(256)
    return data


def _insert(data: bytearray, chance: random.Random, corpus: Sequence[bytes]) -> bytearray:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.choice(WORDS)
    return data


def _replace(data: bytearray, chance: random.Random, corpus: Sequence[bytes]) -> bytearray:
    at = chance.randrange(len(data) + 1)
    data[at : at + chance.randrange(1, 12)] = chance.choice(WORDS)
    return data


def _cut(data: bytearray, chance: random.Random, corpus: Sequence[bytes]) -> bytearray:
    if chance.random() < 0.5:
        return data[: chance.randrange(len(data) + 1)]
    at = chance.randrange(len(data) + 1)
    del data[at : at + chance.randrange(1, 30)]
    return data


def _repeat(data: bytearray, chance: random.Random, corpus: Sequence[bytes]) -> bytearray:
    at = chance.randrange(len(data) + 1)
    piece = data[at : at + chance.randrange(1, 40)]
    data[at:at] = piece * chance.choice((1, 2, 10, 100))
    return data


def _join(data: bytearray, chance: random.Random, corpus: Sequence[bytes]) -> bytearray:
    other = chance.choice(corpus)
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


def _nest(data: bytearray, chance: random.Random, corpus: Sequence[bytes]) -> bytearray:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.choice(OPENERS) * chance.choice((3, 30, 300, 3000, 30000))
    return data


_WAYS: tuple[Callable[[bytearray, random.Random, Sequence[bytes]], bytearray], ...] = (
    *(_flip, _flip, _insert, _insert, _replace, _replace, _cut, _cut, _repeat, _join, _join),
    _nest,
)


def mutated(chance: random.Random, corpus: Sequence[bytes]) -> bytes:
    """One odd input."""
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        data = chance.choice(_WAYS)(data, chance, corpus)
    return bytes(data[: 1 << 20])
