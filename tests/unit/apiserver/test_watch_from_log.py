"""A watch that resumes from the log while others write."""

from __future__ import annotations

import asyncio

from tests.fakes.server import ADMIN, build

from k3s.api.kinds import builtin
from k3s.client.client import Client
from k3s.client.local import LocalTransport
from k3s.client.transport import Request
from k3s.sim import loop
from k3s.store.interface import Events
from k3s.store.memory import MemoryStore

MAP = builtin("v1", "ConfigMap")


class Slow(MemoryStore):
    """A datastore that has read its log a second before it answers."""

    async def events(self, prefix: str, after: int, limit: int = 0) -> Events:
        found = await super().events(prefix, after, limit)
        await asyncio.sleep(1)
        return found


def test_what_is_written_while_the_log_is_read_is_told() -> None:
    """Kills showed it: a watch resumed right after the start, before the first write, and never heard of it."""

    async def main() -> None:
        store = Slow()
        await store.open()
        first = build(store)
        await first.load()
        client = Client(LocalTransport(first.handler(ADMIN)))
        seen = int((await client.create(MAP, config("before")))["metadata"]["resourceVersion"])
        # Of another kind: the next life of the server begins at a revision that the watcher has not seen.
        await client.create(builtin("v1", "Namespace"), {"metadata": {"name": "other"}})
        await first.stop()
        second = build(store)
        await second.load()
        transport = LocalTransport(second.handler(ADMIN))
        query = {"watch": "true", "resourceVersion": str(seen)}
        stream = transport.watch(Request("GET", MAP.path("default"), query))
        told = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.5)
        await Client(transport).create(MAP, config("meanwhile"))
        async with asyncio.timeout(10):
            assert (await told).object["metadata"]["name"] == "meanwhile"
        await stream.aclose()  # type: ignore[attr-defined]
        await second.stop()

    loop.run(1, main())


def config(name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}
