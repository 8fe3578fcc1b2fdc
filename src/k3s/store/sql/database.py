"""The SQLite file: how it is made and opened, and what it says of itself.

    log       one row for each write; the revision is the row's number; value NULL is a deletion
    current   the newest revision of each key that exists, so that neither a write nor a list looks at history
    meta      one row: history before `compacted` cannot be read; up to `swept` it is gone from the file, too

`synchronous=FULL` with a write-ahead log: a commit returns after the disk has it (sqlite.org/pragma.html).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from k3s.base.files import folder
from k3s.store.interface import Unavailable
from k3s.store.sql.failures import unavailable

SCHEMA_VERSION = 1
SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS log (
    revision INTEGER PRIMARY KEY, key TEXT NOT NULL, created INTEGER NOT NULL, previous INTEGER NOT NULL, value BLOB);
CREATE INDEX IF NOT EXISTS log_by_key ON log (key, revision);
CREATE TABLE IF NOT EXISTS current (key TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (
    id INTEGER PRIMARY KEY CHECK (id = 1), compacted INTEGER NOT NULL, swept INTEGER NOT NULL);
INSERT OR IGNORE INTO meta VALUES (1, 0, 0);
PRAGMA user_version = 1;
COMMIT;
"""

# Pages (4 KiB) that the write-ahead log is to have: `checkpoint` copies it into the file from half of that on. A commit
# does so only when that has not come to its end (a long read) and the log is much longer.
WAL_PAGES, WAL_PAGES_MOST = 1000, 4000
WAL_BYTES = WAL_PAGES * 4096
# KiB of page cache. The API server keeps every current object itself; this is for index pages.
WRITER_CACHE_KIB, READER_CACHE_KIB = 1024, 256


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection for writing, and where the log stands."""

    connection: sqlite3.Connection
    revision: int
    compacted: int
    swept: int


def take_ownership(path: Path) -> int:
    """Locks the datastore for this process (two would give the same revision twice); the descriptor to close.

    The lock is on a file of its own: closing the database's file would drop SQLite's own locks. It ends with the
    process. Raises Unavailable when another process has it.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        folder(path.parent)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unavailable("open", str(path), error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise Unavailable(f"Cannot open the datastore {path}: another process uses it; stop that one first") from error
    return descriptor


def open_writer(path: Path, *, again: bool = False) -> Opened:
    """Opens the file for writing; makes it and the schema when they are missing. Raises Unavailable.

    `again`: it was open before, so a missing one is not made: its disk may be away, and be mounted again.
    """
    try:
        if not path.exists():
            if again:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            _make_file(path)
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            return _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, OSError) as error:
        raise unavailable("open", str(path), error) from error


def _make_file(path: Path) -> None:
    """The mode has to be right from the first byte: SQLite gives its side files the same one."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    # The folders may be as new as the file: their names, too, have to be on the disk before the first answer is.
    for parent in path.parents:
        descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if os.fstat(descriptor).st_dev != path.stat().st_dev:
                break
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _prepare(connection: sqlite3.Connection, path: Path) -> Opened:
    # Does nothing once there are tables: a file may be left empty by a power failure in its first moment.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA busy_timeout = 5000")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_MOST}")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    connection.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")
    connection.execute("PRAGMA temp_store = MEMORY")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise Unavailable(
            f"Cannot open the datastore {path}: its schema {version} is newer than this release's ({SCHEMA_VERSION}); "
            "run the newer release or restore a snapshot"
        )
    if version < SCHEMA_VERSION:
        connection.executescript(SCHEMA)
    # From here on a lock of somebody else is noticed at once instead of waited for.
    connection.execute("PRAGMA busy_timeout = 0")
    compacted, swept = connection.execute("SELECT compacted, swept FROM meta").fetchone()
    return Opened(connection, newest(connection), compacted, swept)


def open_reader(path: Path) -> sqlite3.Connection:
    """A second connection, for reading only. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA query_only = ON")
    connection.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
    return connection


def newest(connection: sqlite3.Connection) -> int:
    """The newest revision: of the last row, or where compaction went when the last rows were deletions."""
    statement = "SELECT max(ifnull((SELECT max(revision) FROM log), 0), (SELECT compacted FROM meta))"
    return int(connection.execute(statement).fetchone()[0])


def begin_patiently(connection: sqlite3.Connection, wait_ms: int) -> None:
    """Begins a write transaction, waiting for the lock of another process. Raises sqlite3.Error."""
    connection.execute(f"PRAGMA busy_timeout = {wait_ms}")
    try:
        connection.execute("BEGIN IMMEDIATE")
    finally:
        connection.execute("PRAGMA busy_timeout = 0")


def rollback(connection: sqlite3.Connection) -> None:
    """Gives up an open transaction, if there is one; an error here adds nothing to the one that led to it."""
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def probe(connection: sqlite3.Connection, path: Path) -> None:
    """Tries whether writing works again, by a write that changes nothing. Raises sqlite3.Error, OSError."""
    if (os.statvfs(path).f_bavail * os.statvfs(path).f_frsize) < WAL_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE meta SET swept = swept")
        connection.execute("COMMIT")
    except BaseException:
        rollback(connection)
        raise


def is_read_only(path: Path) -> bool:
    """Whether the disk of a file says that it is read-only.

    Asked by a change of its time: one that the kernel made read-only after an error does not say so in its flags.
    """
    try:
        os.utime(path)
    except OSError as error:
        return error.errno == errno.EROFS
    return False
