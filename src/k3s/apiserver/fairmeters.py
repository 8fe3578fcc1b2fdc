"""The figures of priority and fairness, by upstream's names."""

from __future__ import annotations

from k3s.apiserver.demand import RATIOS
from k3s.apiserver.seats import Seating, Tally, Ticket
from k3s.base import metrics

_PREFIX = "apiserver_flowcontrol_"
_NAMES = ("priority_level", "flow_schema")
_SECONDS = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0)
_LENGTHS = (0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0)
_WIDTHS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0)
# What `Level.limits` tells.
_LEVEL = {
    "nominal_limit_seats": "Seats by shares.",
    "lower_limit_seats": "Seats that are never lent.",
    "upper_limit_seats": "Seats with all that may be borrowed.",
    "current_limit_seats": "Seats by the last sharing.",
    "target_seats": "Seats that the last sharing aimed at.",
    "demand_seats_high_watermark": "Most seats that were wanted in the last period.",
    "demand_seats_average": "Seats that were wanted on average in the last period.",
    "demand_seats_stdev": "Standard deviation of the seats that were wanted in the last period.",
    "demand_seats_smoothed": "Seats that were wanted, smoothed.",
}


class FairMeters:
    """Metrics of levels and schemas. Only what waits or is wide is observed at once, the rest when somebody asks."""

    def __init__(self, seating: Seating, registry: metrics.Registry) -> None:
        self._seating = seating
        self._rejected = registry.counter(f"{_PREFIX}rejected_requests_total", "Sent away.", (*_NAMES, "reason"))
        self._dispatched = registry.counter(f"{_PREFIX}dispatched_requests_total", "Begun.", _NAMES)
        self._unseated = registry.counter(
            f"{_PREFIX}request_dispatch_no_accommodation_total", "Turns at which seats were missing.", _NAMES
        )
        self._waiting = registry.gauge(f"{_PREFIX}current_inqueue_requests", "Waiting in queues.", _NAMES)
        self._running = registry.gauge(f"{_PREFIX}current_executing_requests", "Being answered.", _NAMES)
        self._seats = registry.gauge(f"{_PREFIX}current_executing_seats", "Seats that are taken.", _NAMES)
        self._wanted = registry.gauge(f"{_PREFIX}current_inqueue_seats", "Seats that are waited for.", _NAMES)
        self._levels = {name: registry.gauge(_PREFIX + name, text, _NAMES[:1]) for name, text in _LEVEL.items()}
        registry.gauge(f"{_PREFIX}seat_fair_frac", "Seats for each that is aimed at.", read=lambda: seating.fair)
        self._demand = registry.histogram(
            f"{_PREFIX}demand_seats", "Nanoseconds by demand as a part of nominal seats.", _NAMES[:1], RATIOS
        )
        self._waited = registry.histogram(
            f"{_PREFIX}request_wait_duration_seconds", "Seconds in a queue.", (*_NAMES, "execute"), _SECONDS
        )
        self._took = registry.histogram(
            f"{_PREFIX}request_execution_seconds", "Seconds with a seat.", (*_NAMES, "type"), _SECONDS
        )
        self._lengths = registry.histogram(
            f"{_PREFIX}request_queue_length_after_enqueue", "Requests in a queue that got one more.", _NAMES, _LENGTHS
        )
        self._widths = registry.histogram(f"{_PREFIX}work_estimated_seats", "Seats of a request.", _NAMES, _WIDTHS)

    def took(self, tally: Tally, verb: str, seconds: float) -> None:
        """A request had a seat; a watch has one until it has begun."""
        self._took.observe(seconds, tally.level.plan.name, tally.schema, "watch" if verb == "watch" else "regular")

    def wide(self, tally: Tally, width: int) -> None:
        """A request of several seats came."""
        self._widths.observe(width, tally.level.plan.name, tally.schema)

    def queued(self, ticket: Ticket) -> None:
        """A request was put into a queue."""
        tally, queue = ticket.tally, ticket.queue
        if ticket.width > 1:
            self.wide(tally, ticket.width)
        self._lengths.observe(len(queue.waiting) if queue is not None else 0, tally.level.plan.name, tally.schema)

    def waited(self, ticket: Ticket, now: float, execute: str) -> None:
        """A request has left its queue: "true" to run, "false" to be sent away."""
        self._waited.observe(now - ticket.arrived, ticket.tally.level.plan.name, ticket.tally.schema, execute)

    def measure(self) -> None:
        """Brings the metrics up to date."""
        for gauge in (self._waiting, self._running, self._seats, self._wanted, *self._levels.values()):
            gauge.values.clear()
        for name, level in self._seating.levels.items():
            for limit, seats in level.limits().items():
                self._levels[limit].set(float(seats), name)
            self._demand.counts[(name,)] = list(map(round, level.demand.ratios))
            self._demand.sums[(name,)] = level.demand.ratios_sum
            for schema, tally in level.tallies.items():
                self._seats.set(float(tally.seats), name, schema)
                self._wanted.set(float(level.wanted(schema)), name, schema)
                self._tally(tally, (name, schema))

    def _tally(self, tally: Tally, labels: tuple[str, ...]) -> None:
        self._waiting.set(float(tally.waiting), *labels)
        self._running.set(float(tally.running), *labels)
        self._dispatched.values[labels] = tally.dispatched
        if tally.unseated:
            self._unseated.values[labels] = tally.unseated
        for reason, count in tally.rejected.items():
            self._rejected.values[(*labels, reason)] = count
        _first(self._waited, (*labels, "true"), tally.dispatched, 0.0)
        _first(self._widths, labels, tally.dispatched + tally.waiting + sum(tally.rejected.values()), 1.0)


def _first(histogram: metrics.Histogram, labels: tuple[str, ...], total: int, value: float) -> None:
    """Brings all that was not observed one by one into the first bucket; each of them had this value."""
    if total:
        counts = histogram.counts.setdefault(labels, [0] * (len(histogram.buckets) + 1))
        before, counts[0] = counts[0], max(0, total - sum(counts[1:]))
        histogram.sums[labels] = histogram.sums.get(labels, 0.0) + (counts[0] - before) * value
