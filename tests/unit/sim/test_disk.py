"""The datastore on a disk that fails: as the real one answers, and tells, and recovers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from k3s.base.entropy import SeededEntropy
from k3s.sim import loop
from k3s.sim.disk import BROKEN, FULL, STALLED, WELL, Disk, Session
from k3s.sim.faults import Sky
from k3s.store.interface import Event, Unavailable, Uncertain
from k3s.store.memory import MemoryStore


def with_session(body: Callable[[Session, Disk, list[Event]], Awaitable[None]]) -> None:
    async def main() -> None:
        disk, told = Disk(SeededEntropy("disk")), list[Event]()
        session = Session(MemoryStore(), Sky(SeededEntropy("sky")), disk)
        await session.open()
        session.subscribe(told.extend)
        await session.put("/a", b"1", 0)
        await body(session, disk, told)

    loop.run(1, main())


def test_a_full_disk_refuses_until_there_is_space() -> None:
    async def body(session: Session, disk: Disk, told: list[Event]) -> None:
        disk.goes(FULL)
        for refused in (session.put("/b", b"", 0), session.delete("/a", 1), session.compact(1)):
            with pytest.raises(Unavailable, match="the disk is full"):
                await refused
        assert session.problem()
        entry = await session.get("/a")
        assert entry is not None
        disk.goes(WELL)
        assert await session.put("/b", b"", 0) == 2
        assert not session.problem()
        assert [event.revision for event in told] == [1, 2]

    with_session(body)


def test_a_disk_that_stalls_lets_writes_wait() -> None:
    async def body(session: Session, disk: Disk, told: list[Event]) -> None:
        disk.goes(STALLED)
        write = asyncio.ensure_future(session.put("/b", b"", 0))
        await asyncio.sleep(30)
        assert not write.done()
        disk.goes(WELL)
        assert await write == 2

    with_session(body)


def test_what_a_broken_commit_made_is_told_once_before_what_comes_next() -> None:
    """Readers wait for it; whether it was made is chance, and both come about."""

    async def body(session: Session, disk: Disk, told: list[Event]) -> None:
        made = set()
        for number in range(20):
            before = session.revision()
            disk.goes(BROKEN)
            with pytest.raises(Uncertain):
                await session.put(f"/{number}", b"", 0)
            with pytest.raises(Unavailable):
                await session.put("/a", b"2", before)
            assert session.revision() == before
            assert await session.events("/", before) == []
            read = asyncio.ensure_future(session.get(f"/{number}"))
            await asyncio.sleep(1)
            assert told[-1].revision == before
            assert read.done() == (not session._late)
            disk.goes(WELL)
            await session.put(f"/next-{number}", b"", 0)
            made.add(await read is not None)
        assert made == {False, True}
        assert [event.revision for event in told] == list(range(1, session.revision() + 1))

    with_session(body)
