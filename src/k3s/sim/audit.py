"""Checks a recorded history: pure, exact, and in time that grows with its length. After etcd's robustness tests.

Every write takes a revision of its own, so the order in which a correct server did things is known. What is left to
check is that this one order explains everything that was seen:

- Writes: what was acknowledged is there, at the revision told, once; what was refused is not; compare-and-swap held.
- Linearizability: each request can be given a moment between its begin and its end. Writes have theirs (the revision);
  a read may have any at which the key looked like that. Going through the beginnings and ends in order with the newest
  moment that has passed for sure (`floor`) decides it: a read takes the earliest moment that it can have.
- Watches: in order, unique, without gaps from the first event to the last also across resumptions, told as what they
  are (ADDED, MODIFIED, DELETED by the selector), and bookmarks are true: nothing up to them comes later.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from k3s.sim.history import (
    ADDED,
    ANY,
    DELETED,
    FAILED,
    LIST,
    LOST,
    MODIFIED,
    NOTHING,
    OK,
    READ,
    REFUSED,
    REMOVE,
    WRITE,
    History,
    Operation,
    Seen,
    Stretch,
    Told,
    Watch,
)

BOOKMARK = "BOOKMARK"
_NEVER = 1 << 62


def audit(history: History) -> list[str]:
    """What cannot have happened on a correct server, a sentence each; nothing when all is well."""
    order = Order(history)
    found = list(order.problems)
    found += _writes(history, order)
    found += _moments(history, order)
    for watch in history.watches:
        found += _watch(watch, order)
    return found


class Order:
    """The states of each key by revision, put together from everything that anybody saw."""

    def __init__(self, history: History) -> None:
        self.problems: list[str] = []
        self.by_revision: dict[int, Seen] = {}
        self.by_value: dict[str, int] = {}
        for source, seen in _sightings(history):
            self._add(source, seen)
        self.keys: dict[str, list[Seen]] = {}
        for revision in sorted(self.by_revision):
            seen = self.by_revision[revision]
            self.keys.setdefault(seen.key, []).append(seen)
        self._revisions = sorted(self.by_revision)

    def _add(self, source: str, seen: Seen) -> None:
        known = self.by_revision.setdefault(seen.revision, seen)
        if known != seen:
            self.problems.append(f"two truths at revision {seen.revision}: {known}, and {seen} ({source})")
        elif seen.value is not None and self.by_value.setdefault(seen.value, seen.revision) != seen.revision:
            twice = self.by_value[seen.value]
            self.problems.append(f"written twice: {seen.value} of {seen.key} at {twice} and {seen.revision} ({source})")

    def at(self, key: str, revision: int) -> Seen | None:
        """What the key held at a revision; None when nothing."""
        states = self.keys.get(key, [])
        last = bisect_right(states, revision, key=lambda seen: seen.revision) - 1
        return states[last] if last >= 0 and states[last].value is not None else None

    def after(self, key: str, revision: int) -> int:
        """When the key was written next after a revision; never is a very large number."""
        states = self.keys.get(key, [])
        following = bisect_right(states, revision, key=lambda seen: seen.revision)
        return states[following].revision if following < len(states) else _NEVER

    def earliest(self, key: str, floor: int, present: bool) -> int:
        """The first moment from `floor` on at which the key was there (or was not)."""
        moment = floor
        while (self.at(key, moment) is not None) != present:
            moment = self.after(key, moment)
            if moment == _NEVER:
                return _NEVER
        return moment

    def between(self, after: int, upto: int) -> Iterator[Seen]:
        """Every write with a revision greater than `after`, up to `upto`, in order."""
        first, last = bisect_right(self._revisions, after), bisect_right(self._revisions, upto)
        for revision in self._revisions[first:last]:
            yield self.by_revision[revision]


def _sightings(history: History) -> Iterator[tuple[str, Seen]]:
    for seen in history.log:
        yield "the datastore", seen
    for operation in history.operations:
        if operation.outcome == OK:
            if operation.what == WRITE or (operation.what == READ and operation.revision):
                yield str(operation), Seen(operation.revision, operation.key, operation.value)
            for item in operation.items:
                yield str(operation), item
    for watch in history.watches:
        for stretch in watch.stretches:
            for item in stretch.items or ():
                yield f"{watch.client}'s initial state", item
            for told in stretch.events:
                if told.type in (ADDED, MODIFIED):
                    yield f"{watch.client}'s {told.type}", told.seen
                # A DELETED of a selector may be a change that leaves it: what it became is not in the event.
                elif told.type == DELETED and watch.matches is None:
                    yield f"{watch.client}'s DELETED", Seen(told.seen.revision, told.seen.key, None)


# --- writes


def _writes(history: History, order: Order) -> Iterator[str]:
    meant = {operation.value for operation in history.operations if operation.what == WRITE}
    for value, revision in order.by_value.items():
        if value not in meant:
            yield f"nobody wrote {value}, which is at revision {revision}"
    in_log = {seen.revision for seen in history.log}
    for operation in history.operations:
        if operation.what == WRITE:
            yield from _write(operation, order, history.log_from, in_log)
        elif operation.what == REMOVE and operation.outcome == OK:
            gone = order.after(operation.key, operation.expected)
            if gone == _NEVER or order.by_revision[gone].value is not None:
                yield f"acknowledged deletion lost: {operation}"


def _write(operation: Operation, order: Order, log_from: int | None, in_log: set[int]) -> Iterator[str]:
    assert operation.value is not None
    revision = order.by_value.get(operation.value)
    if operation.outcome in (REFUSED, FAILED):
        if revision is not None:
            yield f"refused and done all the same, at revision {revision}: {operation}"
        return
    if operation.outcome == OK and log_from is not None and log_from < operation.revision not in in_log:
        yield f"acknowledged write lost: {operation}"
    if revision is None:
        return
    before = order.at(operation.key, revision - 1)
    found = before.revision if before is not None else NOTHING
    if operation.expected not in (ANY, found):
        yield f"compare-and-swap of {operation.expected} found {found} at revision {revision}: {operation}"


# --- linearizability


def _moments(history: History, order: Order) -> Iterator[str]:
    """Goes through time with the newest moment that has passed for sure."""
    steps: list[tuple[int, bool, Operation]] = []
    for operation in history.operations:
        steps.append((operation.began, False, operation))
        if operation.ended and operation.outcome != LOST:
            steps.append((operation.ended, True, operation))
    floor = 0
    least: dict[int, int] = {}
    for _, ends, operation in sorted(steps, key=lambda step: step[0]):
        if not ends:
            least[id(operation)] = floor
            made = _revision_made(operation, order)
            # Whatever became of it: it cannot have been done before it was asked for.
            if made is not None and made <= floor:
                yield f"done at revision {made}, though {floor} had been seen before it was asked for: {operation}"
            continue
        since = least[id(operation)]
        moment = _moment(operation, order, since)
        if moment is None:
            continue
        if operation.what in (READ, LIST) and moment < since:
            yield f"stale: {operation} is from before {since}, which had been seen when it was asked for"
        elif moment == _NEVER:
            yield f"never true since {since}, which had been seen when it was asked for: {operation}"
        else:
            floor = max(floor, moment)
        if operation.what == LIST:
            yield from _state(str(operation), operation.items, operation.revision, order)


def _revision_made(operation: Operation, order: Order) -> int | None:
    if operation.what == WRITE:
        return order.by_value.get(operation.value or "")
    if operation.what == REMOVE and operation.outcome == OK:
        gone = order.after(operation.key, operation.expected)
        return None if gone == _NEVER else gone
    return None


def _moment(operation: Operation, order: Order, since: int) -> int | None:
    """The earliest moment of an operation that ended; None when it tells nothing."""
    if operation.outcome == OK:
        if operation.what == LIST:
            return operation.revision
        if operation.what != READ:
            return _revision_made(operation, order)
        if not operation.revision:
            return order.earliest(operation.key, since, False)
        gone = order.after(operation.key, operation.revision)
        return max(since, operation.revision) if since < gone else operation.revision
    if operation.outcome != REFUSED:
        return None
    if operation.expected > 0:
        return max(since, order.after(operation.key, operation.expected))
    return order.earliest(operation.key, since, operation.expected == NOTHING)


def _state(who: str, items: Iterable[Seen], revision: int, order: Order, watch: Watch | None = None) -> Iterator[str]:
    """Whether this is what was there at a revision."""
    listed = {item.key: item for item in items}
    for key in order.keys:
        there = order.at(key, revision)
        if there is not None and not _chosen(watch, there):
            there = None
        if listed.get(key) != there:
            yield f"not the state at revision {revision}: {who} has {listed.get(key)} where {there} was"


# --- watches


def _watch(watch: Watch, order: Order) -> Iterator[str]:
    last: int | None = None
    for stretch in watch.stretches:
        if stretch.items is not None:
            yield from _state(f"{watch.client}'s initial state", stretch.items, stretch.after, order, watch)
        elif last is not None and stretch.after != last:
            yield f"{watch.client} resumed after {stretch.after}, though it had been told of {last}"
        upto = stretch.after
        for told in stretch.events:
            if told.seen.revision <= upto and not (told.type == BOOKMARK and told.seen.revision == upto):
                what = "a bookmark" if told.type == BOOKMARK else f"{told.type} {told.seen.key}"
                yield f"{watch.client} was told of {what} at {told.seen.revision} after {upto}"
            upto = max(upto, told.seen.revision)
        last = upto
        yield from _told(watch, stretch, last, order)
    if last is not None and watch.upto > last:
        for seen in order.between(last, watch.upto):
            if _meant(watch, seen, order)[0]:
                yield f"{watch.client} was never told of {seen}, which came after {last}"


def _told(watch: Watch, stretch: Stretch, upto: int, order: Order) -> Iterator[str]:
    """Whether the events of a stretch are all there were, and are what they say."""
    events: dict[int, Told] = {}
    for told in stretch.events:
        if told.type != BOOKMARK:
            events.setdefault(told.seen.revision, told)
    for seen in order.between(stretch.after, upto):
        kind, value = _meant(watch, seen, order)
        found = events.pop(seen.revision, None)
        if found is None:
            if kind:
                yield f"{watch.client} was not told of {kind} {seen}, though of what came later"
        elif found.type != kind:
            yield f"{watch.client} was told {found.type} instead of {kind or 'nothing'}: {found.seen}"
        elif found.seen.value != value:
            yield f"{watch.client} was told {found.type} {found.seen}, which was {value}"
    for other in events.values():
        yield f"{watch.client} was told of {other.type} {other.seen}, which never happened"


def _meant(watch: Watch, seen: Seen, order: Order) -> tuple[str, str | None]:
    """What a write means to a watch, and the value it tells of; nothing ("") when it is none of its business."""
    before = order.at(seen.key, seen.revision - 1)
    was = before is not None and _chosen(watch, before)
    if seen.value is not None and _chosen(watch, seen):
        return (MODIFIED if was else ADDED), seen.value
    return (DELETED, before.value) if was and before is not None else ("", None)


def _chosen(watch: Watch | None, seen: Seen) -> bool:
    return watch is None or watch.matches is None or watch.matches(seen)
