"""Objects with a time to live: Events go an hour after they were last written (kube-apiserver's --event-ttl).

Nothing is kept about any of them. A few marks say which revision was written when; an object of an earlier life of the
server is as old as the newest time in its text. The one timer waits for the oldest, or for the first to come.
"""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_right
from collections.abc import Callable

from k3s.api import times
from k3s.api.errors import ApiError
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.apiserver.cache import Cache, Change, Item
from k3s.apiserver.crud import Crud
from k3s.base.clock import Clock

# Quotes within texts are escaped in JSON, so this finds values that are times and nothing else.
_TIMES = re.compile(rb'":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?Z"')
# Marks within one time to live: objects live longer by up to this part of it.
_MARKS = 120
_LEAST_WAIT_S = 1.0
# Looked at in one turn of the loop, and deleted together: in one transaction of the datastore, without a long turn.
_AT_ONCE, _TOGETHER = 1000, 16


class Expiry:
    """A service that deletes the objects of one kind `ttl_s` seconds after their last write; 0 keeps them for ever."""

    def __init__(self, cache: Cache, crud: Crud, kind: Kind, ttl_s: float, clock: Clock) -> None:
        self._cache = cache
        self._crud = crud
        self._kind = kind
        self._ttl_s = ttl_s
        self._step_s = ttl_s / _MARKS
        self._clock = clock
        # What is newer than the last mark is younger than one step; objects between two are as old as the older mark.
        self._revisions: list[int] = []
        self._times: list[float] = []
        self._began = 0.0

    async def run(self, ready: Callable[[], None]) -> None:
        """Runs until cancelled."""
        self._began = self._clock.now()
        if self._ttl_s:
            self._cache.listen(self._kind, self._mark)
        ready()
        while self._ttl_s:
            oldest = await self._sweep()
            if oldest is None:
                await self._first()
            else:
                wait = oldest + self._ttl_s + self._step_s - self._clock.now()
                await asyncio.sleep(max(wait, _LEAST_WAIT_S))
        await asyncio.Event().wait()

    def _mark(self, change: Change) -> None:
        now = self._clock.now()
        if not self._times or now - self._times[-1] > self._step_s:
            self._revisions.append(change.revision)
            self._times.append(now)
            del self._revisions[: -2 * _MARKS], self._times[: -2 * _MARKS]

    def _written_at(self, item: Item) -> float:
        """When an object was last written, in seconds since 1970, at most one step early."""
        at = bisect_right(self._revisions, item.revision) - 1
        if at >= 0:
            return self._times[at]
        newest: bytes = max(_TIMES.findall(item.tail), default=b"1970-01-01T00:00:00")
        return min(times.parse(f"{newest.decode()}Z"), self._began)

    async def _first(self) -> None:
        bucket = self._cache.bucket(self._kind)
        while not bucket.count:
            await self._cache.reached(self._cache.revision + 1)

    async def _sweep(self) -> float | None:
        """Deletes what is due; when the oldest that stays was written, None when none does."""
        oldest: float | None = None
        items = [item for space in self._cache.bucket(self._kind).spaces.values() for item in space.values()]
        for start in range(0, len(items), _AT_ONCE):
            due = self._clock.now() - self._ttl_s - self._step_s
            ages = [(self._written_at(item), item) for item in items[start : start + _AT_ONCE]]
            late = [(at, item) for at, item in ages if at <= due]
            kept = [at for at, _ in ages if at > due]
            for first in range(0, len(late), _TOGETHER):
                together = late[first : first + _TOGETHER]
                gone = await asyncio.gather(*(self._delete(item) for _, item in together))
                kept += [at for (at, _), done in zip(together, gone, strict=True) if not done]
            oldest = min([*kept, *(() if oldest is None else (oldest,))], default=None)
            await asyncio.sleep(0)
        return oldest

    async def _delete(self, item: Item) -> bool:
        """Deletes an object unless it was written since; False when the datastore does not take it now."""

        def mutate(old: Object | None) -> Object | None:
            return None if old is None or old["metadata"]["resourceVersion"] == str(item.revision) else old

        try:
            await self._crud.commit(self._kind, item.namespace, item.name, mutate)
        except ApiError:
            return False
        return True
