"""What an error of SQLite means for the person who has to mend it. Pure."""

from __future__ import annotations

import sqlite3

from k3s.store.interface import Unavailable, Uncertain

_READ_ONLY = "its disk or file is read-only; make it writable, writing then goes on by itself"
# A commit that ends with one of these has left nothing: the frame that makes it one is written last (walWriteFrames).
_UNDONE = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_READONLY")
# Result codes: sqlite.org/rescode.html; extended ones share the name's beginning.
_MEANINGS = (
    ("SQLITE_FULL", "no space is left on its disk; free some, writing then goes on by itself"),
    ("SQLITE_READONLY", _READ_ONLY),
    ("SQLITE_BUSY", "another process holds a lock on it; end that process"),
    ("SQLITE_LOCKED", "another process holds a lock on it; end that process"),
    ("SQLITE_CANTOPEN", "it cannot be opened; check that its folder exists and can be read and written"),
    ("SQLITE_PERM", "access is denied; check who owns it"),
    ("SQLITE_CORRUPT", "it is damaged; restore a snapshot"),
    ("SQLITE_NOTADB", "it is no SQLite database; move the file away or restore a snapshot"),
    ("SQLITE_IOERR", "its disk reports an error; check the disk and the kernel's log"),
)


def unavailable(
    doing: str, path: str, error: sqlite3.Error | OSError, *, read_only: bool = False, uncertain: bool = False
) -> Unavailable:
    """The error to answer with; `doing` completes "Cannot …".

    `read_only`: the disk says so of itself, where SQLite only knows of a failed write. `uncertain`: it was a commit.
    """
    name = getattr(error, "sqlite_errorname", "") or ""
    if uncertain and not name.startswith(_UNDONE):
        return Uncertain(f"Cannot tell whether the datastore {path} took this: the commit failed ({name}: {error})")
    if name.startswith("SQLITE_IOERR") and read_only:
        return Unavailable(f"Cannot {doing} the datastore {path}: {_READ_ONLY} ({name}: {error})")
    for start, meaning in _MEANINGS:
        if name.startswith(start):
            return Unavailable(f"Cannot {doing} the datastore {path}: {meaning} ({name}: {error})")
    return Unavailable(f"Cannot {doing} the datastore {path}: {error} ({name or type(error).__name__})")


def is_busy(error: sqlite3.Error) -> bool:
    """Whether only somebody else's lock stands in the way."""
    return (getattr(error, "sqlite_errorname", "") or "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
