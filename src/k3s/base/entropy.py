"""Randomness, from one named place: the machine's in production, a seed's in simulation (law 8)."""

from __future__ import annotations

import os
import random
from typing import Protocol

# Letters and digits that generated names use: no vowels and no look-alikes, so no words and no misreadings.
_NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"

# What every random UUID has the same: version 4, variant of RFC 4122.
_FIXED = 0x4000_8000_0000_0000_0000
_NOT_FIXED = ~0xF000_C000_0000_0000_0000


class Entropy(Protocol):
    """What a component may ask of chance."""

    def uid(self) -> str:
        """A random UUID in text form."""

    def suffix(self, length: int = 5) -> str:
        """The random end of a generated name."""

    def below(self, limit: int) -> int:
        """A whole number from 0 up to and without `limit`."""

    def fraction(self) -> float:
        """A number from 0 up to and without 1, for jitter."""

    def secret(self, size: int) -> bytes:
        """`size` bytes that nobody can guess."""


class SystemEntropy:
    """Chance as the operating system gives it."""

    def __init__(self) -> None:
        self._random = random.Random(os.urandom(32))

    def uid(self) -> str:
        bits = self._random.getrandbits(128) & _NOT_FIXED | _FIXED
        text = f"{bits:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def suffix(self, length: int = 5) -> str:
        return "".join(self._random.choices(_NAME_ALPHABET, k=length))

    def below(self, limit: int) -> int:
        return self._random.randrange(limit)

    def fraction(self) -> float:
        return self._random.random()

    def secret(self, size: int) -> bytes:
        return os.urandom(size)


class SeededEntropy(SystemEntropy):
    """Chance that a seed repeats: for simulation and tests, never for secrets of a real cluster."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)

    def secret(self, size: int) -> bytes:
        return self._random.randbytes(size)
