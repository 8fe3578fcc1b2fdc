"""Objects of any kind behind the client's seam, to list and to watch: what a component that only reads needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from k3s.api.kinds import Kind
from k3s.api.object import Object, key
from k3s.base.aio import Tasks
from k3s.base.clock import SystemClock
from k3s.base.entropy import SeededEntropy
from k3s.client.client import Client
from k3s.client.informer import Informer
from k3s.client.transport import Request, Response, WatchEvent


class Objects:
    """A Transport that is its own server; `put` and `drop` change what it has."""

    def __init__(self) -> None:
        self._revision = 1
        self._objects: dict[str, dict[str, Object]] = {}
        self._events: list[tuple[str, int, WatchEvent]] = []
        self._changed = asyncio.Condition()

    async def put(self, kind: Kind, obj: Object) -> None:
        """Creates or replaces an object."""
        self._revision += 1
        meta = {**obj["metadata"], "resourceVersion": str(self._revision)}
        new = {**obj, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta}
        known = self._objects.setdefault(kind.path(), {})
        verb = "MODIFIED" if key(new) in known else "ADDED"
        known[key(new)] = new
        await self._tell(kind, WatchEvent(verb, new))

    async def drop(self, kind: Kind, name: str) -> None:
        """Deletes the object `namespace/name`."""
        self._revision += 1
        obj = self._objects[kind.path()].pop(name)
        gone: dict[str, Any] = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._revision)}}
        await self._tell(kind, WatchEvent("DELETED", gone))

    async def _tell(self, kind: Kind, event: WatchEvent) -> None:
        self._events.append((kind.path(), self._revision, event))
        async with self._changed:
            self._changed.notify_all()

    async def send(self, request: Request) -> Response:
        """Answers a list."""
        items = list(self._objects.get(request.path, {}).values())
        return Response(200, {"items": items, "metadata": {"resourceVersion": str(self._revision)}})

    async def watch(self, request: Request) -> AsyncIterator[WatchEvent]:
        """Changes after the revision that is asked for, for as long as somebody reads."""
        seen = int(request.query["resourceVersion"])
        at = 0
        while True:
            while at < len(self._events):
                path, revision, event = self._events[at]
                at += 1
                if path == request.path and revision > seen:
                    yield event
            async with self._changed:
                while at == len(self._events):
                    await self._changed.wait()

    async def close(self) -> None:
        """There is no connection."""


@asynccontextmanager
async def informers(objects: Objects, *kinds: Kind) -> AsyncIterator[list[Informer]]:
    """Informers that run for as long as the block does."""
    tasks = Tasks("informers")
    client = Client(objects)
    made = [Informer(client, kind, clock=SystemClock(), entropy=SeededEntropy(1)) for kind in kinds]
    for each in made:
        tasks.spawn(each.run(lambda: None), each.kind.plural)
    try:
        yield made
    finally:
        await tasks.close()
