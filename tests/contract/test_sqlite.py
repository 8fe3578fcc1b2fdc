"""What only the datastore on a disk has: group commit, errors of the disk, locks, modes, a file that stays small."""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from k3s.store.interface import KeyConflict, Unavailable, Uncertain
from k3s.store.sql import database
from k3s.store.sql.sqlite import SqliteStore
from k3s.store.sql.upkeep import Step


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server" / "db" / "state.db"


def with_store(path: Path, body) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        try:
            async with asyncio.timeout(60):
                await body(store)
        finally:
            await store.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the server does
        runner.run(main())


def mount(options: str, folder: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("size=2m,mode=0700", folder)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_writes_that_come_together_share_a_transaction(path):
    """The subscriber is called once for each transaction: the first may be alone, the rest go together."""

    async def body(store):
        groups = []
        store.subscribe(lambda events: groups.append(len(events)))
        await asyncio.gather(*(store.put(f"/{n}", b"x", 0) for n in range(200)))
        assert sum(groups) == 200
        assert len(groups) <= 2

    with_store(path, body)


def test_a_conflict_does_not_take_its_group_along(path):
    async def body(store):
        await store.put("/a", b"1", 0)
        writes = [store.put("/b", b"1", 0), store.put("/a", b"2", 0), store.put("/a", b"3", 1), store.delete("/x", 9)]
        made, refused, changed, missing = await asyncio.gather(*writes, return_exceptions=True)
        assert (made, changed) == (2, 3)
        assert isinstance(refused, KeyConflict)
        assert isinstance(missing, KeyConflict)

    with_store(path, body)


def test_a_conflict_shows_what_was_written_just_before_it(path):
    """Both writes are in one transaction: the loser learns of the winner only after that is durable."""

    async def body(store):
        won, lost = await asyncio.gather(store.put("/a", b"1", 0), store.put("/a", b"2", 0), return_exceptions=True)
        assert won == 1
        assert lost.current.value == b"1"
        assert store.revision() == 1

    with_store(path, body)


def test_whoever_is_cancelled_does_not_stop_the_others(path):
    async def body(store):
        tasks = [asyncio.ensure_future(store.put(f"/{n}", b"", 0)) for n in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert (results[0], results[2]) == (1, 3)
        assert await store.get("/1") is not None

    with_store(path, body)


def test_more_writes_than_the_disk_can_take_are_refused_at_once(path, monkeypatch):
    monkeypatch.setattr("k3s.store.sql.sqlite.PENDING_WRITES", 100)

    async def body(store):
        results = await asyncio.gather(*(store.put(f"/{n}", b"", 0) for n in range(150)), return_exceptions=True)
        assert results[:100] == list(range(1, 101))
        assert all(isinstance(result, Unavailable) and "100 writes wait" in str(result) for result in results[100:])

    with_store(path, body)


def test_a_subscriber_that_fails_does_not_keep_the_answer(path):
    """The error goes to the loop's handler, where the supervisor sees it; the write was made and says so."""

    async def body(store):
        errors = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context["exception"]))
        store.subscribe(lambda events: 1 / 0)
        assert await store.put("/a", b"", 0) == 1
        assert await store.put("/b", b"", 0) == 2
        assert [type(error) for error in errors] == [ZeroDivisionError] * 2

    with_store(path, body)


def test_nobody_else_can_read_the_files(path):
    async def body(store):
        await store.put("/a", b"secret", 0)
        modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
        assert set(modes) == {"state.db", "state.db-wal", "state.db-shm", "state.db.lock"}
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    with_store(path, body)


def test_a_commit_waits_for_the_disk(path):
    async def body(store):
        (level,) = store._connection.execute("PRAGMA synchronous").fetchone()
        (mode,) = store._connection.execute("PRAGMA journal_mode").fetchone()
        assert (level, mode) == (2, "wal")

    with_store(path, body)


def test_two_processes_cannot_share_a_file(path):
    async def body(store):
        with pytest.raises(Unavailable, match="another process uses it"):
            await SqliteStore(path).open()

    with_store(path, body)
    with_store(path, lambda store: store.put("/a", b"", 0))


