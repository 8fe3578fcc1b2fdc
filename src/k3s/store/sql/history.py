"""Reads of the SQLite datastore: the present from `current`, the past from the log's index."""

from __future__ import annotations

import sqlite3

from k3s.store.interface import Entry, Event
from k3s.store.log import prefix_end
from k3s.store.sql.database import newest

# Sorts after every key: keys are text without this last code point of Unicode.
_AFTER_ALL = chr(0x10FFFF)

GET = (
    "SELECT c.key, l.value, l.revision, l.created FROM current c JOIN log l ON l.revision = c.revision WHERE c.key = ?"
)
_GET_AT = "SELECT key, value, revision, created FROM log WHERE key = ? AND revision <= ? ORDER BY revision DESC LIMIT 1"
_LIST = (
    "SELECT c.key, l.value, l.revision, l.created FROM current c JOIN log l ON l.revision = c.revision "
    "WHERE c.key >= ? AND c.key < ? AND c.key > ? ORDER BY c.key LIMIT ?"
)
_LIST_AT = (
    "SELECT max(revision) FROM log INDEXED BY log_by_key "
    "WHERE key >= ? AND key < ? AND key > ? AND revision <= ? GROUP BY key"
)
_ROW = "SELECT key, value, revision, created FROM log WHERE revision = ?"
_EVENTS = (
    "SELECT l.revision, l.key, l.value, l.created, p.value, p.revision, p.created "
    "FROM log l LEFT JOIN log p ON l.previous > 0 AND p.revision = l.previous "
    "WHERE l.revision > ? AND l.revision <= ? AND l.key >= ? AND l.key < ? ORDER BY l.revision LIMIT ?"
)


def get_now(connection: sqlite3.Connection, key: str) -> tuple[int, Entry | None]:
    """The key as it is, and the revision of the moment it was read at."""
    connection.execute("BEGIN")
    try:
        row = connection.execute(GET, (key,)).fetchone()
        return newest(connection), Entry(*row) if row else None
    finally:
        connection.execute("COMMIT")


def get_at(connection: sqlite3.Connection, key: str, revision: int) -> Entry | None:
    """The key as of `revision`."""
    row = connection.execute(_GET_AT, (key, revision)).fetchone()
    return Entry(*row) if row and row[1] is not None else None


def list_now(connection: sqlite3.Connection, prefix: str, after: str, limit: int) -> tuple[int, list[Entry]]:
    """The entries that exist, and the revision of the moment they were read at."""
    connection.execute("BEGIN")
    try:
        rows = connection.execute(_LIST, (*_range(prefix), after, limit or -1)).fetchall()
        return newest(connection), [Entry(*row) for row in rows]
    finally:
        connection.execute("COMMIT")


def list_at(connection: sqlite3.Connection, prefix: str, revision: int, after: str, limit: int) -> list[Entry]:
    """The entries that existed at `revision`; looks at one index until the page is full."""
    found: list[Entry] = []
    connection.execute("BEGIN")
    try:
        for (last,) in connection.execute(_LIST_AT, (*_range(prefix), after, revision)):
            row = connection.execute(_ROW, (last,)).fetchone()
            if row[1] is not None:
                found.append(Entry(*row))
                if len(found) == limit:
                    break
    finally:
        connection.execute("COMMIT")
    return found


def events(connection: sqlite3.Connection, prefix: str, after: int, upto: int, limit: int) -> list[Event]:
    """The events from behind `after` up to `upto`, in order."""
    rows = connection.execute(_EVENTS, (after, upto, *_range(prefix), limit or -1)).fetchall()
    return [
        Event(revision, key, value, Entry(key, *before) if before[1] is not None else None, created)
        for revision, key, value, created, *before in rows
    ]


def _range(prefix: str) -> tuple[str, str]:
    return prefix, prefix_end(prefix) or _AFTER_ALL
