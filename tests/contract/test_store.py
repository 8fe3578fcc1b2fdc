"""What every datastore promises, run over each implementation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k3s.store.interface import Compacted, Entry, Event, FutureRevision, KeyConflict, Store, Unavailable
from k3s.store.memory import MemoryStore
from k3s.store.sql.sqlite import SqliteStore

PODS = "/registry/core/pods/"


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Makes a store; with SQLite each call gives a new one on the same file."""
    if request.param == "memory":
        memory = MemoryStore()
        return lambda: memory
    return lambda: SqliteStore(tmp_path / "db" / "state.db")


def with_store(make: Callable[[], Store], body: Callable[[Store, list[Event]], Any]) -> None:
    """Runs `body(store, seen)` on an open store whose events gather in `seen`."""

    async def main() -> None:
        store = make()
        await store.open()
        seen: list[Event] = []
        store.subscribe(seen.extend)
        try:
            await body(store, seen)
        finally:
            await store.close()

    asyncio.run(main())


def test_a_new_store_is_empty_and_at_revision_zero(make):
    async def body(store, seen):
        assert store.revision() == 0
        assert store.oldest() == 0
        assert await store.list("/") == (0, [])
        assert await store.get("/a") is None
        assert await store.events("/", 0) == []

    with_store(make, body)


def test_each_write_takes_one_revision_and_the_entry_remembers_its_creation(make):
    async def body(store, seen):
        assert await store.put("/a", b"1", 0) == 1
        assert await store.put("/a", b"2", 1) == 2
        assert await store.put("/b", b"x", 0) == 3
        assert await store.get("/a") == Entry("/a", b"2", 2, 1)
        assert await store.delete("/a", 2) == 4
        assert await store.get("/a") is None
        assert await store.put("/a", b"3", 0) == 5
        assert await store.get("/a") == Entry("/a", b"3", 5, 5)
        assert store.revision() == 5

    with_store(make, body)


@pytest.mark.parametrize("expected", [0, 1, 3, 99])
def test_a_write_at_another_revision_is_a_conflict_that_shows_what_is_there(make, expected):
    async def body(store, seen):
        await store.put("/a", b"1", 0)
        await store.put("/a", b"2", 1)
        for write in (store.put("/a", b"3", expected), store.delete("/a", expected)):
            with pytest.raises(KeyConflict) as caught:
                await write
            assert caught.value.current == Entry("/a", b"2", 2, 1)
        assert store.revision() == 2

    with_store(make, body)


def test_what_is_absent_can_be_neither_updated_nor_deleted(make):
    async def body(store, seen):
        for write in (store.put("/a", b"1", 7), store.delete("/a", 7), store.delete("/a", 0)):
            with pytest.raises(KeyConflict) as caught:
                await write
            assert caught.value.current is None
        assert store.revision() == 0
        assert seen == []

    with_store(make, body)


def test_a_key_that_is_no_text_is_refused_alone(make):
    """Half a surrogate pair among good keys: the others are written, and so is what comes later."""

    async def body(store, seen):
        writes = [store.put("/a", b"1", 0), store.put("/\ud800", b"1", 0), store.put("/b", b"1", 0)]
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert isinstance(results[1], ValueError)
        assert [results[0], results[2]] == [1, 2]
        assert await store.put("/é\U0001f600", b"1", 0) == 3
        assert await store.get("/é\U0001f600") == Entry("/é\U0001f600", b"1", 3, 3)

    with_store(make, body)


def test_events_tell_what_stood_there_before(make):
    async def body(store, seen):
        await store.put("/a", b"1", 0)
        await store.put("/a", b"2", 1)
        await store.delete("/a", 2)
        assert seen == [
            Event(1, "/a", b"1", None, 1),
            Event(2, "/a", b"2", Entry("/a", b"1", 1, 1), 1),
            Event(3, "/a", None, Entry("/a", b"2", 2, 1), 1),
        ]
        assert await store.events("/", 0) == seen
        assert await store.events("/", 2) == seen[2:]
        assert await store.events("/", 0, 2) == seen[:2]
        assert await store.events("/b", 0) == []
        assert await store.events("/", 99) == []

    with_store(make, body)


def test_a_write_is_answered_after_its_event_was_handed_over(make):
    async def body(store, seen):
        for number in range(20):
            revision = await store.put(f"/{number}", b"", 0)
            assert [event.revision for event in seen] == list(range(1, revision + 1))
            assert store.revision() == revision

    with_store(make, body)


def test_many_writers_at_once_get_every_revision_once_and_in_order(make):
    """One hundred writers of ten keys: those that lose the race get a conflict, the others a revision of their own."""

    async def body(store, seen):
        async def one(number: int) -> int:
            try:
                return await store.put(f"/{number % 10}", str(number).encode(), 0)
            except KeyConflict as conflict:
                assert conflict.current is not None
                return 0

        revisions = [r for r in await asyncio.gather(*(one(n) for n in range(100))) if r]
        assert sorted(revisions) == list(range(1, 11))
        assert [event.revision for event in seen] == list(range(1, 11))

    with_store(make, body)


