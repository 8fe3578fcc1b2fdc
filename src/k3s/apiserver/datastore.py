"""The store as the API server uses it: a datastore that cannot answer becomes 503, here and nowhere else.

504 Timeout when a commit broke half-way: to clients that is the answer after which a request may have been done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from k3s.api.errors import ServiceUnavailable, Timeout
from k3s.store.interface import Entries, Entry, Events, Store, Subscriber, Unavailable, Uncertain

T = TypeVar("T")
#: Whether the value of a key should be written again.
Stale = Callable[[str], Awaitable[bool]]


async def _answered(work: Awaitable[T]) -> T:
    try:
        return await work
    except Uncertain as error:
        raise Timeout(f"it is not known whether this was done: {error}", {}) from error
    except Unavailable as error:
        raise ServiceUnavailable(f"the datastore is not available: {error}", {}) from error


class Datastore:
    """A Store whose Unavailable is raised as ServiceUnavailable; conflicts and compaction pass as they are."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def is_stale(self) -> Stale | None:
        """Tells of a key whether its value would be sealed in another way today; None where nothing is sealed."""
        ask: Stale | None = getattr(self._store, "is_stale", None)  # only `encryption.sealed` has it
        return (lambda key: _answered(ask(key))) if ask is not None else None

    async def open(self) -> None:
        """See Store.open; at the start Unavailable is the caller's to tell."""
        await self._store.open()

    async def close(self) -> None:
        """See Store.close."""
        await self._store.close()

    def revision(self) -> int:
        """See Store.revision."""
        return self._store.revision()

    def oldest(self) -> int:
        """See Store.oldest."""
        return self._store.oldest()

    def problem(self) -> str:
        """See Store.problem."""
        return self._store.problem()

    def subscribe(self, subscriber: Subscriber) -> None:
        """See Store.subscribe."""
        self._store.subscribe(subscriber)

    async def put(self, key: str, value: bytes, expected: int) -> int:
        """See Store.put."""
        return await _answered(self._store.put(key, value, expected))

    async def delete(self, key: str, expected: int) -> int:
        """See Store.delete."""
        return await _answered(self._store.delete(key, expected))

    async def get(self, key: str, revision: int = 0) -> Entry | None:
        """See Store.get."""
        return await _answered(self._store.get(key, revision))

    async def list(self, prefix: str, revision: int = 0, after: str = "", limit: int = 0) -> tuple[int, Entries]:
        """See Store.list."""
        return await _answered(self._store.list(prefix, revision, after, limit))

    async def events(self, prefix: str, after: int, limit: int = 0) -> Events:
        """See Store.events."""
        return await _answered(self._store.events(prefix, after, limit))

    async def compact(self, revision: int) -> None:
        """See Store.compact."""
        await _answered(self._store.compact(revision))
