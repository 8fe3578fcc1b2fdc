"""Who may run and who waits: seats of priority levels, and fair queues in front of them. Pure: times are handed in.

Rules: the "API Priority and Fairness" page of the Kubernetes documentation, KEP-1040. Each level has a nominal number
of seats by its shares of the total. Every ten seconds the seats are shared out by what was asked for, between what a
level never lends and what it may borrow at most (see `demand`). Nothing runs for that while nobody comes: the periods
that went by are made up for when the next request comes. Within a level flows are dealt to queues (shuffle sharding);
the queue that had least work is next.
"""

from __future__ import annotations

import hashlib
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from math import ceil, floor, inf
from typing import Any, NamedTuple

from k3s.api.object import Object
from k3s.apiserver.demand import PERIOD_S, Claim, Demand, allot

QUEUE_FULL = "queue-full"
TIME_OUT = "time-out"
CONCURRENCY_LIMIT = "concurrency-limit"
#: Seconds that a request is taken to run until it is known.
ESTIMATE = 0.003
_MOST = sys.maxsize


class Plan(NamedTuple):
    """What an object says about its level; percents are None where nothing limits."""

    name: str
    exempt: bool
    shares: int
    lendable: int
    borrowing: int | None
    queues: int
    hand: int
    length: int


def plan(level: Object) -> Plan:
    """Reads a PriorityLevelConfiguration; a level without queues (`queues` 0) rejects what it has no seat for."""
    spec, name = level["spec"], level["metadata"]["name"]
    if spec["type"] == "Exempt":
        exempt = spec.get("exempt") or {}
        shares, lendable = exempt.get("nominalConcurrencyShares") or 0, exempt.get("lendablePercent") or 0
        return Plan(name, True, shares, lendable, None, 0, 0, 0)
    limited = spec.get("limited") or {}
    response = limited.get("limitResponse") or {}
    queuing = response.get("queuing") or {}
    rejects = response.get("type") == "Reject"
    return Plan(
        name,
        False,
        limited.get("nominalConcurrencyShares", 30),
        limited.get("lendablePercent") or 0,
        limited.get("borrowingLimitPercent"),
        0 if rejects else queuing.get("queues") or 64,
        0 if rejects else queuing.get("handSize") or 8,
        0 if rejects else queuing.get("queueLengthLimit") or 50,
    )


class Queue:
    """Requests of some flows in the order they came. `start` is the virtual work at which the next one begins."""

    __slots__ = ("index", "running", "seats", "start", "waiting")

    def __init__(self, index: int) -> None:
        self.index = index
        self.waiting: deque[Ticket] = deque()
        self.start = 0.0
        self.running = self.seats = 0

    def load(self) -> int:
        """Seats that its requests use and wait for."""
        return self.seats + sum(ticket.width for ticket in self.waiting)


class Tally:
    """What became of the requests of one schema at one level. It is the seat of those that found room at once."""

    __slots__ = ("dispatched", "level", "rejected", "running", "schema", "seats", "unseated", "waiting")

    def __init__(self, schema: str, level: Level) -> None:
        self.schema, self.level = schema, level
        self.running = self.seats = self.waiting = self.dispatched = self.unseated = 0
        self.rejected: dict[str, int] = {}

    def enter(self, now: float, width: int = 1) -> bool:
        """Takes seats when there is room and nobody waits who is before it; they are given back by `leave`."""
        level = self.level
        if now >= level.seating.due:
            level.seating.adjust(now)
        if level.waiting or not level.take(width):
            return False
        level.demand.change(width, now)
        self.running += 1
        self.seats += width
        self.dispatched += 1
        return True

    def leave(self, now: float) -> None:
        """Gives one seat back."""
        self.release(1, now)

    def release(self, width: int, now: float) -> None:
        """Gives seats back, to whoever waits for them."""
        self.running -= 1
        self.seats -= width
        level = self.level
        level.give(width)
        level.want(-width, now)
        if level.waiting:
            level.dispatch(now)

    def reject(self, reason: str) -> str:
        """Counts one that is sent away."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        return reason


class Ticket:
    """A request that waits, or one that is wider than a seat. `about` is its sender's; `wake` is called at its turn."""

    __slots__ = ("about", "arrived", "began", "flow", "queue", "tally", "wake", "width")

    def __init__(self, tally: Tally, width: int, flow: str, now: float, wake: Callable[[], None], about: Any) -> None:
        self.tally, self.width, self.flow, self.arrived, self.wake, self.about = tally, width, flow, now, wake, about
        self.queue: Queue | None = None
        self.began: float | None = None

    def leave(self, now: float) -> None:
        """Gives the seats back; what it really took is its queue's work."""
        queue = self.queue
        if queue is not None and self.began is not None:
            queue.running -= 1
            queue.seats -= self.width
            queue.start += self.width * (now - self.began - ESTIMATE)
        self.tally.release(self.width, now)

    def give_up(self, now: float) -> bool:
        """Takes it out of its queue; False when its turn had come (then it has to leave)."""
        if self.began is not None or self.queue is None:
            return False
        self.queue.waiting.remove(self)
        level = self.tally.level
        level.forget(self)
        level.want(-self.width, now)
        level.dispatch(now)  # it may have stood in the way of one that is less wide
        return True


