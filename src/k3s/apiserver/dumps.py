"""What /debug/api_priority_and_fairness tells, in upstream's columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from k3s.api import times
from k3s.apiserver.seats import ESTIMATE, Level, Queue, Seating, Ticket

_LEVELS = ("PriorityLevelName", "ActiveQueues", "IsIdle", "IsQuiescing", "WaitingRequests", "ExecutingRequests")
_QUEUES = (
    *("PriorityLevelName", "Index", "PendingRequests", "ExecutingRequests", "SeatsInUse", "NextDispatchR"),
    *("InitialSeatsSum", "MaxSeatsSum", "TotalWorkSum"),
)
_REQUESTS = (
    *("PriorityLevelName", "FlowSchemaName", "QueueIndex", "RequestIndexInQueue", "FlowDistingsher", "ArriveTime"),
    *("InitialSeats", "FinalSeats", "AdditionalLatency"),
)
_DETAILS = ("UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource")
_LEAST_WIDE = 8


def levels(seating: Seating) -> str:
    """One row for each priority level."""
    return _table(_LEVELS, [_level(each) for each in seating.levels.values()])


def _level(level: Level) -> Sequence[str]:
    flags = (str(level.idle).lower(), str(level.quiescing).lower())
    return (level.plan.name, str(len(level.active)), *flags, str(level.waiting), str(level.running))


def queues(seating: Seating) -> str:
    """One row for each queue."""
    return _table(_QUEUES, [_queue(level, each) for level in seating.levels.values() for each in level.queues])


def _queue(level: Level, queue: Queue) -> Sequence[str]:
    seats = sum(ticket.width for ticket in queue.waiting)
    numbers = map(str, (queue.index, len(queue.waiting), queue.running, queue.seats))
    return (level.plan.name, *numbers, _work(queue.start), str(seats), str(seats), _work(seats * ESTIMATE))


def requests(seating: Seating, details: bool, since: float) -> str:
    """One row for each request that waits; `since` is the time of day at which the clock of `arrived` was zero."""
    rows = [
        _request(level, ticket, index, details, since)
        for level in seating.levels.values()
        for queue in level.queues
        for index, ticket in enumerate(queue.waiting)
    ]
    return _table((*_REQUESTS, *_DETAILS) if details else _REQUESTS, rows)


def _request(level: Level, ticket: Ticket, index: int, details: bool, since: float) -> Sequence[str]:
    queue = ticket.queue.index if ticket.queue is not None else 0
    arrived = times.micro(since + ticket.arrived)
    place = (ticket.tally.schema, str(queue), str(index), ticket.flow, arrived, str(ticket.width), "0", "0s")
    if not details:
        return (level.plan.name, *place)
    user, info = ticket.about
    version = f"{info.group}/{info.version}" if info.group else info.version
    about = (info.verb, info.path, info.namespace, info.name, version, info.resource, info.subresource)
    return (level.plan.name, *place, user.name if user is not None else "", *about)


def _work(seat_seconds: float) -> str:
    return f"{seat_seconds:.8f}ss"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Comma-separated cells in aligned columns."""
    lines = [[*(f"{cell}," for cell in row[:-1]), row[-1]] for row in (header, *rows)]
    widths = [max(_LEAST_WIDE, 1 + max(map(len, column))) for column in zip(*lines, strict=True)]
    return "".join(f"{line}\n" for line in _aligned(lines, widths))


def _aligned(lines: Sequence[Sequence[str]], widths: Sequence[int]) -> Iterator[str]:
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False))
        yield "".join(cells) + line[-1]
