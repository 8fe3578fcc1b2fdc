"""Chance: what it makes has the form that others expect."""

from __future__ import annotations

import uuid

from k3s.base.entropy import SeededEntropy, SystemEntropy


def test_uids_are_random_uuids() -> None:
    """Version 4 of RFC 4122 in its usual text, each another one; a seed repeats them."""
    made = [SystemEntropy().uid() for _ in range(200)]
    assert len(set(made)) == 200
    for text in made:
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant, str(parsed)) == (4, uuid.RFC_4122, text)
    assert SeededEntropy(7).uid() == SeededEntropy(7).uid()
