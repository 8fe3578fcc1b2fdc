"""The decisions that every datastore shares: ranges of keys, which revisions can be read, how far to compact. Pure."""

from __future__ import annotations

from k3s.store.interface import Compacted, FutureRevision

_SURROGATES_START, _SURROGATES_END, _LAST = 0xD800, 0xE000, 0x10FFFF


def prefix_end(prefix: str) -> str | None:
    """The first string after every string that starts with `prefix`; None when there is none (the empty prefix)."""
    while prefix:
        point = ord(prefix[-1]) + 1
        if point <= _LAST:
            return prefix[:-1] + chr(_SURROGATES_END if point == _SURROGATES_START else point)
        prefix = prefix[:-1]
    return None


def check_key(key: str) -> None:
    """Raises ValueError for what cannot be stored as text (half a surrogate pair)."""
    if not key.isascii():
        key.encode()


def check_readable(revision: int, oldest: int, newest: int) -> None:
    """Raises Compacted or FutureRevision when the state as of `revision` cannot be told; 0 (now) always can."""
    if revision > newest:
        raise FutureRevision(f"revision {revision} is not written yet, the newest one is {newest}")
    if revision and revision < oldest:
        raise Compacted(revision, oldest)


def compaction_target(seen: int, newest: int, keep: int) -> int:
    """How far to compact: nothing newer than `seen` (the newest revision of the last visit), nor the newest `keep`."""
    return max(0, min(seen, newest - keep))
