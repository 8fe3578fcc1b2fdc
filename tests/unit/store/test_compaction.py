"""The compactor over the datastore in memory, under virtual time."""

from __future__ import annotations

import asyncio

import pytest

from k3s.base.aio import Tasks
from k3s.sim.loop import run
from k3s.store.compaction import EVERY_S, KEEP_NEWEST, Compactor
from k3s.store.interface import Unavailable
from k3s.store.memory import MemoryStore


class Refusing(MemoryStore):
    """A datastore whose disk is full at times."""

    full = False

    async def compact(self, revision: int) -> None:
        if self.full:
            raise Unavailable("Cannot compact: no space")
        await super().compact(revision)


def with_compactor(body, store: MemoryStore | None = None) -> None:
    store = store or Refusing()

    async def main() -> None:
        await store.open()
        tasks = Tasks("test")
        ready = asyncio.Event()
        tasks.spawn(Compactor(store).run(ready.set), "compactor")
        await ready.wait()
        await body(store)
        await tasks.close()

    run(1, main())


async def write(store: MemoryStore, count: int) -> None:
    entry = await store.get("/a")
    revision = entry.revision if entry else 0
    for _ in range(count):
        revision = await store.put("/a", b"", revision)


def test_history_lives_for_one_round_at_least():
    async def body(store):
        await write(store, 5000)
        await asyncio.sleep(EVERY_S + 1)
        assert store.oldest() == 0
        await write(store, 3000)
        await asyncio.sleep(EVERY_S)
        assert store.oldest() == 5000
        await asyncio.sleep(EVERY_S)
        assert store.oldest() == 8000 - KEEP_NEWEST

    with_compactor(body)


class Slow(MemoryStore):
    """A datastore that needs two minutes to compact."""

    async def compact(self, revision: int) -> None:
        await asyncio.sleep(120)
        await super().compact(revision)


def test_rounds_come_on_time_though_they_take_long():
    async def body(store):
        await asyncio.sleep(1)
        for forgotten in (0, 0, 2000, 4000, 6000):
            await write(store, 2000)
            await asyncio.sleep(EVERY_S)
            assert store.oldest() == forgotten

    with_compactor(body, Slow())


def test_without_writes_nothing_is_done():
    async def body(store):
        await write(store, 5000)
        await asyncio.sleep(EVERY_S * 2.5)
        store.full = True  # a further call would be refused
        oldest = store.oldest()
        await asyncio.sleep(EVERY_S * 100)
        assert store.oldest() == oldest == 5000 - KEEP_NEWEST

    with_compactor(body)


def test_a_disk_that_refuses_is_asked_again(caplog: pytest.LogCaptureFixture):
    async def body(store):
        await write(store, 5000)
        store.full = True
        await asyncio.sleep(EVERY_S * 2.5)
        assert store.oldest() == 0
        assert "Cannot compact" in caplog.text
        store.full = False
        await asyncio.sleep(EVERY_S)
        assert store.oldest() == 4000

    with_compactor(body)
