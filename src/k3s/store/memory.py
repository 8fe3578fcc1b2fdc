"""The datastore in memory: the reference that the others are compared with, and what the simulation runs on.

Nothing waits here, so each call takes effect at once; it lives and dies with its process.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

from k3s.store.interface import Compacted, Entries, Entry, Event, Events, KeyConflict, Subscriber, Unavailable
from k3s.store.log import check_key, check_readable, prefix_end


class MemoryStore:
    """A Store without a disk."""

    def __init__(self) -> None:
        self._open = False
        self._revision = 0
        self._oldest = 0
        self._events: list[Event] = []
        # Every key that history knows, in order, with its states by revision; None is a deletion.
        self._keys: list[str] = []
        self._states: dict[str, list[tuple[int, Entry | None]]] = {}
        self._subscriber: Subscriber | None = None

    async def open(self) -> None:
        """Opens; a closed one comes back as it was, as a disk would."""
        self._open = True

    async def close(self) -> None:
        """Closes; later calls raise Unavailable."""
        self._open = False

    def revision(self) -> int:
        """The newest revision."""
        return self._revision

    def oldest(self) -> int:
        """The oldest revision that can be read."""
        return self._oldest

    def problem(self) -> str:
        """Nothing ever is wrong with memory."""
        return ""

    def subscribe(self, subscriber: Subscriber) -> None:
        """Hands each new event to `subscriber` before the write is answered."""
        self._subscriber = subscriber

    async def put(self, key: str, value: bytes, expected: int) -> int:
        """Writes a key that is at revision `expected` (0: absent). Raises KeyConflict."""
        return self._write(key, value, expected)

    async def delete(self, key: str, expected: int) -> int:
        """Deletes a key that is at revision `expected`. Raises KeyConflict."""
        return self._write(key, None, expected)

    def _write(self, key: str, value: bytes | None, expected: int) -> int:
        self._check_open()
        check_key(key)
        current = self._at(key, self._revision)
        at = current.revision if current else 0
        if at != expected or (current is None and value is None):
            raise KeyConflict(key, current)
        self._revision = revision = self._revision + 1
        created = current.created if current else revision
        if key not in self._states:
            insort(self._keys, key)
            self._states[key] = []
        self._states[key].append((revision, None if value is None else Entry(key, value, revision, created)))
        event = Event(revision, key, value, current, created)
        self._events.append(event)
        if self._subscriber is not None:
            self._subscriber([event])
        return revision

    async def get(self, key: str, revision: int = 0) -> Entry | None:
        """The key as of `revision` (0: now). Raises Compacted, FutureRevision."""
        self._check_open()
        check_readable(revision, self._oldest, self._revision)
        return self._at(key, revision or self._revision)

    async def list(self, prefix: str, revision: int = 0, after: str = "", limit: int = 0) -> tuple[int, Entries]:
        """The entries with this prefix as of `revision`, in order of key. Raises Compacted, FutureRevision."""
        self._check_open()
        check_readable(revision, self._oldest, self._revision)
        revision = revision or self._revision
        start = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after) if after else 0)
        end = prefix_end(prefix)
        stop = len(self._keys) if end is None else bisect_left(self._keys, end)
        found: list[Entry] = []
        for position in range(start, stop):
            entry = self._at(self._keys[position], revision)
            if entry is not None:
                found.append(entry)
                if len(found) == limit:
                    break
        return revision, found

    async def events(self, prefix: str, after: int, limit: int = 0) -> Events:
        """The events after revision `after` with this prefix. Raises Compacted."""
        self._check_open()
        if after < self._oldest:
            raise Compacted(after, self._oldest)
        start = bisect_right(self._events, after, key=lambda event: event.revision)
        found = [event for event in self._events[start:] if event.key.startswith(prefix)]
        return found[:limit] if limit else found

    async def compact(self, revision: int) -> None:
        """Forgets history before `revision`. Never what is current."""
        self._check_open()
        revision = min(revision, self._revision)
        if revision <= self._oldest:
            return
        self._oldest = revision
        start = bisect_right(self._events, revision, key=lambda event: event.revision)
        touched = {event.key for event in self._events[:start]}
        del self._events[:start]
        for key in touched:
            states = self._states[key]
            last = bisect_right(states, revision, key=lambda state: state[0]) - 1
            del states[: last + (states[last][1] is None)]
            if not states:
                del self._states[key]
                del self._keys[bisect_left(self._keys, key)]

    def _at(self, key: str, revision: int) -> Entry | None:
        states = self._states.get(key)
        if not states:
            return None
        last = bisect_right(states, revision, key=lambda state: state[0]) - 1
        return states[last][1] if last >= 0 else None

    def _check_open(self) -> None:
        if not self._open:
            raise Unavailable("Cannot use the datastore: it is closed")
