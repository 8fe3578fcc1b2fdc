"""When the write-ahead log is copied into the file, so that it stays short and no write waits for it.

Most of it is copied beside the writes, by the reader's thread and connection. Those add to the log meanwhile, so what
they added is copied between two of them, by the writer: nothing is left then, and the next write begins the log anew.

    quiet ──enough pages──▶ copying (the reader's thread) ──▶ rest due ──the writer's next turn──▶ quiet
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from k3s.store.interface import Event
from k3s.store.sql.database import WAL_PAGES

# Pages (4 KiB) that a write changes: of the table, its index and `current`; more for a large value.
_PAGES_A_WRITE = 4


def pages_of(events: Iterable[Event]) -> int:
    """About how many pages a transaction with these events adds to the log."""
    return sum(_PAGES_A_WRITE + len(event.value or b"") // 4096 for event in events)


def copy(connection: sqlite3.Connection) -> None:
    """Copies what is in the log and no reader needs there; waits for nobody. Raises sqlite3.Error."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


class Checkpoints:
    """Counts what is in the log, and tells when it is time to copy it."""

    def __init__(self) -> None:
        self._pages = 0
        self.copying = False
        self.rest_due = False

    def wrote(self, pages: int) -> bool:
        """Notes what a transaction added; True when copying is to begin."""
        self._pages += pages
        if self._pages < WAL_PAGES // 2 or self.copying or self.rest_due:
            return False
        self.copying = True
        return True

    def copied(self) -> None:
        """The reader's thread is done."""
        self.copying = False
        self.rest_due = True

    def emptied(self) -> None:
        """The writer is done."""
        self.rest_due = False
        self._pages = 0