class Level:
    """One priority level: seats in use, and its queues."""

    __slots__ = (
        "active", "current", "demand", "lower", "nominal", "plan", "queues", "quiescing", "room", "running", "seating",
        "tallies", "target", "upper", "used", "virtual", "waiting",
    )  # fmt: skip

    def __init__(self, given: Plan, seating: Seating, now: float) -> None:
        self.plan, self.seating = given, seating
        self.nominal = self.lower = self.upper = self.current = 0
        self.target = 0.0
        self.room = 0
        self.demand = Demand(now)
        self.used = self.running = self.waiting = 0
        self.virtual = 0.0
        self.quiescing = False
        self.queues: list[Queue] = []
        self.active: dict[int, Queue] = {}
        self.tallies: dict[str, Tally] = {}

    @property
    def idle(self) -> bool:
        """Whether no request is here."""
        return not self.running and not self.waiting

    def tally(self, schema: str) -> Tally:
        """The counts of a schema's requests at this level."""
        found = self.tallies.get(schema)
        if found is None:
            found = self.tallies[schema] = Tally(schema, self)
        return found

    def take(self, width: int) -> bool:
        """Takes seats. One that is wider than the level, which may have lent all of its seats until the next sharing,
        runs when it is alone, unless the level can never have a seat."""
        after = self.used + width
        if after > self.room and (self.used or not self.upper):
            return False
        self.used = after
        self.running += 1
        return True

    def give(self, width: int) -> None:
        """Gives seats back."""
        self.used -= width
        self.running -= 1

    def want(self, by: int, now: float) -> None:
        """More or fewer seats are wanted, be they taken or waited for."""
        if now >= self.seating.due:
            self.seating.adjust(now)
        self.demand.change(by, now)

    def detach(self) -> None:
        """Takes no part any more: a request that was classified before the change finds room."""
        self.room = _MOST

    def wanted(self, schema: str) -> int:
        """The seats that a schema's requests wait for."""
        waiting = (ticket for queue in self.active.values() for ticket in queue.waiting)
        return sum(ticket.width for ticket in waiting if ticket.tally.schema == schema)

    def limits(self) -> dict[str, float]:
        """How many seats it has, by the names of upstream's metrics: by its shares, when it lends all that it may, when
        it borrows all that it may, now, and what the last sharing aimed at; then what it was asked for."""
        demand = self.demand
        return {
            "nominal_limit_seats": self.nominal,
            "lower_limit_seats": self.lower,
            "upper_limit_seats": self.upper,
            "current_limit_seats": self.current,
            "target_seats": self.target,
            "demand_seats_high_watermark": demand.high,
            "demand_seats_average": demand.average,
            "demand_seats_stdev": demand.deviation,
            "demand_seats_smoothed": demand.smoothed,
        }

    def widest(self, most: int) -> int:
        """How wide a request may be: at most a seventh of the level, so that it leaves room."""
        return most if self.plan.exempt else max(1, min(most, ceil(self.nominal * 0.15)))

    def enqueue(self, ticket: Ticket) -> str | None:
        """Puts a request into the least loaded queue of its hand; the reason when it cannot wait."""
        if not self.plan.queues:
            return ticket.tally.reject(CONCURRENCY_LIMIT)
        queue = self._queue(ticket)
        if len(queue.waiting) >= self.plan.length:
            return ticket.tally.reject(QUEUE_FULL)
        self._append(queue, ticket)
        ticket.tally.waiting += 1
        self.seating.waiting += 1
        self.want(ticket.width, ticket.arrived)
        return None

    def _queue(self, ticket: Ticket) -> Queue:
        hand = deal(f"{ticket.tally.schema}\0{ticket.flow}", self.plan.queues, self.plan.hand)
        return min((self.queues[index] for index in hand), key=Queue.load)

    def _append(self, queue: Queue, ticket: Ticket) -> None:
        if not self.waiting:  # what was done when nobody had to wait is no debt
            self.virtual = max((each.start for each in self.queues), default=0.0)
        if not queue.waiting:
            queue.start = max(queue.start, self.virtual)
            self.active[queue.index] = queue
        queue.waiting.append(ticket)
        ticket.queue = queue
        self.waiting += 1

    def forget(self, ticket: Ticket) -> None:
        """Counts a ticket that is in its queue no more."""
        queue = ticket.queue
        if queue is not None and not queue.waiting:
            self.active.pop(queue.index, None)
        self.waiting -= 1
        ticket.tally.waiting -= 1
        self.seating.waiting -= 1

    def next(self) -> Queue | None:
        """The queue that had least work of those in which somebody waits."""
        return min(self.active.values(), key=lambda each: each.start, default=None)

    def dispatch(self, now: float) -> None:
        """Lets begin whoever there is room for."""
        while self.waiting and self._start_next(now):
            pass

    def _start_next(self, now: float) -> bool:
        """Lets the next request begin; False when nobody waits or there is no room."""
        queue = self.next()
        if queue is None:
            return False
        if not self.take(queue.waiting[0].width):
            queue.waiting[0].tally.unseated += 1
            return False
        ticket = queue.waiting.popleft()
        self.forget(ticket)
        self.virtual = max(self.virtual, queue.start)
        queue.start += ticket.width * ESTIMATE
        queue.running += 1
        queue.seats += ticket.width
        ticket.began = now
        ticket.tally.running += 1
        ticket.tally.seats += ticket.width
        ticket.tally.dispatched += 1
        ticket.wake()
        return True

    def arrange(self, given: Plan) -> None:
        """Follows a change: who waits is dealt again when there are other queues, and stays when there are none."""
        same = bool(self.queues) and (given.queues, given.hand) == (self.plan.queues, self.plan.hand)
        self.plan = given
        if same or not given.queues:
            return
        waiting = sorted((t for q in self.active.values() for t in q.waiting), key=lambda t: t.arrived)
        self.queues = [Queue(index) for index in range(given.queues)]
        self.active, self.waiting, self.virtual = {}, 0, 0.0
        for ticket in waiting:
            self._append(self._queue(ticket), ticket)


