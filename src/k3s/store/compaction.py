"""Keeps the datastore's history short: every few minutes, what nobody can still be reading is forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from k3s.store.interface import Store, Unavailable
from k3s.store.log import compaction_target

log = logging.getLogger(__name__)

# What clients of the API are used to: a watch can be resumed and a list paged for five minutes at least.
EVERY_S = 300.0
# A quiet cluster keeps more than five minutes: a client that comes back finds its revision.
KEEP_NEWEST = 1000


class Compactor:
    """A service that compacts to where the store stood at its last visit: history lives for one to two rounds."""

    def __init__(self, store: Store, *, every_s: float = EVERY_S, keep: int = KEEP_NEWEST) -> None:
        self._store = store
        self._every_s = every_s
        self._keep = keep

    async def run(self, ready: Callable[[], None]) -> None:
        """Runs until cancelled. A round without writes since the last one does nothing."""
        ready()
        seen = self._store.revision()
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            # From begin to begin: rounds that take long must not let history grow longer.
            due = max(due + self._every_s, loop.time())
            await asyncio.sleep(due - loop.time())
            newest = self._store.revision()
            target = compaction_target(seen, newest, self._keep)
            seen = newest
            if target <= self._store.oldest():
                continue
            try:
                await self._store.compact(target)
            except Unavailable as error:
                log.warning("%s; compaction is tried again in %d s", error, self._every_s)
