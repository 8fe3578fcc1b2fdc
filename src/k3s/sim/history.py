"""What clients did and saw, as values: operations with the moments of their begin and end, and watches. Pure.

A history is recorded in one process, so the moments are numbers of one counter: what ended with a smaller number than
something else began with came before it, for everybody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

# Kinds of operations. `WRITE` creates or replaces, `REMOVE` deletes, `READ` is of one key, `LIST` of all keys.
WRITE, REMOVE, READ, LIST = "write", "remove", "read", "list"
# How they ended. REFUSED found its precondition unmet, FAILED had no effect for another reason, LOST may have had one.
OK, REFUSED, FAILED, LOST = "ok", "refused", "failed", "lost"
# Preconditions of a write: that nothing is there, or nothing at all; any other number is a revision.
NOTHING, ANY = 0, -1
ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"


@dataclass(frozen=True, slots=True)
class Seen:
    """A key at a revision. The value of a write is unlike that of any other; None stands for a deletion."""

    revision: int
    key: str
    value: str | None


@dataclass(slots=True)
class Operation:
    """One request. `expected` is the revision it had to find (a write that was refused found another).

    `revision` is the answer's: of a write the one it made, of a read the object's (0: not found), of a list the list's.
    """

    client: str
    what: str
    key: str
    began: int
    ended: int = 0
    outcome: str = LOST
    value: str | None = None
    expected: int = ANY
    revision: int = 0
    items: tuple[Seen, ...] = ()

    def __str__(self) -> str:
        about = f"{self.what} {self.key} {self.value or ''}".rstrip()
        when = f"[{self.began}..{self.ended or ''}]"
        return f"{self.client}'s {about} {when} -> {self.outcome} {self.revision or ''}".rstrip()


@dataclass(frozen=True, slots=True)
class Told:
    """One event of a watch: a bookmark has no key, DELETED tells of the value that was there before."""

    type: str
    seen: Seen


@dataclass(slots=True)
class Stretch:
    """One watch request: everything after revision `after` was asked for.

    `items` is the state that it began with (a list before it, or its initial events); None when it resumed.
    """

    after: int
    items: tuple[Seen, ...] | None = None
    events: list[Told] = field(default_factory=list)


@dataclass(slots=True)
class Watch:
    """What one watcher lived through, request after request. `matches` is its selector (None: everything).

    `upto`: the watcher was let go only after it had to know everything up to this revision (0: it was not).
    """

    client: str
    matches: Callable[[Seen], bool] | None = None
    stretches: list[Stretch] = field(default_factory=list)
    upto: int = 0


@dataclass(slots=True)
class History:
    """Everything that was recorded. `log` is what the datastore holds after revision `log_from` (None: unread)."""

    operations: list[Operation] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)
    log: list[Seen] = field(default_factory=list)
    log_from: int | None = None
    moments: int = 0

    def moment(self) -> int:
        """The next number of the counter."""
        self.moments += 1
        return self.moments

    def begin(self, client: str, what: str, key: str = "", value: str | None = None, expected: int = ANY) -> Operation:
        """Notes that a request is being sent; lost until something else is said."""
        operation = Operation(client, what, key, self.moment(), value=value, expected=expected)
        self.operations.append(operation)
        return operation