def test_a_list_is_in_order_of_key_within_its_prefix(make):
    async def body(store, seen):
        for key in ("b/2", "a/1", "b/10", "c/1", "b/1", "b", "b0"):
            await store.put(PODS + key, key.encode(), 0)
        revision, entries = await store.list(PODS + "b/")
        assert revision == 7
        assert [entry.key.removeprefix(PODS) for entry in entries] == ["b/1", "b/10", "b/2"]
        assert [e.key.removeprefix(PODS) for e in (await store.list(PODS, after=PODS + "b/10", limit=2))[1]] == [
            "b/2",
            "b0",
        ]
        assert len((await store.list(""))[1]) == 7
        assert len((await store.list("", after=PODS + "b0"))[1]) == 1

    with_store(make, body)


def test_pages_of_an_old_revision_do_not_see_what_came_later(make):
    async def body(store, seen):
        for number in range(10):
            await store.put(f"/a/{number}", b"old", 0)
        revision, first = await store.list("/a/", limit=4)
        await store.put("/a/5", b"new", 6)
        await store.delete("/a/6", 7)
        await store.put("/a/55", b"new", 0)
        read, rest = await store.list("/a/", revision, after=first[-1].key)
        assert read == revision == 10
        assert [entry.key for entry in first + rest] == [f"/a/{n}" for n in range(10)]
        assert {entry.value for entry in rest} == {b"old"}
        assert await store.list("/a/", revision, limit=4) == (10, first)
        assert await store.get("/a/5", 10) == Entry("/a/5", b"old", 6, 6)
        assert await store.get("/a/6", 12) is None
        assert await store.get("/a/55", 10) is None
        assert (await store.list("/a/", 12))[1][-1].key == "/a/9"

    with_store(make, body)


def test_a_revision_that_is_not_written_yet_cannot_be_read(make):
    async def body(store, seen):
        await store.put("/a", b"", 0)
        with pytest.raises(FutureRevision):
            await store.get("/a", 2)
        with pytest.raises(FutureRevision):
            await store.list("/", 2)

    with_store(make, body)


def test_compaction_forgets_the_past_and_keeps_the_present(make):
    async def body(store, seen):
        await store.put("/a", b"1", 0)
        await store.put("/a", b"2", 1)
        await store.put("/b", b"1", 0)
        await store.delete("/b", 3)
        await store.put("/a", b"3", 2)
        await store.put("/c", b"1", 0)
        await store.compact(4)
        assert store.oldest() == 4
        assert store.revision() == 6
        for read in (store.get("/a", 3), store.list("/", 3), store.events("/", 3)):
            with pytest.raises(Compacted) as caught:
                await read
            assert caught.value.oldest == 4
        assert await store.get("/a", 4) == Entry("/a", b"2", 2, 1)
        assert await store.list("/", 4) == (4, [Entry("/a", b"2", 2, 1)])
        assert await store.events("/", 4) == seen[4:]
        assert await store.list("/") == (6, [Entry("/a", b"3", 5, 1), Entry("/c", b"1", 6, 6)])

    with_store(make, body)


def test_compaction_never_goes_back_nor_beyond_the_newest_revision(make):
    async def body(store, seen):
        for number in range(5):
            await store.put(f"/{number}", b"", 0)
        await store.compact(99)
        assert store.oldest() == 5
        await store.compact(2)
        assert store.oldest() == 5
        assert len((await store.list("/"))[1]) == 5

    with_store(make, body)


def test_revisions_grow_even_after_everything_was_deleted_and_compacted(make):
    async def body(store, seen):
        await store.put("/a", b"1", 0)
        await store.delete("/a", 1)
        await store.compact(2)
        assert await store.list("/") == (2, [])
        await store.close()
        again = make()
        await again.open()
        assert again.revision() == 2
        assert again.oldest() == 2
        assert await again.put("/a", b"2", 0) == 3
        await again.close()

    with_store(make, body)


def test_a_closed_store_comes_back_with_all_of_it(make):
    async def body(store, seen):
        await store.put("/a", b"1", 0)
        await store.put("/a", b"\x00\xff" * 100_000, 1)
        await store.close()
        for use in (store.put("/b", b"", 0), store.get("/a"), store.list("/"), store.compact(1)):
            with pytest.raises(Unavailable):
                await use
        again = make()
        await again.open()
        assert await again.get("/a") == Entry("/a", b"\x00\xff" * 100_000, 2, 1)
        assert await again.get("/a", 1) == Entry("/a", b"1", 1, 1)
        await again.close()

    with_store(make, body)
