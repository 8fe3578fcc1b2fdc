"""Points in time and lengths of time as the API writes them.

Points are seconds since 1970 (UTC) in the program and RFC 3339 in objects: `2026-01-31T10:00:00Z` (type Time) or with
six digits of fraction (type MicroTime). Lengths are seconds in the program and Go's notation in objects: `1h30m0s`,
`1.5s`, `100ms`.
Source: the meta/v1 types Time, MicroTime and Duration, and Go's package time for notation and wording.
"""

from __future__ import annotations

import calendar
import datetime
import functools
import re

_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()
_MAX_INT64 = (1 << 63) - 1

LAYOUT = "2006-01-02T15:04:05Z07:00"
MICRO_LAYOUT = "2006-01-02T15:04:05.000000Z07:00"

_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{1,2}):([0-9]{2}):([0-9]{2})([.,][0-9]+)?(?:Z|([+-])([0-9]{2}):([0-9]{2}))\Z"
)
# What is read one after the other, for saying where reading stopped: a pattern and what Go's layout has there.
_STEPS = (
    ("[0-9]{4}", "2006"),
    ("-", "-"),
    ("[0-9]{2}", "01"),
    ("-", "-"),
    ("[0-9]{2}", "02"),
    ("T", "T"),
    ("[0-9]{1,2}", "15"),
    (":", ":"),
    ("[0-9]{2}", "04"),
    (":", ":"),
    ("[0-9]{2}", "05"),
)
_ZONE = re.compile(r"Z|[+-][0-9]{2}:[0-9]{2}")
_MICRO = re.compile(r"[.,][0-9]{6}")
_ANY_FRACTION = re.compile(r"(?:[.,][0-9]+)?")

_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION_PART = re.compile(r"([0-9]*)(\.[0-9]*)?([^0-9.]*)")


class TimeError(ValueError):
    """The text is not a time or a duration; the message is the one of Go's package time."""


@functools.lru_cache(maxsize=64)
def _date_text(day: int) -> str:
    return datetime.date.fromordinal(day + _EPOCH_DAY).isoformat()


def _clock_text(second: int) -> str:
    day, rest = divmod(second, 86400)
    minute, s = divmod(rest, 60)
    h, m = divmod(minute, 60)
    return f"{_date_text(day)}T{h:02d}:{m:02d}:{s:02d}"


@functools.lru_cache(maxsize=64)
def _second_text(second: int) -> str:
    return _clock_text(second) + "Z"


