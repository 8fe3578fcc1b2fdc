"""Server CPU of telling many watchers of one event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from client import Connection
from plane import Plane, config_map, namespace


class Crowd:
    """Watchers of one namespace, each on a connection of its own; `seen` counts the events that they got."""

    def __init__(self, plane: Plane, space: str) -> None:
        self._plane = plane
        self._space = space
        self._path = f"/api/v1/namespaces/{space}/configmaps"
        self._watching: list[Connection] = []
        self._number = 0
        self.seen = 0

    async def gather(self, size: int) -> None:
        """Starts to watch."""
        client = self._plane.client
        await namespace(client, self._space)
        _, body = await client.once("GET", self._path)
        revision = json.loads(body)["metadata"]["resourceVersion"]
        for _ in range(size):
            connection = await client.connect(self._count)
            await connection.send(client.request("GET", f"{self._path}?watch=true&resourceVersion={revision}"))
            self._watching.append(connection)

    def _count(self, data: bytes) -> None:
        self.seen += data.count(b'"type":"ADDED"')

    async def told(self, what: str, events: int, per_second: float = 0) -> float:
        """Milliseconds of server CPU per event, its create included. Raises RuntimeError when events are missing."""
        self.seen = 0
        names = [f"e{self._number + i}" for i in range(events)]
        self._number += events
        requests = [self._plane.client.request("POST", self._path, config_map(name)) for name in names]
        cost = (await self._plane.cost(requests, 16, per_second)).whole
        wanted = events * len(self._watching)
        async with asyncio.timeout(20):
            while self.seen < wanted:  # noqa: ASYNC110 - what is on its way is not ours to signal
                await asyncio.sleep(0.05)
        print(f"    {what}: {self._plane.last}", flush=True)
        return cost * 1e3

    def leave(self) -> None:
        """Ends the watches."""
        for connection in self._watching:
            if connection.transport is not None:
                connection.transport.close()
        self._watching.clear()


async def watch(plane: Plane) -> AsyncIterator[dict[str, float]]:
    """Creates of ConfigMaps that 100 watchers see, as fast as they go and 50 in a second."""
    crowd = Crowd(plane, "bench-watch")
    await crowd.gather(100)
    try:
        while True:
            yield {
                "watch_burst": await crowd.told("burst", 500),
                "watch_paced": await crowd.told("paced", 200, 50),
            }
    finally:
        crowd.leave()


async def crowded(plane: Plane) -> AsyncIterator[dict[str, float]]:
    """The same with 1000 watchers."""
    crowd = Crowd(plane, "bench-crowd")
    await crowd.gather(1000)
    try:
        while True:
            yield {
                "watch_1000": await crowd.told("burst", 100),
                "watch_1000_paced": await crowd.told("paced", 50, 20),
            }
    finally:
        crowd.leave()