def test_a_full_disk_refuses_and_recovers_without_a_restart(path):
    """The limit of the file stands for the disk: SQLite reports both as SQLITE_FULL."""

    async def body(store):
        await store.put("/a", b"1", 0)
        store._connection.execute("PRAGMA max_page_count = 12")
        with pytest.raises(Unavailable, match="no space is left"):
            await store.put("/big", b"x" * 100_000, 0)
        assert "no space is left" in store.problem()
        assert store.revision() == 1
        assert (await store.get("/a")).value == b"1"
        store._connection.execute("PRAGMA max_page_count = 100000")
        assert await store.put("/big", b"x" * 100_000, 0) == 2
        assert store.problem() == ""

    with_store(path, body)


def failing_commit(store, name: str, done: bool) -> None:
    """The next COMMIT ends with this error of SQLite, made or not."""
    real, left = store._connection, [1]

    class Failing:
        def __getattr__(self, attribute):
            return getattr(real, attribute)

        def execute(self, statement, *values):
            if statement != "COMMIT" or not left:
                return real.execute(statement, *values)
            left.clear()
            if done:
                real.execute("COMMIT")
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = name
            raise error

    store._connection = Failing()


@pytest.mark.parametrize("done", [False, True])
def test_a_commit_that_fails_half_way_is_told_as_such(path, done):
    """Nobody is told that it failed, and what became of it is what everybody sees then."""

    async def body(store):
        seen = []
        store.subscribe(seen.extend)
        await store.put("/a", b"1", 0)
        failing_commit(store, "SQLITE_IOERR_FSYNC", done)
        with pytest.raises(Uncertain, match="Cannot tell whether"):
            await store.put("/a", b"2", 1)
        assert await store.put("/b", b"1", 0) == 2 + done
        assert (await store.get("/a")).value == (b"2" if done else b"1")
        assert [event.revision for event in seen] == list(range(1, 3 + done))

    with_store(path, body)


def test_a_commit_whose_frames_could_not_be_written_has_failed_for_sure(path):
    async def body(store):
        failing_commit(store, "SQLITE_IOERR_WRITE", False)
        with pytest.raises(Unavailable) as caught:
            await store.put("/a", b"1", 0)
        assert not isinstance(caught.value, Uncertain)
        assert await store.get("/a") is None

    with_store(path, body)


def test_recovery_does_not_wait_for_a_write(path, monkeypatch):
    """The problem is over soon after the disk is well again, though nobody writes."""
    monkeypatch.setattr("k3s.store.sql.sqlite.RETRY_S", 0.02)

    async def body(store):
        failing_commit(store, "SQLITE_IOERR_FSYNC", False)
        with pytest.raises(Uncertain):
            await store.put("/a", b"1", 0)
        assert "Cannot tell" in store.problem()
        async with asyncio.timeout(5):
            while store.problem():  # noqa: ASYNC110 - the store tells nobody, health checks ask
                await asyncio.sleep(0.01)

    with_store(path, body)


@pytest.mark.root
def test_a_disk_that_is_really_full_refuses_and_recovers(disk):
    async def body(store):
        written = 0
        with pytest.raises(Unavailable, match="no space is left"):
            for number in range(1000):
                await store.put(f"/{number}", os.urandom(20_000), 0)
                written = number + 1
        assert 20 < written < 100
        assert store.revision() == written
        await asyncio.to_thread(mount, "remount,size=8m", disk)
        assert await store.put("/after", b"", 0) == written + 1
        assert len((await store.list("/"))[1]) == written + 1

    with_store(disk / "db" / "state.db", body)
    with_store(disk / "db" / "state.db", lambda store: store.put("/again", b"", 0))


@pytest.mark.root
def test_a_disk_without_room_for_the_store_says_so(disk):
    (disk / "ballast").write_bytes(b"x" * (2 << 20))
    with pytest.raises(Unavailable, match=r"Cannot open the datastore .*space"):
        with_store(disk / "db" / "state.db", None)


