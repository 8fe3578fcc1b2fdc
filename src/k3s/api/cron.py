"""Cron schedules: five fields, an @ word, or `@every` and a length of time; and when such a schedule is due.

    parse("*/15 9-17 * * mon-fri").latest(after, upto, zone)

Days of the month and of the week both have to fit when one of them begins with a star, else either of them. Source: the
CronJob documentation and the cron library that upstream uses, whose complaints are worded alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from k3s.api import times

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, {name: i + 1 for i, name in enumerate(_MONTHS)}),
    (0, 6, {name: i for i, name in enumerate(_DAYS)}),
)
_WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY = re.compile(r"@every ((\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+)\Z")
_MINUTE, _DAY = 60, 86400
# A schedule that names only the 29th of February is due within eight years.
_FAR_S = 9 * 366 * _DAY


class CronError(ValueError):
    """A text that is no schedule; says why."""


@dataclass(frozen=True, slots=True)
class Interval:
    """`@every`: due so many seconds after the last time, in whole seconds."""

    every_s: int
    zone: str = ""

    def next(self, after: float, zone: tzinfo) -> float | None:
        """The first time after a moment (seconds since 1970)."""
        return int(after // 1) + float(self.every_s)

    def latest(self, after: float, upto: float, zone: tzinfo) -> float | None:
        """The last time after one moment and not after another; None when there is none."""
        rounds = (upto - after // 1) // self.every_s
        return after // 1 + rounds * self.every_s if rounds >= 1 else None


@dataclass(frozen=True, slots=True)
class Calendar:
    """Five fields; `zone` is that of a TZ= before them."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    #: Whether the days of the month, or of the week, began with a star.
    any_day: bool
    zone: str

    def next(self, after: float, zone: tzinfo) -> float | None:
        """The first time after a moment (seconds since 1970); None when there is none, as for the 30th of February."""
        at = (after // _MINUTE + 1) * _MINUTE
        end = after + _FAR_S
        while at <= end:
            step = self._wait(at, zone)
            if not step:
                return at
            at += step
        return None

    def latest(self, after: float, upto: float, zone: tzinfo) -> float | None:
        """The last time after one moment and not after another; None when there is none."""
        back = float(_MINUTE)
        while True:
            begin = max(upto - back, after)
            found = None
            at = self.next(begin, zone)
            while at is not None and at <= upto:
                found = at
                at = self.next(at, zone)
            if found is not None or begin <= after:
                return found
            back *= 8

    def _wait(self, at: float, zone: tzinfo) -> float:
        """0 when a minute is in the schedule, else how far to look on, in seconds."""
        local = datetime.fromtimestamp(at, zone)
        if local.month not in self.months:
            return _midnight(local.replace(day=1) + timedelta(days=32), first=True) - at
        if not self._is_day(local):
            return _midnight(local + timedelta(days=1)) - at
        if local.hour not in self.hours:
            return float((60 - local.minute) * _MINUTE)
        return 0.0 if local.minute in self.minutes else float(_MINUTE)

    def _is_day(self, local: datetime) -> bool:
        by_month, by_week = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        return (by_month and by_week) if self.any_day else (by_month or by_week)


Schedule = Interval | Calendar


def _midnight(local: datetime, *, first: bool = False) -> float:
    """The begin of a day, or of its month; of a day that begins later than at 0:00, that moment."""
    day = local.replace(day=1) if first else local
    return day.replace(hour=0, minute=0, fold=0).timestamp()


def missed(schedule: Schedule, after: float, upto: float, zone: tzinfo, most: int) -> int:
    """How often a schedule was due after one moment and not after another; at most `most`."""
    count, at = 0, schedule.next(after, zone)
    while at is not None and at <= upto and count < most:
        count += 1
        at = schedule.next(at, zone)
    return count


def parse(text: str) -> Schedule:
    """The schedule of a text; raises CronError."""
    if text.startswith("@"):
        every = _EVERY.match(text)
        if every is not None:
            return Interval(max(int(times.duration(every[1])), 1))
        if text not in _WORDS:
            raise CronError(f"unrecognized descriptor: {text}")
        text = _WORDS[text]
    first, _, rest = text.partition(" ")
    zone = first.partition("=")[2] if first.startswith(("TZ=", "CRON_TZ=")) else ""
    parts = (rest if zone else text).split()
    if len(parts) != 5:
        raise CronError(f"expected exactly 5 fields, found {len(parts)}: [{' '.join(parts)}]")
    minutes, hours, days, months, weekdays = (
        frozenset(_field(part, *bounds)) for part, bounds in zip(parts, _FIELDS, strict=True)
    )
    any_day = any(piece.startswith(("*", "?")) for part in (parts[2], parts[4]) for piece in part.split(","))
    return Calendar(minutes, hours, days, months, weekdays, any_day, zone)


def _field(part: str, low: int, high: int, words: dict[str, int]) -> Iterator[int]:
    for piece in part.split(","):
        yield from _piece(piece, low, high, words)


def _piece(piece: str, low: int, high: int, words: dict[str, int]) -> range:
    span, slash, step = piece.partition("/")
    start_text, dash, end_text = span.partition("-")
    if span.count("-") > 1:
        raise CronError(f"too many hyphens: {piece}")
    if step.count("/"):
        raise CronError(f"too many slashes: {piece}")
    if start_text in ("*", "?"):
        start, end = low, high
    else:
        start = _number(start_text, words)
        end = _number(end_text, words) if dash else (high if slash else start)
    every = _number(step, {}) if slash else 1
    if not every:
        raise CronError(f"step of range should be a positive number: {piece}")
    if start < low:
        raise CronError(f"beginning of range ({start}) below minimum ({low}): {piece}")
    if end > high:
        raise CronError(f"end of range ({end}) above maximum ({high}): {piece}")
    if start > end:
        raise CronError(f"beginning of range ({start}) beyond end of range ({end}): {piece}")
    return range(start, end + 1, every)


def _number(text: str, words: dict[str, int]) -> int:
    if text.lower() in words:
        return words[text.lower()]
    if not re.fullmatch("[0-9]+", text):
        raise CronError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)
