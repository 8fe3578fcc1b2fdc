"""How many seats a priority level has use for, and how all seats are shared out by it. Pure: times are handed in.

Rules: KEP-1040, "Dispatching": every ten seconds each level gets the seats that it may use until the next time, by
the demand that it had. Demand is the seats that its requests take and wait for; what counts is its average with its
standard deviation. That falls slowly (half in five minutes): a level does not lose at once what it needs now and then.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

#: Seconds after which seats are shared out anew.
PERIOD_S = 10.0
#: Upper bounds of the ratios of demand to nominal seats by which the time spent at them is counted.
RATIOS = (0.2, 0.4, 0.6, 0.8, 1, 1.2, 1.4, 1.7, 2, 2.8, 4, 6)
_SMOOTHING = 0.977
_LEAST_TARGET = 0.001
_NANOSECONDS = 1e9


class Demand:
    """The demand of one level: now, in the period that goes on, and smoothed over those that are over."""

    __slots__ = (
        "_area", "_at", "_peak", "_since", "_spent", "_squares", "average", "deviation", "high", "ratios", "ratios_sum",
        "seats", "smoothed",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.seats = self.high = self._peak = 0
        self.average = self.deviation = self.smoothed = 0.0
        self._since = self._at = now
        self._area = self._squares = 0.0
        self._spent: dict[int, float] = {}
        self.ratios = [0.0] * (len(RATIOS) + 1)
        self.ratios_sum = 0.0

    def change(self, by: int, now: float) -> None:
        """More or fewer seats are wanted."""
        self._spend(now)
        self.seats = seats = self.seats + by
        if seats > self._peak:
            self._peak = seats

    def _spend(self, now: float) -> None:
        seats, passed = self.seats, now - self._at
        if passed <= 0:
            return
        self._at = now
        area = seats * passed
        self._area += area
        self._squares += seats * area
        self._spent[seats] = self._spent.get(seats, 0.0) + passed

    def close(self, now: float, nominal: int) -> None:
        """Ends a period: its figures are the demand's until the next one ends. `nominal` are the level's seats."""
        self._spend(now)
        passed = self._at - self._since
        self.high = self._peak
        if passed > 0:
            self.average = self._area / passed
            self.deviation = sqrt(max(0.0, self._squares / passed - self.average**2))
            envelope = self.average + self.deviation
            self.smoothed = max(envelope, _SMOOTHING * self.smoothed + (1 - _SMOOTHING) * envelope)
        self._count(nominal)
        self._since, self._peak = self._at, self.seats
        self._area = self._squares = 0.0

    def rest(self, periods: int) -> None:
        """As if so many more whole periods, in which nothing changes, had ended after the last one that did."""
        seats = self.seats
        self.high, self.average, self.deviation = seats, float(seats), 0.0
        self.smoothed = max(seats, seats + (self.smoothed - seats) * _SMOOTHING**periods)
        passed = periods * PERIOD_S
        self._at = self._since = self._since + passed
        self._spent[seats] = self._spent.get(seats, 0.0) + passed

    def _count(self, nominal: int) -> None:
        for seats, passed in self._spent.items():
            ratio, nanoseconds = seats / max(nominal, 1), passed * _NANOSECONDS
            self.ratios[bisect_left(RATIOS, ratio)] += nanoseconds
            self.ratios_sum += ratio * nanoseconds
        self._spent.clear()


class Claim(NamedTuple):
    """What one level may have: at least, at most, and in proportion to what."""

    least: float
    most: float
    target: float


def allot(seats: int, claims: Sequence[Claim]) -> tuple[list[float], float]:
    """Shares out all seats: to each the same multiple (answered second) of its target, but within its bounds.

    Where the bounds leave no choice they win: the lower ones together want more, or the upper ones less, than there is.
    """
    targets = [max(claim.target, _LEAST_TARGET) for claim in claims]
    multiple = _multiple(seats, claims, targets)
    given = (
        max(claim.least, min(claim.most, multiple * target)) for claim, target in zip(claims, targets, strict=True)
    )
    return list(given), multiple


def _multiple(seats: int, claims: Sequence[Claim], targets: Sequence[float]) -> float:
    """Goes through the multiples at which a claim leaves its lower bound or meets its upper one; between two of them
    the sum grows evenly, by the targets of the claims that are within their bounds."""
    total = sum(claim.least for claim in claims)
    bounds = sorted(
        (bound / target, change)
        for claim, target in zip(claims, targets, strict=True)
        for bound, change in ((claim.least, target), (claim.most, -target))
    )
    multiple, slope = bounds[0][0] if bounds else 0.0, 0.0
    for bound, change in bounds:
        reached = total + (bound - multiple) * slope
        if reached >= seats:
            break
        total, multiple = reached, bound
        slope += change
    left = seats - total
    return multiple + left / slope if left > 0 and slope > _LEAST_TARGET / 2 else multiple
