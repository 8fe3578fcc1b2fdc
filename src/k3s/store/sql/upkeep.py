"""What keeps the file small: compaction, then giving space back, in short steps between the writes.

A step holds the connection, so writes that come meanwhile wait for it. It aims at `STEP_AIM_S`, and then rests for
twice as long: upkeep takes a third of the time, and gets it whatever the load. That is more than the writes which fit
into the other two thirds leave behind.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from k3s.store.sql.database import rollback

log = logging.getLogger(__name__)

STEP_AIM_S = 0.008
# Rests between steps are this many times as long as the step before, but no longer than some groups of writes take:
# where steps are slow because the processor is busy, history would grow faster than it is forgotten.
_REST, _REST_MOST_S = 2, 0.03
# Rows that one step looks at. Fewer where the disk is slow: what a step has changed is written when it ends.
_ROWS_MIN, _ROWS_MAX = 128, 512
# Free pages (4 KiB) are given back once they are this many and a quarter of the file, in steps of so many.
_FREE_PAGES_KEPT, _VACUUM_PAGES = 1024, 256

_FORGET = (
    "DELETE FROM log WHERE revision IN ("
    "SELECT previous FROM log WHERE revision > :after AND revision <= :upto AND previous > 0 UNION ALL "
    "SELECT revision FROM log WHERE revision > :after AND revision <= :upto AND value IS NULL)"
)


@dataclass(frozen=True, slots=True)
class Step:
    """What a step did, in `seconds`, adding about so many `pages` to the write-ahead log.

    History up to `swept` is gone, `looked` rows were looked at for that, and `rows` is how many the next step should
    take. `more`: there may be space to give back.
    """

    swept: int
    rows: int
    seconds: float = 0.0
    pages: int = 0
    looked: int = 0
    more: bool = False


class Upkeep:
    """What is to be done to the file, and the step that is next."""

    def __init__(self, swept: int) -> None:
        self._at = Step(swept, _ROWS_MIN)
        self._compactions: list[tuple[int, asyncio.Future[None]]] = []
        self._resting = False
        self._began = 0.0
        self._steps = 0
        self._longest_s = 0.0

    def compact(self, goal: int) -> asyncio.Future[None] | None:
        """Asks for history before `goal` to go; done when the future is, None: it is gone."""
        if self._at.swept >= goal:
            return None
        loop = asyncio.get_running_loop()
        if not self._compactions:
            self._began, self._steps, self._longest_s = loop.time(), 0, 0.0
        answer: asyncio.Future[None] = loop.create_future()
        self._compactions.append((goal, answer))
        return answer

    def is_due(self) -> bool:
        """Whether a step is to be taken now."""
        return not self._resting and bool(self._compactions or self._at.more)

    def step(self, connection: sqlite3.Connection) -> Callable[[], Step]:
        """The next step, to be taken by the thread that has the connection. Raises sqlite3.Error there."""
        if self._compactions:
            return partial(_sweep, connection, self._at, self._compactions[-1][0])
        return partial(_trim, connection, self._at)

    def took(self, step: Step, now: float) -> float:
        """Notes a step that was taken; for how many seconds to rest, until `rested`, 0 when it was the last one."""
        self._at = step
        self._steps += 1
        self._longest_s = max(self._longest_s, step.seconds)
        finished = [answer for goal, answer in self._compactions if goal <= step.swept]
        self._compactions = [(goal, answer) for goal, answer in self._compactions if goal > step.swept]
        for answer in finished:
            if not answer.done():
                answer.set_result(None)
        if not self._compactions and not step.more:
            took_s = round(now - self._began, 1)
            what = {"revision": step.swept, "seconds": took_s, "steps": self._steps}
            log.info("Datastore compacted", extra={**what, "longest_step_ms": round(self._longest_s * 1e3)})
            return 0.0
        self._resting = True
        return min(_REST * step.seconds, _REST_MOST_S)

    def rested(self) -> None:
        """Ends a rest."""
        self._resting = False

    def end(self, failure: Exception) -> None:
        """Gives up what was asked for."""
        for _, answer in self._compactions:
            if not answer.done():
                answer.set_exception(failure)
        self._compactions.clear()
        self._at = Step(self._at.swept, _ROWS_MIN)


def _sweep(connection: sqlite3.Connection, at: Step, goal: int) -> Step:
    """One step of compaction, a transaction of its own.

    Each row names the one it replaced, so the next rows tell what is superseded without a search. Few statements:
    after each one the thread waits for the interpreter's lock, while the loop is busy for 5 ms a time.
    """
    started = time.monotonic()
    swept = min(goal, at.swept + at.rows)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_FORGET, {"after": at.swept, "upto": swept})
        connection.execute("UPDATE meta SET compacted = ?, swept = ?", (goal, swept))
        connection.execute("COMMIT")
    except BaseException:
        rollback(connection)
        raise
    elapsed = max(time.monotonic() - started, 1e-4)
    fitting = int(at.rows * min(2.0, STEP_AIM_S / elapsed))
    rows = min(max(fitting, _ROWS_MIN), _ROWS_MAX)
    return Step(swept, rows, elapsed, 2 * at.rows, swept - at.swept, swept >= goal)


def _trim(connection: sqlite3.Connection, at: Step) -> Step:
    """Gives some space back to the disk."""
    started = time.monotonic()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    more = free > _FREE_PAGES_KEPT and free > pages // 4
    if more:
        # As a script: `execute` takes the first step of this statement only, and each step frees one page.
        connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
    else:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return Step(at.swept, at.rows, time.monotonic() - started, _VACUUM_PAGES if more else 0, more=more)
