"""A store whose values are sealed: those above see plain ones, the datastore below does not."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from k3s.apiserver.encryption.keyring import Keyring, Locked, Unreachable, Unreadable
from k3s.base.aio import Tasks
from k3s.store.interface import Compacted, Entries, Entry, Event, Events, KeyConflict, Store, Subscriber, Unavailable

log = logging.getLogger(__name__)
T = TypeVar("T")

# Values that are written again go past in pages of this size.
_PAGE = 500
_EVERYTHING = "/registry/"
# How often one value may need another key before it is told that it cannot be had.
_ATTEMPTS = 8
# How long events wait that nobody can unseal now.
_RETRY_S = 1.0


class Sealed:
    """See `store.interface.Store`; a value that cannot be unsealed is Unavailable."""

    def __init__(self, store: Store, keys: Keyring) -> None:
        self._store = store
        self._keys = keys
        # What could not be unsealed, and with which keys: others may do it.
        self._trouble = ("", 0)
        self._tasks = Tasks("sealed")
        self._held: deque[Sequence[Event]] = deque()
        self._subscriber: Subscriber = lambda events: None

    async def open(self) -> None:
        """See Store.open."""
        await self._store.open()

    async def close(self) -> None:
        """See Store.close."""
        await self._tasks.close()
        await self._store.close()

    def revision(self) -> int:
        """See Store.revision."""
        return self._held[0][0].revision - 1 if self._held else self._store.revision()

    def oldest(self) -> int:
        """See Store.oldest."""
        return self._store.oldest()

    def problem(self) -> str:
        """See Store.problem; a value that could not be unsealed is one."""
        trouble, keys = self._trouble
        return self._store.problem() or (trouble if keys == self._keys.changes else "")

    async def put(self, key: str, value: bytes, expected: int) -> int:
        """See Store.put."""
        return await self._store.put(key, await self._asked(self._keys.seal, key, value), expected)

    async def delete(self, key: str, expected: int) -> int:
        """See Store.delete."""
        return await self._store.delete(key, expected)

    async def get(self, key: str, revision: int = 0) -> Entry | None:
        """See Store.get."""
        entry = await self._store.get(key, revision)
        return None if entry is None else (await self._plain([entry], revision))[0]

    async def list(self, prefix: str, revision: int = 0, after: str = "", limit: int = 0) -> tuple[int, Entries]:
        """See Store.list."""
        at, entries = await self._store.list(prefix, revision, after, limit)
        plain = await self._plain(entries, revision)
        if self._held and not revision:
            await asyncio.wait([self._catching_up])  # who follows from here must not be told older events later
        return at, plain

    async def events(self, prefix: str, after: int, limit: int = 0) -> Events:
        """See Store.events; history that no present key unseals is as good as compacted."""
        found = await self._store.events(prefix, after, limit)
        try:
            return [await self._asked(self._unsealed, event) for event in found]
        except Unreadable:
            raise Compacted(after, self.revision()) from None

    async def compact(self, revision: int) -> None:
        """See Store.compact."""
        await self._store.compact(revision)

    # --- as it would be sealed today

    async def reseal(self) -> int:
        """Writes every value again that is not sealed as it would be today; how many. Raises Unavailable."""
        count, after = 0, ""
        while True:
            _, entries = await self._store.list(_EVERYTHING, 0, after, _PAGE)
            for entry in entries:
                if not await self._asked(self._keys.sealed_by, entry.key, entry.value):
                    count += await self._again(entry)
            if len(entries) < _PAGE:
                return count
            after = entries[-1].key

    async def is_stale(self, key: str) -> bool:
        """Whether a value is not sealed as it would be today, so that writing it again helps. Raises Unavailable."""
        entry = await self._store.get(key) if self._keys.has_rules(key) else None
        return entry is not None and not await self._asked(self._keys.sealed_by, key, entry.value)

    async def _again(self, entry: Entry) -> int:
        (plain,) = await self._plain([entry], 0)
        try:
            await self.put(entry.key, plain.value, entry.revision)
        except KeyConflict:
            return 0  # somebody else wrote it meanwhile, and so sealed it
        return 1

    # --- what was sealed

    async def _asked(self, work: Callable[..., T], *args: object) -> T:
        """What `work` answers, once who keeps the key has been asked. Raises Unreadable, Unavailable."""
        for _ in range(_ATTEMPTS):
            try:
                return work(*args)
            except Locked as locked:
                try:
                    await locked.ask()
                except Unreachable as error:
                    raise Unavailable(str(error)) from error
        raise Unavailable("the key of a sealed value changes faster than it can be used")

    async def _plain(self, entries: Entries, revision: int) -> Entries:
        plain = []
        for entry in entries:
            try:
                plain.append(entry._replace(value=await self._asked(self._keys.unseal, entry.key, entry.value)))
            except Unreadable as error:
                if revision:
                    raise Compacted(revision, self.revision()) from None  # as `events`
                self._trouble = str(error), self._keys.changes
                raise Unavailable(str(error)) from error
        return plain

    def _unsealed(self, event: Event) -> Event:
        value, previous = event.value, event.previous
        if value is not None:
            value = self._keys.unseal(event.key, value)
        if previous is not None:
            previous = previous._replace(value=self._keys.unseal(event.key, previous.value))
        return event._replace(value=value, previous=previous)

    # --- following

    def subscribe(self, subscriber: Subscriber) -> None:
        """See Store.subscribe; events that another server has sealed may have to wait for their key, in order."""
        self._subscriber = subscriber
        self._store.subscribe(self._hand_over)

    def _hand_over(self, events: Sequence[Event]) -> None:
        if not self._held:
            try:
                self._subscriber([self._plain_event(event) for event in events])
                return
            except (Locked, Unreadable):
                self._catching_up = self._tasks.spawn(self._later(), "events")
        self._held.append(events)

    async def _later(self) -> None:
        while self._held:
            try:
                plain = [await self._asked(self._plain_event, event) for event in self._held[0]]
            except (Unavailable, Unreadable) as error:
                self._trouble = f"events cannot be unsealed: {error}", self._keys.changes
                log.warning("Events wait for their key: %s", error)
                await asyncio.sleep(_RETRY_S)
                continue
            self._trouble = ("", 0)
            self._held.popleft()
            self._subscriber(plain)

    def _plain_event(self, event: Event) -> Event:
        """A new event; what stood there before may be from a time of other keys, and nobody above asks for it."""
        value = event.value
        return event if value is None else event._replace(value=self._keys.unseal(event.key, value))
