"""Priority and fairness at the API server's door: a seat for each request that takes time, its turn, and the figures.

The rules of seats and queues are in `seats`; here are the clock, those who wait, and how wide a request is.
What the cache answers at once takes no seat; see docs/decisions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from math import ceil, inf

from k3s.apiserver import dumps
from k3s.apiserver.fairmeters import FairMeters
from k3s.apiserver.flows import Flow
from k3s.apiserver.identity import User
from k3s.apiserver.limits import Pushback, lasting
from k3s.apiserver.request import Target, truth
from k3s.apiserver.seats import TIME_OUT, Level, Plan, Seating, Tally, Ticket
from k3s.base import metrics
from k3s.base.clock import Clock

_MOST_WIDE, _PER_SEAT = 10, 100
_LONGEST_WAIT_S = 60.0
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
        self._meters = FairMeters(seating, registry)
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, flow: Flow | None, target: Target) -> Seat | None:
        """A seat when there is room at once; otherwise the request has to `wait`."""
        tally = self._others if flow is None else flow.tally
        info = target.info
        if info.verb == "list" or info.verb == "watch":
            width = self._width(tally.level, target)
            if width > 1:
                return self._wide(tally, width)
        return tally if tally.enter(self._clock.monotonic()) else None

    def leave(self, seat: Seat, verb: str, since: float) -> None:
        """Gives a seat back that a request of this verb has had since then (by the monotonic clock)."""
        now = self._clock.monotonic()
        seat.leave(now)
        tally = seat if isinstance(seat, Tally) else seat.tally
        if tally is not self._others:
            self._meters.took(tally, verb, now - since)

    def _wide(self, tally: Tally, width: int) -> Seat | None:
        now = self._clock.monotonic()
        if not tally.enter(now, width):
            return None
        self._meters.wide(tally, width)
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
        self._meters.queued(ticket)
        # A wide one may have waited for more than is needed now, so whoever is next is looked for at once.
        tally.level.dispatch(began)
        self._share_in_time()
        try:
            async with asyncio.timeout(min((seconds or self._request_s) / 4, _LONGEST_WAIT_S)):
                await turn
        except TimeoutError:
            if ticket.give_up(self._clock.monotonic()):
                tally.reject(TIME_OUT)
                self._meters.waited(ticket, self._clock.monotonic(), "false")
                return None
        except asyncio.CancelledError:
            now = self._clock.monotonic()
            if not ticket.give_up(now):
                ticket.leave(now)
            raise
        self._meters.waited(ticket, self._clock.monotonic(), "true")
        return ticket

    def retry_after(self, flow: Flow | None) -> int:
        """After how many seconds a request that was just sent away may come again."""
        name = (self._others if flow is None else flow.tally).level.plan.name
        pushback = self._pushbacks.get(name) or self._pushbacks.setdefault(name, Pushback())
        return pushback.sent_away(self._clock.monotonic())

    def _share_in_time(self) -> None:
        """While somebody waits, the seats are shared out anew also when nobody comes or goes."""
        if self._timer is None and self.seating.waiting and self.seating.due < inf:
            wait_s = self.seating.due - self._clock.monotonic()
            self._timer = asyncio.get_running_loop().call_later(max(0.0, wait_s), self._shared)

    def _shared(self) -> None:
        self._timer = None
        self._adjust()
        self._share_in_time()

    def _adjust(self) -> None:
        now = self._clock.monotonic()
        if now >= self.seating.due:
            self.seating.adjust(now)

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
        self._adjust()
        self._meters.measure()

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
    level = Level(Plan("", False, 0, 0, 0, 0, 0, 0), Seating(total), 0.0)
    level.detach()
    if total:
        level.room = total
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
