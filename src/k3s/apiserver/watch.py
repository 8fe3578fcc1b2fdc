"""Watches: what a change means to a watcher, and who has to be told.

The meaning is pure (`transition`, `Scope`). Watchers have bounded queues: one that does not keep up is closed, and its
client resumes from its last revision. The writer never waits for a reader.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from k3s.api.errors import ApiError
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.api.selectors import FieldSelector, LabelSelector
from k3s.apiserver.cache import Bucket, Change, Item
from k3s.base.message import Sink, chunk
from k3s.client.transport import WatchEvent

if TYPE_CHECKING:
    from k3s.apiserver.hub import Hub

ADDED, MODIFIED, DELETED, BOOKMARK, ERROR = "ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"
# Changes, and bytes of them, that may wait for one slow reader.
QUEUE = 1024
QUEUED_BYTES = 16 << 20
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


def transition(before: bool, after: bool) -> str | None:
    """What a write means to a watcher whose selector matched (`before`) the old and (`after`) the new object."""
    if after:
        return MODIFIED if before else ADDED
    return DELETED if before else None


@dataclass(frozen=True, slots=True)
class Scope:
    """Which objects of a kind a request is about; `namespace` is empty for all of them."""

    namespace: str = ""
    name: str = ""
    labels: LabelSelector | None = None
    fields: FieldSelector | None = None

    def matches(self, item: Item) -> bool:
        """Whether an object belongs to it."""
        if self.namespace and item.namespace != self.namespace:
            return False
        if self.name and item.name != self.name:
            return False
        if self.labels is not None and not self.labels.matches(item.obj["metadata"].get("labels") or {}):
            return False
        return self.fields is None or self.fields.matches(item.obj)

    def event(self, change: Change) -> tuple[str, Item] | None:
        """What a change means here: the type of event and the object that it tells of."""
        old, item = change.old, change.item
        before = old is not None and self.matches(old)
        kind = transition(before, not change.deleted and self.matches(item))
        if kind is None:
            return None
        if kind == DELETED and not change.deleted and old is not None:
            return kind, old.restamped(change.revision)
        return kind, item


class Encoding(Protocol):
    """How events become bytes for one media type; `key` tells encodings apart."""

    key: Any

    def event(self, type: str, item: Item) -> bytes:
        """One event about an object."""

    def bookmark(self, revision: int, initial_end: bool) -> bytes:
        """A bookmark."""

    def error(self, error: ApiError) -> bytes:
        """The end of a watch that cannot go on."""


# Bytes of one chunk, and the last revision it tells of, by what its watchers have in common.
Shared = dict[Any, tuple[bytes, int]]


class Watcher:
    """One watch: hears of the changes of a bucket after revision `after`."""

    def __init__(self, hub: Hub, bucket: Bucket, kind: Kind, scope: Scope, bookmarks: bool) -> None:
        self.hub = hub
        self.bucket = bucket
        self.kind = kind
        self.scope = scope
        self.bookmarks = bookmarks
        self.after = 0
        #: The newest revision that the client knows of.
        self.told = 0

    def take(self, changes: Sequence[Change]) -> None:
        """Hears of changes, in order."""
        raise NotImplementedError

    def hear(self, changes: Sequence[Change], shared: Shared) -> None:
        """As `take`; `shared` is what watchers that are all told the same have made of these changes."""
        self.take(changes)

    def bookmark(self, revision: int) -> None:
        """Hears that nothing more happened up to `revision`."""
        raise NotImplementedError

    def fail(self, error: ApiError) -> None:
        """Ends the watch: what happened cannot be told."""
        self.close()

    def close(self) -> None:
        """Ends the watch from the server's side."""
        raise NotImplementedError

    def join(self, after: int) -> None:
        """From now on hears of changes after `after`."""
        self.after = self.told = after
        self.hub.joined(self)

    def leave(self) -> None:
        """Hears no more."""
        self.hub.left(self)


class Begin:
    """Where a watch starts: what is there (`items`, as ADDED), then `changes`, then everything after `revision`.

    `initial_end` is the revision of the bookmark that ends what is there, 0 when nobody asked for one.
    """

    __slots__ = ("changes", "error", "initial_end", "items", "revision")

    def __init__(
        self,
        revision: int,
        items: Sequence[Item] = (),
        changes: Sequence[Change] = (),
        initial_end: int = 0,
        error: ApiError | None = None,
    ) -> None:
        self.revision = revision
        self.items = items
        self.changes = changes
        self.initial_end = initial_end
        self.error = error


