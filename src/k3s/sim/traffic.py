"""Clients that write, read and watch a few ConfigMaps at random, and note what they did and saw in a `History`.

They work over any transport: in the simulation, and over HTTPS against a server that is being killed. The values they
write are unlike each other, so that each write can be recognised wherever it turns up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from k3s.api.errors import AlreadyExists, ApiError, Conflict, Expired, Gone, NotFound, OutcomeUnknown, Timeout
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.base.aio import Tasks
from k3s.base.entropy import Entropy
from k3s.client.client import Client
from k3s.client.transport import Request, WatchEvent
from k3s.sim import history as h
from k3s.sim.audit import BOOKMARK
from k3s.sim.history import History, Operation, Seen, Stretch, Told, Watch

MAP = builtin("v1", "ConfigMap")
#: The share of values that watchers with a selector choose.
COLOURS = ("red", "green", "blue")
_END = "k8s.io/initial-events-end"
# Keys are few, so that clients meet; the chances are out of 100.
_KEYS = 6
_CHANCES = ((18, "get"), (8, "list"), (14, "create"), (25, "update"), (20, "patch"), (15, "remove"))
_LAST = "last"


class Traffic:
    """The clients of one namespace. `pause_s` lies between two requests of a client, at most."""

    def __init__(self, history: History, entropy: Entropy, namespace: str, pause_s: float) -> None:
        self.history = history
        self.entropy = entropy
        self.namespace = namespace
        self.pause_s = pause_s
        self._tasks = Tasks("traffic")
        self._workers: list[asyncio.Task[None]] = []
        self._followers: list[asyncio.Task[None]] = []
        self._count = 0
        self._stop = False
        self.last_revision = 0

    def start(self, client: Client, name: str) -> None:
        """Adds someone who writes and reads."""
        self._workers.append(self._tasks.spawn(self._work(client, name), name))

    def follow(
        self, client: Client, name: str, *, colour: str = "", initial: bool = False, key: str = "", lazy_s: float = 0
    ) -> None:
        """Adds a watcher; with `initial` it asks for initial events where others list first.

        A lazy one waits for up to so many seconds before it resumes: it may be too late.
        """
        watch = Watch(name)
        if colour:
            watch.matches = lambda seen: (seen.value or "").startswith(colour)
        elif key:
            watch.matches = lambda seen: seen.key == key
        self.history.watches.append(watch)
        follower = Follower(self, client, watch, colour, key, initial, lazy_s)
        self._followers.append(self._tasks.spawn(follower.run(), name))

    async def finish(self, client: Client) -> None:
        """Ends the clients, makes a last write of every colour, and waits until all watchers know of them."""
        self._stop = True
        await asyncio.gather(*self._workers)
        for colour in COLOURS:
            while not await self._last(client, colour):  # noqa: ASYNC110 - a request is tried again, nothing is polled
                await asyncio.sleep(self.pause_s)
        for watch in self.history.watches:
            watch.upto = self.last_revision
        await asyncio.gather(*self._followers)

    async def close(self) -> None:
        """Ends everything at once."""
        await self._tasks.close()

    async def _last(self, client: Client, colour: str) -> bool:
        key = f"{_LAST}-{colour}"
        operation = await self._write(client, "finish", key, h.NOTHING, self.value(colour))
        self.last_revision = max(self.last_revision, operation.revision)
        return operation.outcome in (h.OK, h.REFUSED)

    def value(self, colour: str = "") -> str:
        """A value that nobody has written before."""
        self._count += 1
        return f"{colour or COLOURS[self.entropy.below(len(COLOURS))]}-{self._count}"

    # --- a client

    async def _work(self, client: Client, name: str) -> None:
        names = [what for chance, what in _CHANCES for _ in range(chance)]
        while not self._stop:
            key = f"k{self.entropy.below(_KEYS)}"
            what = names[self.entropy.below(len(names))]
            if what == "list":
                await self._list(client, name)
            elif what == "create":
                await self._write(client, name, key, h.NOTHING, self.value())
            elif what == "patch":
                await self._write(client, name, key, h.ANY, self.value())
            else:
                await self._after_reading(client, name, key, what)
            await asyncio.sleep(self.pause_s * self.entropy.fraction())

    async def _after_reading(self, client: Client, name: str, key: str, what: str) -> None:
        read = await self.read(client, name, key)
        if not read.revision or what == "get":
            return
        await asyncio.sleep(self.pause_s * self.entropy.fraction() / 4)
        if what == "update":
            await self._write(client, name, key, read.revision, self.value())
        else:
            await self._remove(client, name, key, read.revision)

    async def read(self, client: Client, name: str, key: str) -> Operation:
        """Reads one key."""
        operation = self.history.begin(name, h.READ, key)
        try:
            seen = seen_of(await client.get(MAP, self.namespace, key))
            operation.value, operation.revision, operation.outcome = seen.value, seen.revision, h.OK
        except NotFound:
            operation.outcome = h.OK
        except (ApiError, OutcomeUnknown):
            operation.outcome = h.FAILED
        operation.ended = self.history.moment()
        return operation

    async def _list(self, client: Client, name: str) -> None:
        operation = self.history.begin(name, h.LIST)
        try:
            found = await client.list(MAP, self.namespace)
            operation.items, operation.revision = _items(found.items), found.revision
            operation.outcome = h.OK
        except (ApiError, OutcomeUnknown):
            operation.outcome = h.FAILED
        operation.ended = self.history.moment()

    async def _write(self, client: Client, name: str, key: str, expected: int, value: str) -> Operation:
        operation = self.history.begin(name, h.WRITE, key, value, expected)
        body = self._object(key, value)
        try:
            if expected == h.NOTHING:
                made = await client.create(MAP, body)
            elif expected == h.ANY:
                patch = {"metadata": {"labels": body["metadata"]["labels"]}, "data": body["data"]}
                made = await client.patch(MAP, self.namespace, key, patch)
            else:
                body["metadata"]["resourceVersion"] = str(expected)
                made = await client.update(MAP, body)
            operation.revision, operation.outcome = seen_of(made).revision, h.OK
        except (ApiError, OutcomeUnknown) as error:
            operation.outcome = outcome_of(error, expected)
        operation.ended = self.history.moment()
        return operation

    async def _remove(self, client: Client, name: str, key: str, expected: int) -> None:
        operation = self.history.begin(name, h.REMOVE, key, expected=expected)
        try:
            await client.delete(MAP, self.namespace, key, revision=expected)
            operation.outcome = h.OK
        except (ApiError, OutcomeUnknown) as error:
            operation.outcome = outcome_of(error, expected)
        operation.ended = self.history.moment()

    def _object(self, key: str, value: str) -> Object:
        meta = {"name": key, "namespace": self.namespace, "labels": {"colour": value.partition("-")[0]}}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"value": value}}


class Follower:
    """One watcher: lists, watches, resumes where it was, and lists again only when it is told to."""

    def __init__(
        self, traffic: Traffic, client: Client, watch: Watch, colour: str, key: str, initial: bool, lazy_s: float
    ) -> None:
        self._traffic = traffic
        self._client = client
        self._watch = watch
        self._labels = f"colour={colour}" if colour else ""
        self._fields = f"metadata.name={key}" if key else ""
        self._initial = initial
        self._lazy_s = lazy_s
        self._fresh = True

    async def run(self) -> None:
        """Follows until it knows what it has to know."""
        while not self._knows():
            try:
                if self._fresh and self._initial:
                    await self._begin_with_events()
                    continue
                if self._fresh:
                    await self._begin_with_list()
                else:
                    self._watch.stretches.append(Stretch(self._known()))
                await self._listen(self._stream(self._known()))
                await self._rest(0.0)
            except (Expired, Gone):
                self._fresh = True
            except (ApiError, OutcomeUnknown):
                await self._rest(self._traffic.pause_s)

    async def _rest(self, at_least_s: float) -> None:
        lazy_s = 0.0 if self._watch.upto else self._lazy_s * self._traffic.entropy.fraction()
        await asyncio.sleep(max(at_least_s, lazy_s))

    def _known(self) -> int:
        stretch = self._watch.stretches[-1]
        return max([stretch.after, *(told.seen.revision for told in stretch.events[-1:])])

    def _knows(self) -> bool:
        return bool(self._watch.upto and self._watch.stretches) and self._known() >= self._watch.upto

    async def _begin_with_list(self) -> None:
        found = await self._client.list(MAP, self._traffic.namespace, labels=self._labels, fields=self._fields)
        self._watch.stretches.append(Stretch(found.revision, _items(found.items)))
        self._fresh = False

    async def _begin_with_events(self) -> None:
        """Initial events, as ADDED up to a bookmark that says so; what follows is the watch itself."""
        items: list[Seen] = []
        async with aclosing(self._stream(0, initial=True)) as stream:
            async for event in stream:
                if event.type == BOOKMARK and _END in (event.object["metadata"].get("annotations") or {}):
                    self._watch.stretches.append(Stretch(_revision(event.object), tuple(items)))
                    self._fresh = False
                    await self._listen(stream)
                    return
                items += _items([event.object])

    def _stream(self, revision: int, *, initial: bool = False) -> AsyncGenerator[WatchEvent, None]:
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": str(revision or "")}
        # A short life, so that resuming is the rule.
        query["timeoutSeconds"] = str(1 + self._traffic.entropy.below(8))
        if initial:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        chosen = {"labelSelector": self._labels, "fieldSelector": self._fields}
        query |= {name: text for name, text in chosen.items() if text}
        # Every transport's watch is a generator: leaving it early closes it at once.
        return self._client.transport.watch(Request("GET", MAP.path(self._traffic.namespace), query))  # type: ignore[return-value]

    async def _listen(self, stream: AsyncGenerator[WatchEvent, None]) -> None:
        events = self._watch.stretches[-1].events
        async with aclosing(stream):
            async for event in stream:
                if event.type == BOOKMARK:
                    events.append(Told(BOOKMARK, Seen(_revision(event.object), "", None)))
                elif not foreign(event.object["metadata"]["name"]):
                    events.append(Told(event.type, seen_of(event.object)))
                if self._knows():
                    return


def outcome_of(error: Exception, expected: int) -> str:
    """How a write ended that was answered with an error."""
    if isinstance(error, (OutcomeUnknown, Timeout)):
        return h.LOST
    if isinstance(error, AlreadyExists):
        return h.REFUSED if expected == h.NOTHING else h.FAILED
    if isinstance(error, Conflict):
        return h.REFUSED if expected > 0 else h.FAILED
    if isinstance(error, NotFound):
        return h.FAILED if expected == h.NOTHING else h.REFUSED
    return h.FAILED


def foreign(name: str) -> bool:
    """Whether a ConfigMap is none of the clients': a controller puts one into every namespace."""
    return name == "kube-root-ca.crt"


def seen_of(obj: Object) -> Seen:
    """What an object tells."""
    return Seen(_revision(obj), obj["metadata"]["name"], (obj.get("data") or {}).get("value"))


def _revision(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])


def _items(found: list[Object]) -> tuple[Seen, ...]:
    return tuple(seen_of(obj) for obj in found if not foreign(obj["metadata"]["name"]))