@pytest.mark.root
def test_a_disk_that_became_read_only_is_named(disk):
    path = disk / "db" / "state.db"
    with_store(path, lambda store: store.put("/a", b"1", 0))
    mount("remount,ro", disk)
    with pytest.raises(Unavailable, match="Cannot open the datastore"):
        with_store(path, None)
    mount("remount,rw", disk)
    with_store(path, lambda store: store.put("/a", b"2", 1))


def test_a_lock_of_another_process_is_waited_for(path):
    """A shell that holds the write lock for a moment delays a write; nothing fails."""

    async def body(store):
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        write = asyncio.ensure_future(store.put("/a", b"1", 0))
        done, _ = await asyncio.wait([write], timeout=0.2)
        assert not done
        other.execute("ROLLBACK")
        assert await write == 1
        other.close()

    with_store(path, body)


def test_a_lock_that_is_never_given_back_is_named(path, monkeypatch):
    monkeypatch.setattr("k3s.store.sql.sqlite.BUSY_WAIT_MS", 50)

    async def body(store):
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="another process holds a lock"):
            await store.put("/a", b"1", 0)
        other.close()
        assert await store.put("/a", b"1", 0) == 1

    with_store(path, body)


def test_a_connection_that_went_wrong_is_made_anew_and_misses_nothing(path):
    """After an error of the disk the file is opened again; a commit that was called failed but is there is told."""

    async def body(store):
        seen = []
        store.subscribe(seen.extend)
        await store.put("/a", b"1", 0)
        # As if a failed commit had reached the disk: written behind the store's back, at the revision that is next.
        behind = sqlite3.connect(path, isolation_level=None)
        behind.execute("INSERT INTO log VALUES (2, '/late', 2, 0, x'')")
        behind.execute("INSERT INTO current VALUES ('/late', 2)")
        behind.close()
        store._connection.close()
        with pytest.raises(sqlite3.ProgrammingError):
            store._connection.execute("SELECT 1")
        store._suspect = True
        assert await store.put("/b", b"1", 0) == 3
        assert [(event.revision, event.key) for event in seen] == [(1, "/a"), (2, "/late"), (3, "/b")]

    with_store(path, body)


def test_a_file_that_is_gone_is_not_made_anew(path):
    """Its disk may have been taken away for repair: an empty datastore in its place would hide that."""

    async def body(store):
        await store.put("/a", b"1", 0)
        for name in ("state.db", "state.db-wal", "state.db-shm"):
            path.with_name(name).rename(path.with_name(f"{name}.away"))
        store._suspect = True
        with pytest.raises(Unavailable, match="Cannot open the datastore"):
            await store.put("/b", b"1", 0)
        assert not path.exists()
        for name in ("state.db", "state.db-wal", "state.db-shm"):
            path.with_name(f"{name}.away").rename(path.with_name(name))
        assert await store.put("/b", b"1", 0) == 2

    with_store(path, body)


def test_what_is_no_database_is_left_alone_and_named(path):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"This is a letter to my grandmother, and no database at all.\n" * 100)
    with pytest.raises(Unavailable, match="no SQLite database"):
        with_store(path, None)
    assert path.read_bytes().startswith(b"This is a letter")


def test_a_file_of_a_newer_release_is_refused(path):
    with_store(path, lambda store: store.put("/a", b"1", 0))
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(Unavailable, match="newer than this release"):
        with_store(path, None)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="Cannot open the datastore"):
        with_store(tmp_path / "file" / "db" / "state.db", None)