class HttpWatch(Watcher):
    """A watch over HTTP: writes at once while the reader keeps up. It is the source of a stream."""

    def __init__(
        self,
        hub: Hub,
        bucket: Bucket,
        kind: Kind,
        scope: Scope,
        bookmarks: bool,
        encoding: Encoding,
        begin: Begin,
        timeout_s: float,
    ) -> None:
        super().__init__(hub, bucket, kind, scope, bookmarks)
        self._encoding = encoding
        self._begin: Begin | None = begin
        self._timeout_s = timeout_s
        self._sink: Sink | None = None
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        plain = scope.labels is None and scope.fields is None
        self._alike: Any = (scope.namespace, scope.name) if plain else self
        # Nothing may happen between deciding where to begin and hearing of changes.
        if begin.error is None:
            self.join(begin.revision)
        self._early: list[Change] = []

    def start(self, sink: Sink) -> None:
        """Writes how the watch begins."""
        begin, self._begin = self._begin, None
        assert begin is not None
        self._sink = sink
        encoding = self._encoding
        if begin.error is not None:
            sink.write(encoding.error(begin.error))
            sink.end()
            return
        frames = [encoding.event(ADDED, item) for item in begin.items]
        if begin.initial_end:
            frames.append(encoding.bookmark(begin.initial_end, True))
        sink.write(b"".join(frames))
        self._timer = asyncio.get_running_loop().call_later(self._timeout_s, self._timed_out)
        self.take(begin.changes, fresh=False)
        early, self._early = self._early, []
        self.take(early)

    def hear(self, changes: Sequence[Change], shared: Shared) -> None:
        sink = self._sink
        if sink is None or sink.paused or self._queue or changes[0].revision <= self.after:
            self.take(changes)
            return
        alike = self._alike, self._encoding.key
        found = shared.get(alike)
        if found is None:
            frames = self._frames(changes, True)
            found = shared[alike] = (chunk(b"".join(frames)) if frames else b"", self.told)
        framed, told = found
        if framed:
            self.told = told
            sink.write_chunk(framed)

    def take(self, changes: Sequence[Change], fresh: bool = True) -> None:
        sink = self._sink
        if sink is None:
            if self._begin is not None:
                self._early.extend(changes)
            return
        frames = self._frames(changes, fresh)
        if not frames:
            return
        if not sink.paused and not self._queue:
            sink.write(frames[0] if len(frames) == 1 else b"".join(frames))
            return
        self._queue.extend(frames)
        self._queued_bytes += sum(map(len, frames))
        if len(self._queue) > QUEUE or self._queued_bytes > QUEUED_BYTES:
            self.close()

    def _frames(self, changes: Sequence[Change], fresh: bool) -> list[bytes]:
        frames = []
        scope, encoding, after = self.scope, self._encoding, self.after
        for change in changes:
            if fresh and change.revision <= after:
                continue
            found = scope.event(change)
            if found is not None:
                kind, item = found
                if item is change.item:
                    frames.append(change.frame((kind, encoding.key), encoding, kind))
                else:
                    frames.append(encoding.event(kind, item))
                self.told = change.revision
        return frames

    def bookmark(self, revision: int) -> None:
        if self._sink is not None and not self._sink.paused and not self._queue and revision > self.told:
            self.told = revision
            self._sink.write(self._encoding.bookmark(revision, False))

    def fail(self, error: ApiError) -> None:
        if self._sink is not None:
            self._sink.write(self._encoding.error(error))
            self._sink.end()

    def resumed(self) -> None:
        """The reader caught up: what waited goes out."""
        if self._sink is not None and self._queue:
            data = b"".join(self._queue)
            self._queue.clear()
            self._queued_bytes = 0
            self._sink.write(data)

    def stop(self) -> None:
        """The connection is gone or the stream ended."""
        self._sink = None
        self._begin = None
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.leave()

    def close(self) -> None:
        if self._sink is not None:
            self._sink.end()

    def _timed_out(self) -> None:
        if self.bookmarks:
            self.hub.cache.flush()
            self.bookmark(self.hub.cache.revision)
        self.close()


class LocalWatch(Watcher):
    """A watch of this process: an async iterator of events that carry the shared dicts."""

    def __init__(
        self, hub: Hub, bucket: Bucket, kind: Kind, scope: Scope, bookmarks: bool, begin: Begin, timeout_s: float = 0
    ) -> None:
        super().__init__(hub, bucket, kind, scope, bookmarks)
        self._queue: deque[WatchEvent] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._open = True
        self._timer: asyncio.TimerHandle | None = None
        if begin.error is not None:
            raise begin.error
        for item in begin.items:
            self._queue.append(WatchEvent(ADDED, hub.cache.as_kind(item, kind)))
        if begin.initial_end:
            self._queue.append(WatchEvent(BOOKMARK, bookmark_object(kind, begin.initial_end, True)))
        self.take(begin.changes)
        self.join(begin.revision)
        if timeout_s:
            self._timer = asyncio.get_running_loop().call_later(timeout_s, self.close)

    def take(self, changes: Sequence[Change]) -> None:
        convert, scope = self.hub.cache.as_kind, self.scope
        for change in changes:
            if change.revision <= self.after:
                continue
            found = scope.event(change)
            if found is not None:
                self._queue.append(WatchEvent(found[0], convert(found[1], self.kind)))
                self.told = change.revision
        if len(self._queue) > QUEUE:
            # The reader lists again: what it would have read is older than what it gets then.
            self.close()
        self._notify()

    def bookmark(self, revision: int) -> None:
        if self.bookmarks and revision > self.told:
            self.told = revision
            self._queue.append(WatchEvent(BOOKMARK, bookmark_object(self.kind, revision, False)))
            self._notify()

    def close(self) -> None:
        self._open = False
        self._notify()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def __aiter__(self) -> AsyncIterator[WatchEvent]:
        return self

    async def __anext__(self) -> WatchEvent:
        while not self._queue:
            if not self._open:
                await self.aclose()
                raise StopAsyncIteration
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        return self._queue.popleft()

    async def aclose(self) -> None:
        """Ends the watch from the reader's side."""
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
        self.leave()


def bookmark_object(kind: Kind, revision: int, initial_end: bool) -> Object:
    """What a bookmark carries: nothing but a revision."""
    meta: Object = {"resourceVersion": str(revision)}
    if initial_end:
        meta["annotations"] = {INITIAL_EVENTS_END: "true"}
    return {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta}
