"""The datastore on SQLite: durable, one file, group commit.

What waits while a commit is on its way to the disk goes into the next transaction together. The statements of a
transaction run on the event loop (some 10 µs each, on cached pages); only what may wait for the disk, the commit, goes
to the writer's thread: one hop for a whole group, and no fight over the interpreter's lock for each statement.

    idle ──write──▶ BEGIN, statements ──▶ COMMIT on the thread ──▶ events to the subscriber, answers ──▶ next or idle

The connection belongs to whoever has the turn: `_busy` means the thread. Reads, and most copying of the write-ahead
log, use a second connection and thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from k3s.store.interface import (
    Compacted,
    Entries,
    Entry,
    Event,
    Events,
    KeyConflict,
    Subscriber,
    Unavailable,
)
from k3s.store.log import check_key, check_readable
from k3s.store.sql import checkpoint, database, history
from k3s.store.sql.checkpoint import Checkpoints
from k3s.store.sql.failures import is_busy, unavailable
from k3s.store.sql.upkeep import Step, Upkeep
from k3s.store.sql.worker import Worker

log = logging.getLogger(__name__)
T = TypeVar("T")

# Writes in one transaction: bounds how long the loop works on one and how large the write-ahead log grows at once.
BATCH_WRITES = 256
# Writes that wait; beyond it the disk is far too slow for what is asked, and saying so helps more than memory.
PENDING_WRITES = 10_000
# While the datastore cannot be written, how often that is tried: recovery must not wait for somebody's write.
RETRY_S = 2.0
# How long another process's lock (a backup, a shell) is waited for.
BUSY_WAIT_MS = 5000

_INSERT = "INSERT INTO log (revision, key, created, previous, value) VALUES (?, ?, ?, ?, ?)"
_SET_CURRENT = (
    "INSERT INTO current (key, revision) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET revision = excluded.revision"
)
_UNSET_CURRENT = "DELETE FROM current WHERE key = ?"


class _Write(NamedTuple):
    key: str
    value: bytes | None
    expected: int
    answer: asyncio.Future[int]


class _Group(NamedTuple):
    """One transaction: what it wrote, and what to answer once it is durable."""

    events: list[Event]
    answers: list[tuple[asyncio.Future[int], int | KeyConflict]]


class SqliteStore:
    """A Store in the file at `path`; see the interface for the contract."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._revision = 0
        self._oldest = 0
        self._subscriber: Subscriber | None = None
        self._pending: deque[_Write] = deque()
        self._busy = False
        self._scheduled = False
        self._suspect = False
        self._problem = ""
        self._retry: asyncio.TimerHandle | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._wal = Checkpoints()
        self._probe = False
        self._open = False
        self._idle: asyncio.Future[None] | None = None
        self._waiting_readers: list[asyncio.Future[None]] = []
        self._reader: Worker | None = None
        self._reading: sqlite3.Connection | None = None

    # --- opening and closing ---

    async def open(self) -> None:
        """Opens or makes the file. Raises Unavailable, which names the file and the remedy."""
        self._loop = asyncio.get_running_loop()
        self._owner = database.take_ownership(self._path)
        self._writer = Worker("store-writer")
        try:
            opened = await self._writer.run(lambda: database.open_writer(self._path))
        except BaseException:
            self._writer.stop()
            os.close(self._owner)
            raise
        self._connection: sqlite3.Connection = opened.connection
        self._revision, self._oldest = opened.revision, opened.compacted
        self._upkeep = Upkeep(opened.swept)
        self._open = True

    async def close(self) -> None:
        """Finishes what was accepted, then closes; unfinished compaction goes on after the next open."""
        if not self._open:
            return
        self._open = False
        self._probe = False
        for timer in (self._retry, self._rest):
            if timer is not None:
                timer.cancel()
        self._upkeep.end(Unavailable(f"Cannot compact the datastore {self._path}: it is being closed"))
        if self._busy or self._pending:
            self._idle = self._loop.create_future()
            await self._idle
        if self._reader is not None:
            reader, self._reader = self._reader, None
            await reader.run(self._close_reader)
            reader.stop()
            reader.join()
        await self._writer.run(self._connection.close)
        self._writer.stop()
        self._writer.join()
        os.close(self._owner)

    # --- what can be asked without waiting ---

    def revision(self) -> int:
        """The newest revision that is durable and has been handed to the subscriber."""
        return self._revision

    def oldest(self) -> int:
        """The oldest revision from which events and history can still be read."""
        return self._oldest

    def problem(self) -> str:
        """Why the last transaction failed, until one succeeds again."""
        return self._problem

    def subscribe(self, subscriber: Subscriber) -> None:
        """Calls `subscriber` on the loop with the events of each transaction from now on."""
        self._subscriber = subscriber

    # --- writing ---

    async def put(self, key: str, value: bytes, expected: int) -> int:
        """Writes a key that is at revision `expected` (0: absent). Raises KeyConflict, Unavailable."""
        return await self._accept(key, value, expected)

    async def delete(self, key: str, expected: int) -> int:
        """Deletes a key that is at revision `expected`. Raises KeyConflict, Unavailable."""
        return await self._accept(key, None, expected)

    def _accept(self, key: str, value: bytes | None, expected: int) -> asyncio.Future[int]:
        self._check_open()
        check_key(key)
        if len(self._pending) >= PENDING_WRITES:
            raise Unavailable(f"Cannot write to the datastore {self._path}: {PENDING_WRITES} writes wait for its disk")
        answer: asyncio.Future[int] = self._loop.create_future()
        self._pending.append(_Write(key, value, expected, answer))
        self._schedule()
        return answer

    def _schedule(self) -> None:
        # Not at once: what else this turn of the loop wants to write joins the group.
        if not self._busy and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Gives the connection its next work. A step of upkeep that is due goes first: it is short, and rests after."""
        self._scheduled = False
        if self._busy:
            return
        # While the log is copied upkeep would only make it longer.
        upkeep = self._upkeep.is_due() and not self._wal.copying
        if self._suspect and (self._pending or upkeep or self._probe):
            self._hand_over(lambda: database.open_writer(self._path, again=True), self._reopened)
        elif self._wal.rest_due:
            self._hand_over(lambda: checkpoint.copy(self._connection), lambda _, __: self._wal.emptied())
        elif upkeep:
            self._hand_over(self._upkeep.step(self._connection), self._kept_up)
        elif self._pending:
            self._begin()
        elif self._probe:
            self._hand_over(lambda: database.probe(self._connection, self._path), self._probed)
        elif self._idle is not None:
            self._idle.set_result(None)
            self._idle = None

    def _hand_over(self, job: Callable[[], Any], done: Callable[[Any, Exception | None], None]) -> None:
        self._busy = True

        def back(result: Any, error: Exception | None) -> None:
            self._busy = False
            try:
                done(result, error)
            finally:
                self._turn()

        self._writer.submit(job, back)

    def _begin(self) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if is_busy(error):
                self._hand_over(lambda: database.begin_patiently(self._connection, BUSY_WAIT_MS), self._begun)
            else:
                self._refuse(self._take(), error)
            return
        self._write_group()

    def _begun(self, _: None, error: Exception | None) -> None:
        if error is None:
            self._write_group()
        else:
            self._refuse(self._take(), error)

    def _take(self) -> list[_Write]:
        pending = self._pending
        return [pending.popleft() for _ in range(min(len(pending), BATCH_WRITES))]

    def _write_group(self) -> None:
        writes = self._take()
        try:
            group = self._execute(writes)
            if not group.events:
                self._connection.execute("ROLLBACK")
        except (sqlite3.Error, OverflowError) as error:
            self._refuse(writes, error)
            return
        if group.events:
            commit = self._connection.execute
            self._hand_over(lambda: commit("COMMIT"), lambda _, error: self._committed(group, error))
        else:
            self._answer(group)
            self._turn()

    def _execute(self, writes: list[_Write]) -> _Group:
        execute = self._connection.execute
        revision = self._revision
        group = _Group([], [])
        for key, value, expected, answer in writes:
            row = execute(history.GET, (key,)).fetchone()
            current = Entry(*row) if row else None
            at = current.revision if current else 0
            if at != expected or (current is None and value is None):
                group.answers.append((answer, KeyConflict(key, current)))
                continue
            revision += 1
            created = current.created if current else revision
            execute(_INSERT, (revision, key, created, at, value))
            if value is None:
                execute(_UNSET_CURRENT, (key,))
            else:
                execute(_SET_CURRENT, (key, revision))
            group.events.append(Event(revision, key, value, current, created))
            group.answers.append((answer, revision))
        return group

    def _committed(self, group: _Group, error: Exception | None) -> None:
        if error is not None:
            failure = self._failed("write to", error, commit=True)
            # Also those that lost: what they lost to is not there.
            for answer, _ in group.answers:
                _fail(answer, failure)
            return
        self._problem = ""
        self._wrote(checkpoint.pages_of(group.events))
        try:
            self._deliver(group.events)
        finally:
            self._answer(group)

    def _deliver(self, events: list[Event]) -> None:
        self._revision = events[-1].revision
        waiting, self._waiting_readers = self._waiting_readers, []
        for reader in waiting:
            if not reader.done():
                reader.set_result(None)
        if self._subscriber is not None:
            self._subscriber(events)

    def _answer(self, group: _Group) -> None:
        for answer, result in group.answers:
            if answer.done():  # whoever waited was cancelled
                continue
            if isinstance(result, KeyConflict):
                answer.set_exception(result)
            else:
                answer.set_result(result)

    def _refuse(self, writes: list[_Write], error: Exception) -> None:
        failure = self._failed("write to", error)
        for write in writes:
            _fail(write.answer, failure)
        self._schedule()

    def _failed(self, doing: str, error: Exception, *, commit: bool = False) -> Exception:
        """Gives the transaction up; the error to answer with. One that is none of the database's stays what it is."""
        if not isinstance(error, (sqlite3.Error, OSError)):
            database.rollback(self._connection)
            return error
        self._doubt(error)
        read_only = database.is_read_only(self._path)
        failure = unavailable(doing, str(self._path), error, read_only=read_only, uncertain=commit)
        if str(failure) != self._problem:  # once, not for each write that meets the same full disk
            log.warning("%s", failure)
        self._problem = str(failure)
        return failure

    def _doubt(self, error: Exception) -> None:
        """Gives the transaction up and tries again soon."""
        database.rollback(self._connection)
        name = getattr(error, "sqlite_errorname", "") or ""
        # After anything but these, what the connection believes about its files may be wrong: it is made anew.
        self._suspect = isinstance(error, sqlite3.Error) and not name.startswith(("SQLITE_FULL", "SQLITE_BUSY"))
        if self._retry is None and self._open:
            self._retry = self._loop.call_later(RETRY_S, self._try)

    def _try(self) -> None:
        self._retry = None
        if self._problem:
            self._probe = True
            self._schedule()

    def _probed(self, _: None, error: Exception | None) -> None:
        self._probe = False
        if error is not None:
            self._doubt(error)
        elif self._problem:
            log.warning("The datastore %s can be written again", self._path)
            self._problem = ""

    def _reopened(self, opened: database.Opened | None, error: Exception | None) -> None:
        if error is None and opened is not None and opened.revision < self._revision:
            opened.connection.close()
            error = Unavailable(
                f"Cannot go on with the datastore {self._path}: it went back from revision {self._revision} to "
                f"{opened.revision}; restart to continue from there"
            )
        if error is not None or opened is None:
            failure = self._failed("open", error or Unavailable(f"Cannot open the datastore {self._path}"))
            for write in self._take():
                _fail(write.answer, failure)
            self._upkeep.end(failure)
            self._probe = False
            return
        self._connection.close()
        self._connection = opened.connection
        self._suspect = False
        # The reader may have a file open that is not there any more: the disk may have been mounted anew.
        self._renew_reader()
        # A commit that was reported as failed may have reached the disk after all.
        late = history.events(self._connection, "", self._revision, opened.revision, 0)
        if late:
            self._deliver(late)

    # --- compaction ---

    async def compact(self, revision: int) -> None:
        """Forgets history before `revision` in short steps between the writes; returns when it is done."""
        self._check_open()
        self._oldest = goal = max(self._oldest, min(revision, self._revision))
        answer = self._upkeep.compact(goal)
        if answer is not None:
            self._schedule()
            await answer

    def _kept_up(self, step: Step | None, error: Exception | None) -> None:
        if step is None:
            failure = self._failed("compact", error or RuntimeError("a step of upkeep gave no answer"))
            self._upkeep.end(failure)
        elif self._open:
            self._wrote(step.pages)
            if rest_s := self._upkeep.took(step, self._loop.time()):
                self._rest = self._loop.call_later(rest_s, self._rested)

    def _rested(self) -> None:
        self._upkeep.rested()
        self._schedule()

    # --- the write-ahead log ---

    def _wrote(self, pages: int) -> None:
        if self._wal.wrote(pages):
            self._reading_thread().submit(lambda: checkpoint.copy(self._reader_connection()), self._copied)

    def _copied(self, _: None, error: Exception | None) -> None:
        # An error is no write's: what could not be copied stays in the log, and the next writes meet the same disk.
        if error is not None:
            self._renew_reader()
        self._wal.copied()
        if self._open:
            self._schedule()

    # --- reading ---

    async def get(self, key: str, revision: int = 0) -> Entry | None:
        """The key as of `revision` (0: now). Raises Compacted, FutureRevision, Unavailable."""
        check_readable(revision, self._oldest, self._revision)
        if revision:
            entry = await self._read(lambda c: history.get_at(c, key, revision))
            check_readable(revision, self._oldest, self._revision)
            return entry
        read, entry = await self._read(lambda c: history.get_now(c, key))
        await self._delivered(read)
        return entry

    async def list(self, prefix: str, revision: int = 0, after: str = "", limit: int = 0) -> tuple[int, Entries]:
        """The entries with this prefix as of `revision`. Raises Compacted, FutureRevision, Unavailable."""
        check_readable(revision, self._oldest, self._revision)
        if revision:
            entries = await self._read(lambda c: history.list_at(c, prefix, revision, after, limit))
            check_readable(revision, self._oldest, self._revision)  # compaction may have passed meanwhile
            return revision, entries
        read, entries = await self._read(lambda c: history.list_now(c, prefix, after, limit))
        await self._delivered(read)
        return read, entries

    async def events(self, prefix: str, after: int, limit: int = 0) -> Events:
        """The events after revision `after` with this prefix. Raises Compacted, Unavailable."""
        upto = self._revision
        found = await self._read(lambda c: history.events(c, prefix, after, upto, limit))
        if after < self._oldest:
            raise Compacted(after, self._oldest)
        return found

    async def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        self._check_open()
        try:
            return await self._reading_thread().run(lambda: query(self._reader_connection()))  # type: ignore[no-any-return]
        except (sqlite3.Error, OSError) as error:
            if not (isinstance(error, sqlite3.Error) and is_busy(error)):
                self._renew_reader()
            raise unavailable("read", str(self._path), error) from error

    def _reading_thread(self) -> Worker:
        if self._reader is None:
            self._reader = Worker("store-reader")
        return self._reader

    def _reader_connection(self) -> sqlite3.Connection:
        if self._reading is None:
            self._reading = database.open_reader(self._path)
        return self._reading

    def _renew_reader(self) -> None:
        if self._reader is not None:
            self._reader.submit(self._close_reader, lambda _, __: None)

    def _close_reader(self) -> None:
        if self._reading is not None:
            connection, self._reading = self._reading, None
            connection.close()

    async def _delivered(self, revision: int) -> None:
        """A read may see a commit a moment before the subscriber does; its answer waits for that."""
        while self._revision < revision:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiting_readers.append(waiter)
            await waiter

    def _check_open(self) -> None:
        if not self._open:
            raise Unavailable(f"Cannot use the datastore {self._path}: it is closed")


def _fail(answer: asyncio.Future[Any], failure: Exception) -> None:
    if not answer.done():
        answer.set_exception(failure)
