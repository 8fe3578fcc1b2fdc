"""What an error of SQLite means for the person who has to mend it. Pure."""

from __future__ import annotations

import sqlite3

from k3s.store.interface import Unavailable

# Result codes: sqlite.org/rescode.html; extended ones share the name's beginning.
_MEANINGS = (
    ("SQLITE_FULL", "no space is left on its disk; free some, writing then goes on by itself"),
    ("SQLITE_READONLY", "its disk or file is read-only; make it writable, writing then goes on by itself"),
    ("SQLITE_BUSY", "another process holds a lock on it; end that process"),
    ("SQLITE_LOCKED", "another process holds a lock on it; end that process"),
    ("SQLITE_CANTOPEN", "it cannot be opened; check that its folder exists and can be read and written"),
    ("SQLITE_PERM", "access is denied; check who owns it"),
    ("SQLITE_CORRUPT", "it is damaged; restore a snapshot"),
    ("SQLITE_NOTADB", "it is no SQLite database; move the file away or restore a snapshot"),
    ("SQLITE_IOERR", "its disk reports an error; check the disk and the kernel's log"),
)


def unavailable(doing: str, path: str, error: sqlite3.Error | OSError) -> Unavailable:
    """The error to answer with; `doing` completes "Cannot …"."""
    name = getattr(error, "sqlite_errorname", "") or ""
    for start, meaning in _MEANINGS:
        if name.startswith(start):
            return Unavailable(f"Cannot {doing} the datastore {path}: {meaning} ({name}: {error})")
    return Unavailable(f"Cannot {doing} the datastore {path}: {error} ({name or type(error).__name__})")


def is_busy(error: sqlite3.Error) -> bool:
    """Whether only somebody else's lock stands in the way."""
    return (getattr(error, "sqlite_errorname", "") or "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
