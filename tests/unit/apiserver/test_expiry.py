"""Events go when their time is over, counted from their last write."""

from __future__ import annotations

import asyncio

from tests.fakes.server import ADMIN, build

from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver.expiry import Expiry
from k3s.apiserver.server import ApiServer
from k3s.base.clock import LoopClock
from k3s.client.client import Client
from k3s.client.local import LocalTransport
from k3s.sim import loop
from k3s.store.memory import MemoryStore

EVENT = builtin("v1", "Event")
TTL_S = 3600


def event(name: str) -> Object:
    about = {"kind": "Pod", "namespace": "default", "name": "p"}
    # A text that looks like a time, and a time that is still to come, must not keep it.
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "default"},
        "involvedObject": about,
        "lastTimestamp": "2099-01-01T00:00:00Z",
        "message": '"time":"2099-01-01T00:00:00Z"',
    }


def test_an_event_goes_an_hour_after_its_last_write() -> None:
    """One that is written again lives on from there; the next life of the server counts from the same moment."""

    async def main() -> None:
        clock = LoopClock(1_800_000_000.0)
        store = MemoryStore()
        await store.open()
        server = build(store, clock=clock)
        await server.load()
        client = Client(LocalTransport(server.handler(ADMIN)))
        expiry = Expiry(server.cache, server.crud, EVENT, TTL_S, clock)
        task = asyncio.get_running_loop().create_task(expiry.run(lambda: None))
        await asyncio.sleep(5000)
        for name in ("once", "again"):
            await client.create(EVENT, event(name))
        await asyncio.sleep(1800)
        await client.patch(EVENT, "default", "again", {"count": 2})
        await asyncio.sleep(1790)
        assert names(server) == ["again", "once"]
        await asyncio.sleep(90)
        assert names(server) == ["again"]
        task.cancel()
        await client.create(EVENT, {**event("before"), "lastTimestamp": None})
        await asyncio.sleep(10)
        task = asyncio.get_running_loop().create_task(
            Expiry(server.cache, server.crud, EVENT, TTL_S, clock).run(lambda: None)
        )
        await asyncio.sleep(3580)
        # Of the other one it is known only that it was there when this life of the server began.
        assert names(server) == ["again", "before"]
        await asyncio.sleep(90)
        assert names(server) == []
        task.cancel()
        await server.stop()

    loop.run(1, main())


def test_events_that_are_due_go_together() -> None:
    """In few transactions: one after the other they would go slower than a busy cluster makes new ones."""

    async def main() -> None:
        clock = LoopClock(1_800_000_000.0)
        store = Slow()
        await store.open()
        server = build(store, clock=clock)
        await server.load()
        client = Client(LocalTransport(server.handler(ADMIN)))
        task = asyncio.get_running_loop().create_task(
            Expiry(server.cache, server.crud, EVENT, 60, clock).run(lambda: None)
        )
        await asyncio.sleep(1)
        await asyncio.gather(*(client.create(EVENT, event(f"e{number}")) for number in range(100)))
        await asyncio.sleep(70)
        assert names(server) == []
        assert store.deleting < 10
        task.cancel()
        await server.stop()

    loop.run(1, main())


class Slow(MemoryStore):
    """A datastore whose deletions take a second; `deleting` is for how many of those it was at it."""

    deleting = 0
    _under_way = 0

    async def delete(self, key: str, expected: int) -> int:
        self._under_way += 1
        self.deleting += self._under_way == 1
        await asyncio.sleep(1)
        self._under_way -= 1
        return await super().delete(key, expected)


def names(server: ApiServer) -> list[str]:
    return [item.name for item in server.cache.bucket(EVENT).items(everywhere=True)]
