"""When cron schedules are due."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from k3s.api import cron
from k3s.base.clock import zone_of

BERLIN = zone_of("Europe/Berlin")


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ("*/15 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:15:00Z"),
        ("*/15 * * * *", "2026-01-01T00:59:59Z", "2026-01-01T01:00:00Z"),
        ("5/20 3 * * *", "2026-01-01T03:05:00Z", "2026-01-01T03:25:00Z"),
        ("0 9-17 * * MON-FRI", "2026-01-02T17:00:00Z", "2026-01-05T09:00:00Z"),
        ("0 0 31 * ?", "2026-04-01T00:00:00Z", "2026-05-31T00:00:00Z"),
        ("0 0 29 feb *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
        # Either kind of day, unless one begins with a star.
        ("0 0 13 * fri", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
        ("0 0 */2 * fri", "2026-01-01T00:00:00Z", "2026-01-09T00:00:00Z"),
        ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
        ("@yearly", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("@every 1h30m", "2026-01-01T00:00:00.7Z", "2026-01-01T01:30:00Z"),
    ],
)
def test_the_next_time(schedule: str, after: str, expected: str) -> None:
    """In UTC, strictly after a moment."""
    assert cron.parse(schedule).next(at(after), UTC) == at(expected)


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ("0 3 * * *", "2026-03-28T12:00:00+01:00", "2026-03-29T03:00:00+02:00"),
        # There is no 2:30 in the night in which summer begins.
        ("30 2 * * *", "2026-03-28T12:00:00+01:00", "2026-03-30T02:30:00+02:00"),
        ("30 2 * * *", "2026-10-24T12:00:00+02:00", "2026-10-25T02:30:00+02:00"),
        ("0 0 1 * *", "2026-10-02T00:00:00+02:00", "2026-11-01T00:00:00+01:00"),
    ],
)
def test_the_next_time_where_clocks_are_changed(schedule: str, after: str, expected: str) -> None:
    """Schedules are in the time that clocks show."""
    assert cron.parse(schedule).next(at(after), BERLIN) == at(expected)


def test_a_day_that_never_comes() -> None:
    """The 30th of February is looked for in some years, then no more."""
    never = cron.parse("0 0 30 2 *")
    assert never.next(0, UTC) is None and never.latest(0, at("2026-01-01T00:00:00Z"), UTC) is None


@pytest.mark.parametrize("schedule", ["* * * * *", "0 5 * * *", "17 4 1 */3 *", "@every 7m"])
def test_the_last_time_is_the_one_that_counting_up_ends_with(schedule: str) -> None:
    """Found from the end, for a month or two."""
    found = cron.parse(schedule)
    after, upto = at("2026-01-01T00:00:00Z"), at("2026-02-20T11:11:11Z")
    last, step = None, found.next(after, UTC)
    while step is not None and step <= upto:
        last, step = step, found.next(step, UTC)
    assert last is not None and found.latest(after, upto, UTC) == last
    assert found.latest(upto - 1, upto, UTC) is None


def test_missed_times_are_counted_to_a_bound() -> None:
    """A year of minutes is not counted to its end."""
    assert cron.missed(cron.parse("0 * * * *"), 0, 5 * 3600, UTC, 101) == 5
    assert cron.missed(cron.parse("* * * * *"), 0, at("2026-01-01T00:00:00Z"), UTC, 101) == 101
