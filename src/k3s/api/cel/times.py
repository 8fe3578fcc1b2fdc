"""Timestamps and durations: texts, parts and limits.

Source: RFC 3339, and the duration texts of Go, which CEL takes over.
"""

from __future__ import annotations

import datetime
import re
import zoneinfo

from k3s.api.cel.errors import Fault
from k3s.api.cel.values import INT_MAX, INT_MIN, NANOS, TIME_MAX, TIME_MIN, Duration, Timestamp

_STAMP = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)")
_UNITS = {"h": 3600 * NANOS, "m": 60 * NANOS, "s": NANOS, "ms": 1_000_000, "us": 1000, "µs": 1000, "μs": 1000, "ns": 1}
_PART = re.compile(r"(\d*)(?:\.(\d*))?(ns|us|µs|μs|ms|s|m|h)")
_EPOCH = datetime.date(1970, 1, 1).toordinal()
_ZONE = re.compile(r"([+-]?)(\d{1,2}):(\d{2})")


def parse_timestamp(text: str) -> Timestamp:
    """A moment from its text; raises ValueError."""
    match = _STAMP.fullmatch(text)
    if match is None:
        raise ValueError(text)
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError(text)
    days = datetime.date(year, month, day).toordinal() - _EPOCH
    nanos = (days * 86400 + hour * 3600 + minute * 60 + second) * NANOS + int(((match[7] or "") + "0" * 9)[:9])
    if match[8] != "Z":
        hours, minutes = int(match[8][1:3]), int(match[8][4:])
        if hours > 24 or minutes > 59:
            raise ValueError(text)
        nanos -= (1 if match[8][0] == "+" else -1) * (hours * 3600 + minutes * 60) * NANOS
    return timestamp(nanos)


def timestamp(nanos: int) -> Timestamp:
    """A moment; raises Fault outside the years 1 to 9999."""
    if not TIME_MIN <= nanos <= TIME_MAX:
        raise Fault("timestamp overflow")
    return Timestamp(nanos)


def duration(nanos: int) -> Duration:
    """A span; raises Fault beyond what 64 bits of nanoseconds hold."""
    if not INT_MIN <= nanos <= INT_MAX:
        raise Fault("duration overflow")
    return Duration(nanos)


def parse_duration(text: str) -> Duration:
    """A span from its text, such as `1h30m`; raises ValueError."""
    sign, rest = 1, text
    if rest[:1] in ("+", "-"):
        sign, rest = (-1 if rest[0] == "-" else 1), rest[1:]
    if rest == "0":
        return Duration(0)
    total, at = 0, 0
    while at < len(rest):
        match = _PART.match(rest, at)
        if match is None or not (match[1] or match[2]):
            raise ValueError(text)
        unit, fraction = _UNITS[match[3]], match[2] or ""
        total += int(match[1] or 0) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
        at = match.end()
    if not rest or not INT_MIN <= sign * total <= INT_MAX:
        raise ValueError(text)
    return Duration(sign * total)


def timestamp_text(value: Timestamp) -> str:
    """RFC 3339, with as many digits of the second as it needs."""
    moment, nanos = _moment(value.nanos)
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{moment.year:04d}-{moment:%m-%dT%H:%M:%S}{fraction}Z"


def duration_text(value: Duration) -> str:
    """Seconds, with as many digits as it needs."""
    seconds, nanos = divmod(abs(value.nanos), NANOS)
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{'-' if value.nanos < 0 else ''}{seconds}{fraction}s"


def _moment(nanos: int) -> tuple[datetime.datetime, int]:
    seconds, rest = divmod(nanos, NANOS)
    return datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds), rest


_PARTS = {
    "getFullYear": lambda m: m.year,
    "getMonth": lambda m: m.month - 1,
    "getDayOfYear": lambda m: m.timetuple().tm_yday - 1,
    "getDayOfMonth": lambda m: m.day - 1,
    "getDate": lambda m: m.day,
    "getDayOfWeek": lambda m: m.isoweekday() % 7,
    "getHours": lambda m: m.hour,
    "getMinutes": lambda m: m.minute,
    "getSeconds": lambda m: m.second,
}


def part(name: str, value: Timestamp, zone: str = "UTC") -> int:
    """A part of a moment as the clocks of a zone show it: a name, or `+hh:mm`; raises Fault for no zone."""
    moment, nanos = _moment(value.nanos)
    if name == "getMilliseconds":
        return nanos // 1_000_000
    try:
        match = _ZONE.fullmatch(zone)
        if match is not None:
            minutes = (int(match[2]) * 60 + int(match[3])) * (-1 if match[1] == "-" else 1)
            moment += datetime.timedelta(minutes=minutes)
        elif zone not in ("UTC", ""):
            aware = moment.replace(tzinfo=datetime.UTC)
            moment = aware.astimezone(zoneinfo.ZoneInfo(zone))
    except (zoneinfo.ZoneInfoNotFoundError, OverflowError, ValueError, OSError):
        raise Fault(f"unknown time zone {zone}") from None
    return int(_PARTS[name](moment))


_SPANS = {"getHours": 3600 * NANOS, "getMinutes": 60 * NANOS, "getSeconds": NANOS, "getMilliseconds": 1_000_000}


def span_part(name: str, value: Duration) -> int:
    """A span in whole units, towards zero."""
    unit = _SPANS[name]
    return value.nanos // unit if value.nanos >= 0 else -(-value.nanos // unit)
