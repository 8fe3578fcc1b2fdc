"""A component's picture of one kind: listed once, then kept true by a watch.

What it promises:

- each object goes through a subsequence of its true states, in order; there is no order between objects;
- whoever looks between two awaits sees one moment: object, indexes and `seen` change together;
- `seen` is the revision up to which the picture is true; it never goes back;
- objects are the server's and shared: nobody changes them, and neither does this.

A watch that ends is resumed from where it was; when that is too long ago, all is listed again and only the differences
are told.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, ValuesView

from k3s.api import object as objects
from k3s.api.errors import ApiError, Expired, Gone, OutcomeUnknown
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy, SystemEntropy
from k3s.client.client import Client
from k3s.client.transport import WatchEvent

log = logging.getLogger(__name__)

# What waits between tries, doubled up to the longest and then moved by up to half, so that clients do not come in step.
BACKOFF_FIRST_S, BACKOFF_LONGEST_S = 0.2, 30.0
# A watch that lived this long was a success, whatever ended it.
HEALTHY_S = 5.0

Callback = Callable[[str, "Object | None", "Object | None"], None]


class Informer:
    """Objects of `kind`, all or those in `namespace` and with these selectors, by `namespace/name`."""

    def __init__(
        self,
        client: Client,
        kind: Kind,
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        clock: Clock,
        entropy: Entropy | None = None,
    ) -> None:
        self.kind = kind
        self.objects: dict[str, Object] = {}
        self.seen = 0
        self.synced = False
        self._client = client
        self._namespace, self._labels, self._fields = namespace, labels, fields
        self._clock = clock
        self._entropy = entropy or SystemEntropy()
        self._resume = 0
        self._subscribers: list[Callback] = []
        self._indexes: dict[str, _Index] = {}
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._tickets = 0

    # --- what is there ---

    def get(self, key: str) -> Object | None:
        """The object `namespace/name` (or `name`), None when there is none."""
        return self.objects.get(key)

    def values(self) -> ValuesView[Object]:
        """Every object; a live view."""
        return self.objects.values()

    def add_index(self, name: str, function: Callable[[Object], Iterable[str]]) -> None:
        """Keeps objects findable by the values that `function` gives for each; objects already there are included.

        An object for which it raises is logged and found under no value.
        """

        def values(obj: Object) -> tuple[str, ...]:
            try:
                return tuple(function(obj))
            except Exception as error:  # noqa: BLE001 - one object that cannot be indexed must not end the rest
                self._report("Cannot index %s %s: %r", objects.key(obj), error)
                return ()

        index = self._indexes[name] = _Index(values)
        for key, obj in self.objects.items():
            index.change(key, None, obj)

    def index(self, name: str, value: str) -> list[Object]:
        """The objects that the index `name` has under `value`."""
        return [self.objects[key] for key in self._indexes[name].keys.get(value, ())]

    def subscribe(self, callback: Callback) -> None:
        """Calls `callback(key, old, new)` after each change from now on; None is absence. It must not wait.

        A callback that raises has a bug with that object: it is logged, and everybody else goes on.
        """
        self._subscribers.append(callback)

    async def wait_seen(self, revision: int) -> None:
        """Waits until the picture holds everything up to `revision`."""
        if self.seen >= revision:
            return
        self._tickets += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (revision, self._tickets, future))
        await future

    def release(self) -> None:
        """Lets everybody go on who waits in `wait_seen`: nobody will keep the picture true any more."""
        while self._waiters:
            future = heapq.heappop(self._waiters)[2]
            if not future.done():
                future.set_result(None)

    # --- keeping it true ---

    async def run(self, ready: Callable[[], None]) -> None:
        """Runs until cancelled; calls `ready` after the first list. Refusals and lost connections are tried again."""
        failures = 0
        listed = False
        while True:
            started, before = self._clock.monotonic(), self._resume
            problem: Exception | None = None
            try:
                if not listed:
                    await self._list()
                    listed = True
                    if not self.synced:
                        self.synced = True
                        ready()
                await self._watch()
            except (Expired, Gone) as error:
                listed = False
                problem = error
            except (ApiError, OutcomeUnknown) as error:
                problem = error
            moved = self._resume != before or self._clock.monotonic() - started >= HEALTHY_S
            failures = 0 if moved else failures + 1
            if failures == 1 and problem is not None:
                log.warning("Cannot follow %s: %s; trying again", self.kind.plural, problem)
            if failures:
                await asyncio.sleep(self._pause(failures, problem))

    def _pause(self, failures: int, problem: Exception | None) -> float:
        pause = min(BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 16), BACKOFF_LONGEST_S)
        if isinstance(problem, ApiError) and problem.retry_after_s:
            pause = max(pause, float(problem.retry_after_s))
        return pause * (1 + self._entropy.fraction() / 2)

    async def _list(self) -> None:
        page = await self._client.list(self.kind, self._namespace, labels=self._labels, fields=self._fields)
        found = {objects.key(obj): self._named(obj) for obj in page.items}
        changes: list[tuple[str, Object | None, Object | None]] = []
        for key in [key for key in self.objects if key not in found]:
            changes.append((key, self._put(key, None), None))
        for key, obj in found.items():
            old = self.objects.get(key)
            if old is None or objects.revision(old) != objects.revision(obj) or objects.uid(old) != objects.uid(obj):
                changes.append((key, self._put(key, obj), obj))
        self._advance(page.revision)
        for key, old, new in changes:
            self._tell(key, old, new)

    async def _watch(self) -> None:
        stream = self._client.watch(
            self.kind, self._namespace, revision=self._resume, labels=self._labels, fields=self._fields
        )
        try:
            async for event in stream:
                self._apply(event)
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    def _apply(self, event: WatchEvent) -> None:
        """One event, without an await: nobody sees half of it."""
        obj = event.object
        if event.type == "BOOKMARK":
            self._advance(objects.revision(obj))
            return
        key = objects.key(obj)
        new = None if event.type == "DELETED" else obj
        old = self._put(key, new)
        self._advance(objects.revision(obj))
        if old is not None or new is not None:
            self._tell(key, old, new)

    def _named(self, obj: Object) -> Object:
        # The items of a list may leave out what the list says for all of them.
        if "kind" in obj:
            return obj
        return {"apiVersion": self.kind.api_version, "kind": self.kind.kind, **obj}

    def _put(self, key: str, new: Object | None) -> Object | None:
        old = self.objects.get(key)
        if new is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = new
        for index in self._indexes.values():
            index.change(key, old, new)
        return old

    def _advance(self, revision: int) -> None:
        self._resume = revision
        if revision > self.seen:
            self.seen = revision
        while self._waiters and self._waiters[0][0] <= self.seen:
            future = heapq.heappop(self._waiters)[2]
            if not future.done():
                future.set_result(None)

    def _tell(self, key: str, old: Object | None, new: Object | None) -> None:
        for callback in self._subscribers:
            try:
                callback(key, old, new)
            except Exception as error:  # noqa: BLE001 - one object that a subscriber cannot take must not end the rest
                self._report("Cannot tell a change of %s %s: %r", key, error)

    def _report(self, text: str, key: str, error: Exception) -> None:
        log.error(text, self.kind.plural, key, error, exc_info=error)


class _Index:
    """Keys by value; a dict stands for an ordered set, so that the same seed gives the same order."""

    def __init__(self, function: Callable[[Object], tuple[str, ...]]) -> None:
        self._function = function
        self.keys: dict[str, dict[str, None]] = {}

    def change(self, key: str, old: Object | None, new: Object | None) -> None:
        """Moves `key` from the values of `old` to those of `new`."""
        before = self._function(old) if old is not None else ()
        after = self._function(new) if new is not None else ()
        if before == after:
            return
        for value in dict.fromkeys(before):
            if value not in after:
                keys = self.keys[value]
                del keys[key]
                if not keys:
                    del self.keys[value]
        for value in after:
            if value not in before:
                self.keys.setdefault(value, {})[key] = None