def format(epoch_s: float) -> str:
    """RFC 3339 in UTC with whole seconds, rounded down; one text for all that happens in a second."""
    return _second_text(int(epoch_s // 1))


def micro(epoch_s: float) -> str:
    """RFC 3339 in UTC with six digits of fraction."""
    second, fraction = divmod(round(epoch_s * 1_000_000), 1_000_000)
    return f"{_clock_text(second)}.{fraction:06d}Z"


def format_ns(epoch_ns: int, digits: int = 9) -> str:
    """RFC 3339 in UTC from nanoseconds, with `digits` digits of fraction (0 to 9), rounded down."""
    second, fraction = divmod(epoch_ns, 10**9)
    tail = f".{fraction:09d}"[: digits + 1] if digits else ""
    return f"{_clock_text(second)}{tail}Z"


def nano_rfc3339(epoch_ns: int) -> str:
    """RFC 3339 in UTC with as many digits of fraction as it needs, up to nine (the form of container log lines)."""
    second, fraction = divmod(epoch_ns, 10**9)
    tail = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{_clock_text(second)}{tail}Z"


def parse(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time with or without a fraction; raises TimeError."""
    return parse_ns(text) / 10**9


def parse_ns(text: str, *, micro: bool = False) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time; with `micro` the fraction must have six digits; raises TimeError."""
    match = _RFC3339.match(text)
    if match is None or (micro and len(match.group(7) or "") != 7):
        raise TimeError(_complaint(text, micro))
    year, month, day, hour, minute, second = (int(match.group(i)) for i in range(1, 7))
    problem = _out_of_range(year, month, day, hour, minute, second)
    if problem:
        raise TimeError(f'parsing time "{text}": {problem} out of range')
    days = datetime.date(year, month, day).toordinal() - _EPOCH_DAY if year else _days_of_year_zero(month, day)
    moment = days * 86400 + hour * 3600 + minute * 60 + second
    if match.group(8):
        zone_h, zone_m = int(match.group(9)), int(match.group(10))
        if zone_h > 24:
            raise TimeError(f'parsing time "{text}": time zone offset hour out of range')
        if zone_m > 60:
            raise TimeError(f'parsing time "{text}": time zone offset minute out of range')
        offset = zone_h * 3600 + zone_m * 60
        moment += -offset if match.group(8) == "+" else offset
    fraction = (match.group(7) or ".")[1:10]
    return moment * 10**9 + (int(fraction.ljust(9, "0")) if fraction else 0)


def _days_of_year_zero(month: int, day: int) -> int:
    # Python's calendar starts with year 1; Go's zero time is there too, but texts with year 0000 are legal.
    return datetime.date(4, month, day).toordinal() - 1461 - _EPOCH_DAY


def _out_of_range(year: int, month: int, day: int, hour: int, minute: int, second: int) -> str:
    if not 1 <= month <= 12:
        return "month"
    if not 1 <= day <= calendar.monthrange(year or 4, month)[1]:
        return "day"
    if hour > 23:
        return "hour"
    if minute > 59:
        return "minute"
    return "second" if second > 59 else ""


def _complaint(text: str, micro: bool) -> str:
    layout = MICRO_LAYOUT if micro else LAYOUT
    rest = text
    steps = [*_STEPS, (_MICRO.pattern, ".000000") if micro else (_ANY_FRACTION.pattern, ""), (_ZONE.pattern, "Z07:00")]
    for pattern, element in steps:
        match = re.match(pattern, rest)
        if match is None:
            return f'parsing time "{text}" as "{layout}": cannot parse "{rest}" as "{element}"'
        rest = rest[match.end() :]
    return f'parsing time "{text}": extra text: "{rest}"'


# An object says the same few times again and again, and is pruned with each write.
@functools.lru_cache(maxsize=1024)
def canonical(text: str) -> str:
    """What the API shows of a Time that was written as `text`: UTC, whole seconds; raises TimeError."""
    return format_ns(parse_ns(text), 0)


@functools.lru_cache(maxsize=256)
def canonical_micro(text: str) -> str:
    """What the API shows of a MicroTime that was written as `text`: UTC, six digits; raises TimeError."""
    return format_ns(parse_ns(text, micro=True), 6)


def duration_ns(text: str) -> int:
    """Nanoseconds of a length of time in Go's notation (`1h30m`, `-1.5s`, `100ms`, `0`); raises TimeError."""
    rest = text
    negative = rest.startswith("-")
    if rest[:1] in ("-", "+"):
        rest = rest[1:]
    if rest == "0":
        return 0
    if not rest:
        raise TimeError(f'time: invalid duration "{text}"')
    total = 0
    while rest:
        match = _DURATION_PART.match(rest)
        if match is None or not (match.group(1) or (match.group(2) or ".") != "."):
            raise TimeError(f'time: invalid duration "{text}"')
        whole, fraction, unit = match.group(1), (match.group(2) or "")[1:], match.group(3)
        if not unit:
            raise TimeError(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS_NS:
            raise TimeError(f'time: unknown unit "{unit}" in duration "{text}"')
        if len(whole) > 20:
            raise TimeError(f'time: invalid duration "{text}"')
        size, fraction = _UNITS_NS[unit], fraction[:18]
        total += int(whole or "0") * size
        total += int(fraction) * size // 10 ** len(fraction) if fraction else 0
        rest = rest[match.end() :]
        if total > _MAX_INT64 + negative:
            raise TimeError(f'time: invalid duration "{text}"')
    return -total if negative else total


def duration(text: str) -> float:
    """Seconds of a length of time in Go's notation; raises TimeError."""
    return duration_ns(text) / 10**9


def format_duration(seconds: float) -> str:
    """A length of time in Go's notation: `1h0m0s`, `1.5s`, `100ms`, `0s`."""
    return format_duration_ns(round(seconds * 1e9))


def format_duration_ns(ns: int) -> str:
    """A length of time in Go's notation from nanoseconds."""
    if ns == 0:
        return "0s"
    sign, ns = ("-", -ns) if ns < 0 else ("", ns)
    if ns < 1_000:
        return f"{sign}{ns}ns"
    if ns < 10**6:
        return f"{sign}{_decimal(ns, 1_000)}µs"
    if ns < 10**9:
        return f"{sign}{_decimal(ns, 10**6)}ms"
    minutes, rest = divmod(ns, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    shown = f"{_decimal(rest, 10**9)}s"
    if hours or minutes:
        shown = f"{minutes}m{shown}"
    return f"{sign}{hours}h{shown}" if hours else f"{sign}{shown}"


def _decimal(number: int, unit: int) -> str:
    whole, rest = divmod(number, unit)
    if not rest:
        return str(whole)
    width = len(str(unit)) - 1
    return f"{whole}.{rest:0{width}d}".rstrip("0")
