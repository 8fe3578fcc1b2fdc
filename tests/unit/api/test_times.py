"""Times and durations as objects hold them."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s.api import times


def test_points() -> None:
    """Both forms of a point in time, read and written."""
    assert times.format(1769853600.9) == "2026-01-31T10:00:00Z"
    assert times.micro(1.5) == "1970-01-01T00:00:01.500000Z"
    assert times.parse("2020-01-01T01:00:00.25+01:00") == 1577836800.25
    assert times.canonical("2020-01-01T01:00:00.999+01:00") == "2020-01-01T00:00:00Z"
    assert times.canonical_micro("2020-01-01T00:00:00.100000Z") == "2020-01-01T00:00:00.100000Z"
    assert times.nano_rfc3339(1_000_000_500) == "1970-01-01T00:00:01.0000005Z"
    assert times.parse("0001-01-01T00:00:00Z") == -62135596800


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", 'parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006"'),
        ("x", 'parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006"'),
        (
            "2020-01-01T00:00:00",
            'parsing time "2020-01-01T00:00:00" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "Z07:00"',
        ),
        ("2020-13-01T00:00:00Z", 'parsing time "2020-13-01T00:00:00Z": month out of range'),
        ("2021-02-29T00:00:00Z", 'parsing time "2021-02-29T00:00:00Z": day out of range'),
        ("2020-01-01T00:00:00Zx", 'parsing time "2020-01-01T00:00:00Zx": extra text: "x"'),
    ],
)
def test_wrong_points(text: str, why: str) -> None:
    """What is no time is refused in the words of Go's time package."""
    with pytest.raises(times.TimeError) as caught:
        times.parse(text)
    assert str(caught.value) == why


def test_micro_time_wants_six_digits() -> None:
    """A MicroTime without fraction is refused, as the recorded answer of the API server shows."""
    with pytest.raises(times.TimeError) as caught:
        times.canonical_micro("2020-01-01T00:00:00Z")
    assert str(caught.value).endswith('cannot parse "Z" as ".000000"')


DURATIONS = {
    "0": "0s",
    "90m": "1h30m0s",
    "1.5s": "1.5s",
    "100ms": "100ms",
    "1us": "1µs",
    "7ns": "7ns",
    "-2h": "-2h0m0s",
}


@pytest.mark.parametrize(("text", "shown"), DURATIONS.items())
def test_durations(text: str, shown: str) -> None:
    """Durations are read in any of Go's notations and written in its canonical one."""
    assert times.format_duration(times.duration(text)) == shown


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", 'time: invalid duration ""'),
        ("1", 'time: missing unit in duration "1"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        (".s", 'time: invalid duration ".s"'),
    ],
)
def test_wrong_durations(text: str, why: str) -> None:
    """What is no duration is refused in the words of Go's time package."""
    with pytest.raises(times.TimeError) as caught:
        times.duration_ns(text)
    assert str(caught.value) == why


@given(st.integers(-(2**62), 2**62))
def test_duration_round_trip(ns: int) -> None:
    """Writing and reading a duration loses nothing."""
    assert times.duration_ns(times.format_duration_ns(ns)) == ns


@given(st.datetimes(min_value=datetime.datetime(1970, 1, 1), timezones=st.just(datetime.UTC)))
def test_point_round_trip(point: datetime.datetime) -> None:
    """Writing and reading a point loses nothing, and agrees with Python's own calendar."""
    text = point.isoformat(timespec="microseconds").replace("+00:00", "Z")
    ns = times.parse_ns(text)
    assert times.format_ns(ns, 6) == text
    assert times.format_ns(ns, 0) == text[:19] + "Z"


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the readers fail in another way than by TimeError."""
    for read in (times.parse, times.canonical_micro, times.duration):
        try:
            read(text)
        except times.TimeError as error:
            assert str(error)
