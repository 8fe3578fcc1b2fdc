"""Randomness, from one named place: the machine's in production, a seed's in simulation (law 8)."""

from __future__ import annotations

import os
import random
import uuid
from typing import Protocol

# Letters and digits that generated names use: no vowels and no look-alikes, so no words and no misreadings.
_NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


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
        return str(uuid.UUID(bytes=self._random.randbytes(16), version=4))

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
