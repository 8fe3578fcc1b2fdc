"""The datastore as one process sees it: it takes time, what it had begun when it died never happens, the disk fails.

The disk fails as the SQLite datastore meets it (decision 0014): a full one refuses; one that stalls lets writes wait; a
commit that breaks is answered as uncertain, whether it was made shows once the file has been opened again, and until
then nothing can be written and nobody is told of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from k3s.base.entropy import Entropy
from k3s.sim.faults import Sky
from k3s.store.interface import (
    Entries,
    Entry,
    Event,
    Events,
    KeyConflict,
    Store,
    Subscriber,
    Unavailable,
    Uncertain,
)

WELL, FULL, STALLED, BROKEN = "is well", "is full", "stalls", "breaks commits"
FAULTS = (FULL, STALLED, BROKEN)


class Disk:
    """The disk of the datastore, the same one for every life of the server."""

    def __init__(self, entropy: Entropy) -> None:
        self.state = WELL
        self.entropy = entropy
        self._moving = asyncio.Event()
        self._well = asyncio.Event()
        self.goes(WELL)

    def goes(self, state: str) -> None:
        """How it is from now on."""
        self.state = state
        for event, wanted in ((self._moving, state != STALLED), (self._well, state == WELL)):
            if wanted:
                event.set()
            else:
                event.clear()

    async def moves(self) -> None:
        """Waits while it stalls."""
        await self._moving.wait()

    async def well(self) -> None:
        """Waits until nothing is wrong with it."""
        await self._well.wait()


class Session:
    """A Store in the hands of one process."""

    def __init__(self, inner: Store, sky: Sky, disk: Disk) -> None:
        self._inner = inner
        self._sky = sky
        self._disk = disk
        self._subscriber: Subscriber | None = None
        self._problem = ""
        # After a commit that broke: what was made all the same, and is told when the file was opened again.
        self._doubtful = False
        self._late: list[Event] = []
        self._settled = asyncio.Event()
        self.alive = True

    async def open(self) -> None:
        """Opens what it wraps."""
        await self._inner.open()

    async def close(self) -> None:
        """Ends this session; the store goes on for the next."""
        self.alive = False

    def revision(self) -> int:
        """The newest revision that was told."""
        return self._late[0].revision - 1 if self._late else self._inner.revision()

    def oldest(self) -> int:
        """The oldest revision that can be read."""
        return self._inner.oldest()

    def problem(self) -> str:
        """Why the last write could not be made."""
        return self._problem

    def subscribe(self, subscriber: Subscriber) -> None:
        """Hands each new event to `subscriber`, once it is known to be there."""
        self._subscriber = subscriber
        self._inner.subscribe(self._tell)

    def _tell(self, events: Sequence[Event]) -> None:
        if self._doubtful:
            self._late += events
        elif self._subscriber is not None:
            self._subscriber(events)

    async def put(self, key: str, value: bytes, expected: int) -> int:
        """Writes a key. Raises KeyConflict, Unavailable, Uncertain."""
        return await self._commit(partial(self._inner.put, key, value, expected))

    async def delete(self, key: str, expected: int) -> int:
        """Deletes a key. Raises KeyConflict, Unavailable, Uncertain."""
        return await self._commit(partial(self._inner.delete, key, expected))

    async def _commit(self, write: Callable[[], Awaitable[int]]) -> int:
        await self._lag(self._sky.weather.write_s / 2)
        await self._disk.moves()
        self._check()
        if self._disk.state == BROKEN and not self._doubtful:
            await self._break(write)
        self._check_disk()
        self.recovered()
        revision = await write()
        await self._lag(self._sky.weather.write_s / 2)
        return revision

    async def _break(self, write: Callable[[], Awaitable[int]]) -> None:
        self._doubtful = True
        self._settled.clear()
        if self._disk.entropy.fraction() < 0.5:
            with contextlib.suppress(KeyConflict):
                await write()
        self._problem = f"the disk {self._disk.state}"
        raise Uncertain(f"Cannot tell whether the datastore took this: {self._problem}")

    def _check_disk(self) -> None:
        if self._disk.state in (FULL, BROKEN):
            self._problem = f"the disk {self._disk.state}"
            raise Unavailable(f"Cannot write to the datastore: {self._problem}")

    def recovered(self) -> None:
        """The file was opened again: what is in it is told."""
        self._problem = ""
        if self._doubtful:
            self._doubtful = False
            late, self._late = self._late, []
            self._settled.set()
            if late:
                self._tell(late)

    async def get(self, key: str, revision: int = 0) -> Entry | None:
        """The key as of `revision`."""
        entry = await self._inner.get(key, revision)
        await self._told()
        return entry

    async def list(self, prefix: str, revision: int = 0, after: str = "", limit: int = 0) -> tuple[int, Entries]:
        """The entries with this prefix."""
        found = await self._inner.list(prefix, revision, after, limit)
        await self._told()
        return found

    async def events(self, prefix: str, after: int, limit: int = 0) -> Events:
        """The events after a revision."""
        upto = self.revision()
        # Read first, answered later: what is written meanwhile is not in it.
        found = [event for event in await self._inner.events(prefix, after, limit) if event.revision <= upto]
        await self._lag(self._sky.weather.read_s)
        return found

    async def compact(self, revision: int) -> None:
        """Forgets history before `revision`. Raises Unavailable."""
        await self._disk.moves()
        self._check()
        self._check_disk()
        await self._inner.compact(min(revision, self.revision()))

    async def _told(self) -> None:
        """A read sees what the subscriber is not told of yet: its answer waits for that."""
        if self._late:
            await self._settled.wait()
        await self._lag(self._sky.weather.read_s)

    async def _lag(self, most_s: float) -> None:
        if most_s:
            await asyncio.sleep(most_s * self._sky.entropy.fraction())
        self._check()

    def _check(self) -> None:
        if not self.alive:
            raise Unavailable("Cannot use the datastore: this process is gone")
