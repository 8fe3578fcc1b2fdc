"""The datastore: an ordered, revisioned log of keys and bytes with compare-and-swap.

Contract, which every implementation is tested against:

- Revisions are whole numbers that only grow; each successful write of one key takes exactly one.
- A write names the revision of the key that it replaces (0: the key must not exist); any other state is a conflict.
- A write is answered after it is durable, and after its event was handed to the subscriber, in order of revision.
- The subscriber sees every event after the revision it started from, exactly once, in order, without gaps.
- History can be read at any revision that is not compacted yet.

Values are opaque here. A key is a path such as `/registry/core/pods/default/web`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol


class Entry(NamedTuple):
    """A key with its value, the revision that wrote it and the one that created it."""

    key: str
    value: bytes
    revision: int
    created: int


class Event(NamedTuple):
    """One write: `value` is None for a deletion, `previous` is what stood there before (None: a creation)."""

    revision: int
    key: str
    value: bytes | None
    previous: Entry | None
    created: int


class StoreError(Exception):
    """Whatever the store refuses or cannot do."""


class KeyConflict(StoreError):
    """The key is not at the expected revision; `current` is what is there (None: nothing)."""

    def __init__(self, key: str, current: Entry | None) -> None:
        super().__init__(f"{key} is at revision {current.revision if current else 0}")
        self.key = key
        self.current = current


class Compacted(StoreError):
    """The revision asked for is older than the oldest one kept (`oldest`)."""

    def __init__(self, revision: int, oldest: int) -> None:
        super().__init__(f"revision {revision} is compacted, the oldest one kept is {oldest}")
        self.revision = revision
        self.oldest = oldest


class FutureRevision(StoreError):
    """The revision asked for has not been written yet."""


class Unavailable(StoreError):
    """The datastore cannot be read or written now (disk full, disk read-only, connection lost); says why."""


class Uncertain(Unavailable):
    """A commit failed half-way: whether its writes were made shows only when the datastore can be read again."""


Subscriber = Callable[[Sequence[Event]], None]
Entries = list[Entry]
Events = list[Event]


class Store(Protocol):
    """What the API server asks of a datastore. Coroutines run on the loop that called `open`."""

    async def open(self) -> None:
        """Connects or opens files and makes the schema. Raises Unavailable."""

    async def close(self) -> None:
        """Finishes what was accepted, then closes."""

    def revision(self) -> int:
        """The newest revision that is durable and has been handed to the subscriber."""

    def oldest(self) -> int:
        """The oldest revision from which events and history can still be read."""

    def problem(self) -> str:
        """Why the last write could not be made, empty when it could: for health checks."""

    def subscribe(self, subscriber: Subscriber) -> None:
        """Calls `subscriber` on the loop with each batch of new events from now on; one subscriber at a time."""

    async def put(self, key: str, value: bytes, expected: int) -> int:
        """Writes a key that is at revision `expected` (0: absent); its revision. Raises KeyConflict, Unavailable,
        Uncertain."""

    async def delete(self, key: str, expected: int) -> int:
        """Deletes a key that is at revision `expected`; the deletion's revision. Raises KeyConflict, Unavailable."""

    async def get(self, key: str, revision: int = 0) -> Entry | None:
        """The key as of `revision` (0: now). Raises Compacted, FutureRevision, Unavailable."""

    async def list(self, prefix: str, revision: int = 0, after: str = "", limit: int = 0) -> tuple[int, Entries]:
        """The entries whose key starts with `prefix`, in order of key, as of `revision` (0: now).

        Only keys greater than `after`, at most `limit` (0: all). Answers the revision that was read, too.
        Raises Compacted, FutureRevision, Unavailable.
        """

    async def events(self, prefix: str, after: int, limit: int = 0) -> Events:
        """The events after revision `after` of keys with this prefix, in order. Raises Compacted, Unavailable."""

    async def compact(self, revision: int) -> None:
        """Forgets history before `revision`: superseded values and old deletions. Never what is current."""