@pytest.mark.slow
def test_churn_leaves_neither_a_long_log_nor_a_large_file(path):
    """Twenty thousand updates of twenty keys, compacted as they go; no writer waits long."""

    async def body(store):
        loop = asyncio.get_running_loop()
        revisions = dict.fromkeys(range(20), 0)
        value = os.urandom(2000)
        slowest = 0.0

        async def churn(key: int) -> None:
            nonlocal slowest
            for _ in range(1000):
                started = loop.time()
                revisions[key] = await store.put(f"/{key}", value, revisions[key])
                slowest = max(slowest, loop.time() - started)

        async def compact() -> None:
            while store.revision() < 20_000:
                await store.compact(store.revision() - 500)
                await asyncio.sleep(0.05)

        await asyncio.gather(compact(), *(churn(key) for key in revisions))
        await store.compact(store.revision() - 100)
        (rows,) = store._connection.execute("SELECT count(*) FROM log").fetchone()
        assert rows <= 120
        await store.put("/last", b"", 0)
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        assert pages < 4000
        assert path.with_name("state.db-wal").stat().st_size <= 2 * database.WAL_BYTES
        print(f"slowest write {slowest * 1e3:.1f} ms, file {pages * 4} KiB")
        assert slowest < 0.5  # of this noisy machine; a sweep aims at 15 ms

    with_store(path, body)


def test_space_goes_back_to_the_disk(path):
    async def body(store):
        for number in range(300):
            await store.put(f"/{number}", os.urandom(20_000), 0)
        for number in range(300):
            await store.delete(f"/{number}", number + 1)
        steps = watched(store)
        await store.compact(store.revision())
        async with asyncio.timeout(10):
            while not steps or steps[-1].more:  # noqa: ASYNC110 - it is done behind everybody's back
                await asyncio.sleep(0.01)
        # Of six megabytes four stay for what is written next.
        assert path.stat().st_size < 4_500_000
        assert len(steps) < 10
        assert path.with_name("state.db-wal").stat().st_size == 0

    with_store(path, body)


def watched(store) -> list[Step]:
    """The steps of upkeep that are taken from now on."""
    steps, took = [], store._upkeep.took

    def note(step, now):
        steps.append(step)
        return took(step, now)

    store._upkeep.took = note
    return steps


def test_compaction_gets_its_turn_though_writes_always_wait(path):
    """Each transaction is followed by the next write at once, so the queue is never empty."""

    async def body(store):
        going = True

        def again(events) -> None:
            if going:
                store._accept("/busy", b"", events[-1].revision).add_done_callback(lambda done: done.exception())

        store.subscribe(again)
        revision = await store.put("/busy", b"", 0)
        async with asyncio.timeout(30):
            while store.revision() < revision + 300:  # noqa: ASYNC110 - the writes go on by themselves
                await asyncio.sleep(0.001)
            await store.compact(store.revision() - 10)
        going = False
        (rows,) = store._connection.execute("SELECT min(revision) FROM log").fetchone()
        assert rows > 200

    with_store(path, body)


@pytest.mark.slow
def test_a_large_backlog_is_compacted_in_slices_between_which_writes_go_on(path):
    """A hundred thousand superseded revisions: no step looks at more than 512, and writes are made after each."""

    async def body(store):
        keys = [f"/{number}" for number in range(500)]
        at = dict.fromkeys(keys, 0)
        for _ in range(200):
            made = await asyncio.gather(*(store.put(key, b"x" * 300, at[key]) for key in keys))
            at = dict(zip(keys, made, strict=True))
        steps, revisions, waits = watched(store), [], []
        took = store._upkeep.took

        def note(step, now):
            revisions.append(store.revision())
            return took(step, now)

        store._upkeep.took = note
        compaction = asyncio.ensure_future(store.compact(store.revision()))
        revision = 0
        while not compaction.done():
            began = time.perf_counter()
            revision = await store.put("/writer", b"", revision)
            waits.append(time.perf_counter() - began)
        await compaction
        sweeps = [step for step in steps if step.looked]
        assert len(sweeps) >= 100_000 / 512
        assert max(step.looked for step in sweeps) <= 512
        idle = [first for first, then in itertools.pairwise(revisions) if first == then]
        assert len(idle) < len(revisions) / 20, "hardly a write between steps"
        lengths, waits = sorted(step.seconds for step in steps), sorted(waits)
        print(f"{len(steps)} steps, the longest {lengths[-1] * 1e3:.1f} ms; the longest write {waits[-1] * 1e3:.1f} ms")
        # Of a machine that others use, too: all but one in a hundred.
        assert lengths[len(lengths) * 99 // 100] < 0.05
        assert waits[len(waits) * 99 // 100] < 0.05

    with_store(path, body)
