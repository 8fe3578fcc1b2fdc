"""Demand for seats over time, and how seats are shared out by it: plain arithmetic."""

from __future__ import annotations

from math import sqrt
from random import Random

import pytest

from k3s.apiserver.demand import Claim, Demand, allot


def test_demand_is_weighed_by_the_time_it_lasted() -> None:
    """Two seats for 4 s, six for 1 s, none for 5 s: 1.4 on average."""
    demand = Demand(100.0)
    for by, now in ((2, 100.0), (4, 104.0), (-6, 105.0)):
        demand.change(by, now)
    demand.close(110.0, 2)
    deviation = sqrt((4 * 2**2 + 1 * 6**2) / 10 - 1.4**2)
    assert (demand.high, demand.average, demand.deviation) == (6, pytest.approx(1.4), pytest.approx(deviation))
    assert demand.smoothed == pytest.approx(1.4 + deviation)
    assert [round(each / 1e9, 6) for each in demand.ratios] == [5, 0, 0, 0, 4, 0, 0, 0, 0, 0, 1, 0, 0]
    assert demand.ratios_sum == pytest.approx((4 * 1 + 1 * 3) * 1e9)


def test_demand_rises_at_once_and_falls_slowly() -> None:
    demand = Demand(0.0)
    demand.change(10, 0.0)
    demand.close(10.0, 10)
    assert demand.smoothed == 10.0
    demand.change(-10, 10.0)
    demand.close(20.0, 10)
    assert (demand.high, demand.smoothed) == (10, pytest.approx(9.77))
    demand.rest(29)
    assert (demand.high, demand.average, demand.smoothed) == (0, 0.0, pytest.approx(10 * 0.977**30))
    assert demand.smoothed == pytest.approx(5, abs=0.03)


@pytest.mark.parametrize(
    ("seats", "claims", "given"),
    [
        (12, [(0, 12, 1), (0, 12, 2)], [4, 8]),
        (12, [(0, 12, 1), (0, 6, 2)], [6, 6]),
        (12, [(7, 12, 7), (0, 12, 14), (0, 12, 7)], [7, 10 / 3, 5 / 3]),
        (12, [(0, 12, 0), (0, 12, 0)], [6, 6]),
        (4, [(3, 9, 3), (2, 9, 2)], [3, 2]),
        (9, [(0, 2, 5), (1, 3, 1)], [2, 3]),
        (0, [(0, 5, 1)], [0]),
        (5, [], []),
    ],
)
def test_seats_are_shared_out_by_target_within_bounds(
    seats: int, claims: list[tuple[float, float, float]], given: list[float]
) -> None:
    assert allot(seats, [Claim(*each) for each in claims])[0] == pytest.approx(given)


@pytest.mark.parametrize("seed", range(50))
def test_any_sharing_is_complete_and_fair(seed: int) -> None:
    """All seats are given, and each claim has the common multiple of its target unless a bound holds it."""
    random = Random(seed)
    claims = []
    for _ in range(random.randint(1, 8)):
        least = random.choice((0, random.randint(0, 20)))
        most, target = least + random.randint(0, 40), least + random.choice((0.0, random.random() * 30))
        claims.append(Claim(least, most, target))
    seats = random.randint(sum(int(each.least) for each in claims), sum(int(each.most) for each in claims))
    given, multiple = allot(seats, claims)
    assert sum(given) == pytest.approx(seats)
    for claim, share in zip(claims, given, strict=True):
        wanted = multiple * max(claim.target, 0.001)
        assert share == pytest.approx(max(claim.least, min(claim.most, wanted)))