def deal(flow: str, queues: int, hand: int) -> list[int]:
    """The different queues of a flow, always the same ones."""
    value = int.from_bytes(hashlib.sha256(flow.encode()).digest()[:8], "little")
    deck, dealt = list(range(queues)), []
    for left in range(queues, queues - min(hand, queues), -1):
        value, card = divmod(value, left)
        dealt.append(deck.pop(card))
    return dealt


class Seating:
    """All levels of a server with `total` seats; 0: no limit. `fair` is the multiple of the last sharing (see `allot`),
    `due` the time of the next one."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.levels: dict[str, Level] = {}
        self.waiting = 0
        self.fair = 0.0
        self.due = inf

    def configure(self, plans: Iterable[Plan], now: float) -> None:
        """Follows a change of the levels. One that is gone keeps its seats until its last request is answered."""
        if now >= self.due:
            self.adjust(now)
        wanted = {each.name: each for each in plans}
        for name, level in list(self.levels.items()):
            level.demand.close(now, level.nominal)
            level.quiescing = name not in wanted
            if level.quiescing and level.idle:
                level.detach()
                del self.levels[name]
        for name, each in wanted.items():
            level = self.levels.get(name) or self.levels.setdefault(name, Level(each, self, now))
            level.arrange(each)
        self._bound()
        self._share()
        if self.due == inf:
            self.due = now + PERIOD_S
        self.dispatch(now)

    def adjust(self, now: float) -> None:
        """Ends the periods that are over, and shares the seats out by what was asked for in them."""
        over = int((now - self.due) // PERIOD_S)
        for level in self.levels.values():
            level.demand.close(self.due, level.nominal)
            if over:
                level.demand.rest(over)
        self.due += (over + 1) * PERIOD_S
        self._share()
        self.dispatch(now)

    def _bound(self) -> None:
        """Between which numbers the seats of each level may be."""
        shares = sum(level.plan.shares for level in self.levels.values())
        for level in self.levels.values():
            given = level.plan
            level.nominal = ceil(self.total * given.shares / shares) if shares else 0
            level.lower = level.nominal - _percent(level.nominal, given.lendable)
            borrowed = given.borrowing
            level.upper = level.nominal + (self.total if borrowed is None else _percent(level.nominal, borrowed))

    def _share(self) -> None:
        """Exempt levels have what they need; what they leave is shared out to the others."""
        left = sum(level.nominal for level in self.levels.values())
        limited = []
        for level in self.levels.values():
            if level.plan.exempt:
                level.current, level.room = max(level.lower, level.demand.high), _MOST
                level.target = float(level.current)
                left -= level.current
            else:
                limited.append(level)
        claims = [_claim(level) for level in limited]
        given, self.fair = _squeezed(left, limited, claims) or allot(left, claims)
        for level, claim, seats in zip(limited, claims, given, strict=True):
            level.target, level.current = claim.target, floor(seats + 0.5)
            level.room = level.current if self.total else _MOST

    def dispatch(self, now: float) -> None:
        """Lets begin whoever there is room for, at every level."""
        if self.waiting:
            for level in self.levels.values():
                level.dispatch(now)


def _claim(level: Level) -> Claim:
    """A level keeps what it lately used at most, up to its nominal seats."""
    least = max(level.lower, min(level.nominal, level.demand.high))
    return Claim(least, level.upper, max(least, level.demand.smoothed))


def _squeezed(left: int, levels: Sequence[Level], claims: Sequence[Claim]) -> tuple[list[float], float] | None:
    """When exempt levels leave less than the others lately used: each gives up the same part of what it would lend."""
    least, lower = sum(claim.least for claim in claims), sum(level.lower for level in levels)
    if left >= least:
        return None
    part = max(0.0, (left - lower) / (least - lower)) if least > lower else 0.0
    return [level.lower + (claim.least - level.lower) * part for level, claim in zip(levels, claims, strict=True)], 0.0


def _percent(seats: int, percent: int) -> int:
    """A part of some seats, halves rounded up."""
    return floor(seats * percent / 100 + 0.5)
