"""Priority and fairness at the API server's door: a seat for each request that takes time, its turn, and the figures.

The rules of seats and queues are in `seats`; here are the clock, those who wait, how wide a request is, and metrics.
What the cache answers at once takes no seat; see docs/decisions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from math import ceil

from k3s.apiserver import dumps
from k3s.apiserver.flows import Flow
from k3s.apiserver.identity import User
from k3s.apiserver.limits import Pushback, lasting
from k3s.apiserver.request import Target, truth
from k3s.apiserver.seats import TIME_OUT, Level, Plan, Seating, Tally, Ticket
from k3s.base import metrics
from k3s.base.clock import Clock

_WAITS = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0)
_MOST_WIDE, _PER_SEAT = 10, 100
_LONGEST_WAIT_S = 60.0
_NAMES = ("priority_level", "flow_schema")
Seat = Tally | Ticket


def seated(target: Target) -> bool:
    """Whether a request takes a seat: a watch does until it has begun, others that last do not."""
    return target.info.verb == "watch" or not lasting(target)


class Fairness:
    """The seats of one server. `stored` tells how many objects a list is about."""

    def __init__(
        self,
        seating: Seating,
        registry: metrics.Registry,
        stored: Callable[[Target], int],
        clock: Clock,
        request_s: float,
    ) -> None:
        self.seating = seating
        self._stored = stored
        self._clock = clock
        self._request_s = request_s
        self._others = _others(seating.total)
        self._pushbacks: dict[str, Pushback] = {}
        prefix = "apiserver_flowcontrol_"
        self._rejected = registry.counter(f"{prefix}rejected_requests_total", "Sent away.", (*_NAMES, "reason"))
        self._dispatched = registry.counter(f"{prefix}dispatched_requests_total", "Begun.", _NAMES)
        self._waiting = registry.gauge(f"{prefix}current_inqueue_requests", "Waiting in queues.", _NAMES)
        self._running = registry.gauge(f"{prefix}current_executing_requests", "Being answered.", _NAMES)
        self._seats = registry.gauge(f"{prefix}current_executing_seats", "Seats that are taken.", _NAMES)
        self._wanted = registry.gauge(f"{prefix}current_inqueue_seats", "Seats that are waited for.", _NAMES)
        self._limits = {
            name: registry.gauge(f"{prefix}{name}", text, _NAMES[:1])
            for name, text in (
                ("nominal_limit_seats", "Seats by shares."),
                ("lower_limit_seats", "Seats that are never lent."),
                ("upper_limit_seats", "Seats with all that may be borrowed."),
                ("current_limit_seats", "Seats that could be had now."),
            )
        }
        self._waited = registry.histogram(
            f"{prefix}request_wait_duration_seconds", "Seconds in a queue.", (*_NAMES, "execute"), _WAITS
        )

    def enter(self, flow: Flow | None, target: Target) -> Seat | None:
        """A seat when there is room at once; otherwise the request has to `wait`."""
        tally = self._others if flow is None else flow.tally
        info = target.info
        if info.verb == "list" or info.verb == "watch":
            width = self._width(tally.level, target)
            if width > 1:
                return self._wide(tally, width)
        return tally if tally.enter() else None

    def _wide(self, tally: Tally, width: int) -> Seat | None:
        if not tally.enter(width):
            return None
        now = self._clock.monotonic()
        ticket = Ticket(tally, width, "", now, _nothing, None)
        ticket.began = now
        return ticket

    async def wait(self, flow: Flow | None, user: User | None, target: Target, seconds: float | None) -> Ticket | None:
        """Waits for a seat, at most a quarter of the seconds that the request has (None: of those that requests have
        by default); None when it is sent away."""
        tally = self._others if flow is None else flow.tally
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        began = self._clock.monotonic()
        width = self._width(tally.level, target)
        ticket = Ticket(
            tally, width, _distinguished(flow, user, target), began, lambda: _wake(turn), (user, target.info)
        )
        if tally.level.enqueue(ticket) is not None:
            return None
        # A wide one may have waited for more than is needed now, so whoever is next is looked for at once.
        self.seating.dispatch(began)
        try:
            async with asyncio.timeout(min((seconds or self._request_s) / 4, _LONGEST_WAIT_S)):
                await turn
        except TimeoutError:
            if ticket.give_up(self._clock.monotonic()):
                tally.reject(TIME_OUT)
                self._told(ticket, "false")
                return None
        except asyncio.CancelledError:
            now = self._clock.monotonic()
            if not ticket.give_up(now):
                ticket.leave(now)
            raise
        self._told(ticket, "true")
        return ticket

    def retry_after(self, flow: Flow | None) -> int:
        """After how many seconds a request that was just sent away may come again."""
        name = (self._others if flow is None else flow.tally).level.plan.name
        pushback = self._pushbacks.get(name) or self._pushbacks.setdefault(name, Pushback())
        return pushback.sent_away(self._clock.monotonic())

    def _told(self, ticket: Ticket, execute: str) -> None:
        tally = ticket.tally
        waited = self._clock.monotonic() - ticket.arrived
        self._waited.observe(waited, tally.level.plan.name, tally.schema, execute)

    def _width(self, level: Level, target: Target) -> int:
        """Seats of a request: one, but a list (also as the beginning of a watch) one for each hundred objects."""
        info, query = target.info, target.query
        lists = info.verb == "list" or (info.verb == "watch" and truth(query.get("sendInitialEvents")))
        if not lists or info.name:
            return 1
        return max(1, min(ceil(self._stored(target) / _PER_SEAT), level.widest(_MOST_WIDE)))

    # --- figures

    def measure(self) -> None:
        """Brings the metrics up to date."""
        for gauge in (self._waiting, self._running, self._seats, self._wanted, *self._limits.values()):
            gauge.values.clear()
        for name, level in self.seating.levels.items():
            for limit, seats in level.limits().items():
                self._limits[limit].set(float(seats), name)
            for schema, tally in level.tallies.items():
                self._seats.set(float(tally.seats), name, schema)
                self._wanted.set(float(level.wanted(schema)), name, schema)
                self._waiting.set(float(tally.waiting), name, schema)
                self._running.set(float(tally.running), name, schema)
                self._dispatched.values[(name, schema)] = tally.dispatched
                for reason, count in tally.rejected.items():
                    self._rejected.values[(name, schema, reason)] = count
                self._at_once(tally, (name, schema, "true"))

    def _at_once(self, tally: Tally, labels: tuple[str, ...]) -> None:
        """Counts who did not wait: only those who did are observed one by one."""
        if not tally.dispatched:
            return
        counts = self._waited.counts.setdefault(labels, [0] * (len(_WAITS) + 1))
        self._waited.sums.setdefault(labels, 0.0)
        counts[0] = max(0, tally.dispatched - sum(counts[1:]))

    def dumps(self) -> dict[str, Callable[[Mapping[str, str]], str]]:
        """The texts under /debug/api_priority_and_fairness, by path."""
        at = "/debug/api_priority_and_fairness/dump_"
        return {
            f"{at}priority_levels": lambda query: dumps.levels(self.seating),
            f"{at}queues": lambda query: dumps.queues(self.seating),
            f"{at}requests": lambda query: dumps.requests(
                self.seating, bool(query.get("includeRequestDetails")), self._clock.now() - self._clock.monotonic()
            ),
        }


def _others(total: int) -> Tally:
    """The seats of requests without a flow (those of joining nodes): as many as all, and nobody waits."""
    level = Level(Plan("", False, 0, 0, 0, 0, 0, 0), Seating(total))
    level.detach()
    if total:
        level.least = level.most = total
    return level.tally("")


def _distinguished(flow: Flow | None, user: User | None, target: Target) -> str:
    method = ((flow.schema["spec"].get("distinguisherMethod") or {}) if flow is not None else {}).get("type")
    if method == "ByUser":
        return user.name if user is not None else ""
    return target.info.namespace if method == "ByNamespace" else ""


def _wake(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


def _nothing() -> None:
    pass
