"""All watches of the server: who hears of which change, where one begins, and when all of a kind end."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import Any

from k3s.api.errors import ApiError, Expired
from k3s.api.kinds import Kind
from k3s.apiserver.cache import Bucket, Cache, Change
from k3s.apiserver.conversion import Conversions
from k3s.apiserver.feed import Feed
from k3s.apiserver.watch import Begin, Scope, Shared, Watcher
from k3s.base.aio import Tasks
from k3s.store.interface import Compacted, Store

BOOKMARK_EVERY_S = 60.0


class Hub:
    """All watches of the server: tells them of changes and sends bookmarks."""

    def __init__(self, cache: Cache, store: Store, conversions: Conversions) -> None:
        self.cache = cache
        self._store = store
        self._conversions = conversions
        self._feeds: dict[Kind, Feed] = {}
        self._tasks = Tasks("watch")
        self._all: dict[Watcher, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        cache.on_change(self._dispatch)

    def __len__(self) -> int:
        return len(self._all)

    def _dispatch(self, bucket: Bucket, changes: list[Change]) -> None:
        shared: Shared = {}
        for watcher in tuple(bucket.watchers):
            watcher.hear(changes, shared)

    def joined(self, watcher: Watcher) -> None:
        """A watch begins."""
        self._all[watcher] = None
        self._home(watcher)[watcher] = None
        if self._timer is None and watcher.bookmarks:
            self._timer = asyncio.get_running_loop().call_later(BOOKMARK_EVERY_S, self._bookmarks)

    def left(self, watcher: Watcher) -> None:
        """A watch is over."""
        self._all.pop(watcher, None)
        home = self._home(watcher)
        home.pop(watcher, None)
        if not home and watcher.kind.webhook is not None:
            watcher.bucket.watchers.pop(self._feeds.pop(watcher.kind), None)

    def _home(self, watcher: Watcher) -> dict[Any, None]:
        """Where a watcher stands to hear of changes."""
        kind = watcher.kind
        if kind.webhook is None:
            return watcher.bucket.watchers
        feed = self._feeds.get(kind)
        if feed is None:
            feed = self._feeds[kind] = Feed(kind, self._conversions, self._tasks)
            watcher.bucket.watchers[feed] = None
        return feed.watchers

    def _bookmarks(self) -> None:
        self._timer = None
        self.cache.flush()
        wanting = [watcher for watcher in self._all if watcher.bookmarks]
        for watcher in wanting:
            watcher.bookmark(self.cache.revision)
        if wanting:
            self._timer = asyncio.get_running_loop().call_later(BOOKMARK_EVERY_S, self._bookmarks)

    def close(self) -> None:
        """Ends every watch."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for watcher in tuple(self._all):
            watcher.close()

    def end(self, kinds: Iterable[Kind]) -> None:
        """Ends the watches of kinds that are served no more, once they were told of everything."""
        gone = {(kind.qualified, kind.version) for kind in kinds}
        asyncio.get_running_loop().call_soon(self._end, gone)

    def _end(self, gone: Collection[tuple[str, str]]) -> None:
        self.cache.flush()
        for watcher in tuple(self._all):
            if (watcher.kind.qualified, watcher.kind.version) in gone:
                watcher.close()

    async def begin(self, bucket: Bucket, scope: Scope, revision: int, initial: bool, initial_end: bool) -> Begin:
        """Where a watch starts: with what is there (`initial`), or after `revision`."""
        if initial:
            if revision:
                await self.cache.reached(revision)
            return self.present(bucket, scope, initial_end)
        return self.quick(bucket, revision) or await self._from_log(bucket, revision)

    def present(self, bucket: Bucket, scope: Scope, initial_end: bool) -> Begin:
        """A start with what is there."""
        items = [i for i in bucket.items(scope.namespace, everywhere=not scope.namespace) if scope.matches(i)]
        revision = self.cache.revision
        return Begin(revision, items, initial_end=revision if initial_end else 0)

    def quick(self, bucket: Bucket, revision: int) -> Begin | None:
        """A start after `revision` from the ring; None when only the log reaches back that far."""
        changes = bucket.since(revision)
        if changes is None:
            return None
        return Begin(max(revision, self.cache.revision), changes=changes)

    async def converted(self, kind: Kind, bucket: Bucket, scope: Scope, begin: Begin) -> Begin:
        """The same start for watchers of a kind that only a webhook can make, up to what happened meanwhile."""
        if begin.error is not None:
            return begin
        try:
            items = [i for i in await self._conversions.items(begin.items, kind) if scope.matches(i)]
            changes = await self._conversions.changes(begin.changes, kind)
            last = begin.revision
            while newer := bucket.since(last):
                changes += await self._conversions.changes(newer, kind)
                last = newer[-1].revision
        except ApiError as error:
            return Begin(0, error=error)
        if newer is None:
            return Begin(0, error=too_old(last, bucket.ring_from))
        return Begin(max(last, self.cache.revision), items, changes, begin.initial_end)

    async def _from_log(self, bucket: Bucket, revision: int) -> Begin:
        changes: list[Change] = []
        last = revision
        while True:
            # What is written while the log is read is not in the answer: it comes with the next one, or from the ring.
            upto = self.cache.revision
            try:
                events = await self._store.events(bucket.prefix, last)
            except Compacted as gone:
                return Begin(0, error=too_old(revision, gone.oldest))
            changes += [self._change(bucket, event) for event in events]
            last = events[-1].revision if events else max(last, upto)
            newer = bucket.since(last)
            if newer is not None:
                return Begin(self.cache.revision, changes=[*changes, *newer])

    def _change(self, bucket: Bucket, event: Any) -> Change:
        namespace, _, name = event.key[len(bucket.prefix) :].rpartition("/")
        before = event.previous
        old = before and self.cache.item(namespace, name, before.revision, before.created, before.value)
        if event.value is None:
            return Change(old.restamped(event.revision), old, True)
        item = self.cache.item(namespace, name, event.revision, event.created, event.value)
        return Change(item, old, False)


def too_old(revision: int, oldest: int) -> Expired:
    """The answer to a revision that nobody remembers."""
    return Expired(f"too old resource version: {revision} ({oldest})")
