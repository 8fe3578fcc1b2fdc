"""A store whose values are sealed: those above see plain ones, the datastore below does not."""

from __future__ import annotations

from k3s.apiserver.encryption.keyring import Keyring, Unreadable
from k3s.store.interface import Compacted, Entries, Entry, Event, Events, KeyConflict, Store, Subscriber, Unavailable

# Values that are written again go past in pages of this size.
_PAGE = 500
_EVERYTHING = "/registry/"


class Sealed:
    """See `store.interface.Store`; a value that cannot be unsealed is Unavailable."""

    def __init__(self, store: Store, keys: Keyring) -> None:
        self._store = store
        self._keys = keys
        self._trouble = ""

    async def open(self) -> None:
        """See Store.open."""
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
        """See Store.problem; a value that could not be unsealed is one."""
        return self._store.problem() or self._trouble

    def subscribe(self, subscriber: Subscriber) -> None:
        """See Store.subscribe."""
        self._store.subscribe(lambda events: subscriber([self._plain_event(event) for event in events]))

    async def put(self, key: str, value: bytes, expected: int) -> int:
        """See Store.put."""
        return await self._store.put(key, self._keys.seal(key, value), expected)

    async def delete(self, key: str, expected: int) -> int:
        """See Store.delete."""
        return await self._store.delete(key, expected)

    async def get(self, key: str, revision: int = 0) -> Entry | None:
        """See Store.get."""
        entry = await self._store.get(key, revision)
        return None if entry is None else self._plain(entry)

    async def list(self, prefix: str, revision: int = 0, after: str = "", limit: int = 0) -> tuple[int, Entries]:
        """See Store.list."""
        at, entries = await self._store.list(prefix, revision, after, limit)
        return at, [self._plain(entry) for entry in entries]

    async def events(self, prefix: str, after: int, limit: int = 0) -> Events:
        """See Store.events; history that no present key unseals is as good as compacted."""
        found = await self._store.events(prefix, after, limit)
        try:
            return [self._unsealed(event) for event in found]
        except Unreadable:
            raise Compacted(after, self.revision()) from None

    async def compact(self, revision: int) -> None:
        """See Store.compact."""
        await self._store.compact(revision)

    async def reseal(self) -> int:
        """Writes every value again that is not sealed as it would be today; how many. Raises Unavailable."""
        count, after = 0, ""
        while True:
            _, entries = await self._store.list(_EVERYTHING, 0, after, _PAGE)
            for entry in entries:
                if not self._keys.sealed_by(entry.key, entry.value):
                    count += await self._again(entry)
            if len(entries) < _PAGE:
                return count
            after = entries[-1].key

    async def _again(self, entry: Entry) -> int:
        plain = self._plain(entry)
        try:
            await self._store.put(entry.key, self._keys.seal(entry.key, plain.value), entry.revision)
        except KeyConflict:
            return 0  # somebody else wrote it meanwhile, and so sealed it
        return 1

    def _plain(self, entry: Entry) -> Entry:
        try:
            return entry._replace(value=self._keys.unseal(entry.key, entry.value))
        except Unreadable as error:
            self._trouble = str(error)
            raise Unavailable(self._trouble) from error

    def _unsealed(self, event: Event) -> Event:
        value, previous = event.value, event.previous
        if value is not None:
            value = self._keys.unseal(event.key, value)
        if previous is not None:
            previous = previous._replace(value=self._keys.unseal(event.key, previous.value))
        return event._replace(value=value, previous=previous)

    def _plain_event(self, event: Event) -> Event:
        """A new event; what stood there before may be from a time of other keys, and nobody above asks for it."""
        value = event.value
        return event if value is None else event._replace(value=self._keys.unseal(event.key, value))
