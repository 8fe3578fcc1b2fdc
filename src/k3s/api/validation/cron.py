"""The form of cron schedules and time zone names. Source: the CronJob documentation; five fields, or an @ word."""

from __future__ import annotations

import re

_WORDS = {"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, {name: i + 1 for i, name in enumerate(_MONTHS)}),
    (0, 6, {name: i for i, name in enumerate(_DAYS)}),
)


def problems(text: str) -> list[str]:
    """What is wrong with a schedule; an empty list when nothing is."""
    if text.startswith("@"):
        if text in _WORDS or re.fullmatch(r"@every (\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+", text):
            return []
        return [f"unrecognized descriptor: {text}"]
    zone, _, rest = text.partition(" ")
    parts = (rest if zone.startswith(("TZ=", "CRON_TZ=")) else text).split()
    if len(parts) != 5:
        return [f"expected exactly 5 fields, found {len(parts)}: [{' '.join(parts)}]"]
    for part, (low, high, words) in zip(parts, _FIELDS, strict=True):
        for piece in part.split(","):
            problem = _piece(piece, low, high, words)
            if problem:
                return [problem]
    return []


def _piece(piece: str, low: int, high: int, words: dict[str, int]) -> str:
    span, slash, step = piece.partition("/")
    start_text, dash, end_text = span.partition("-")
    if span.count("-") > 1:
        return f"too many hyphens: {piece}"
    if step.count("/"):
        return f"too many slashes: {piece}"
    if start_text in ("*", "?"):
        start, end = low, high
    else:
        found = [_number(text, words) for text in ((start_text, end_text) if dash else (start_text,))]
        for text, value in zip((start_text, end_text), found, strict=False):
            if value is None:
                return f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax'
        start = found[0] or 0
        end = (found[-1] or 0) if dash else (high if slash else start)
    if slash and not step.isdigit():
        return f'failed to parse int from {step}: strconv.Atoi: parsing "{step}": invalid syntax'
    if slash and int(step) == 0:
        return f"step of range should be a positive number: {piece}"
    if start < low:
        return f"beginning of range ({start}) below minimum ({low}): {piece}"
    if end > high:
        return f"end of range ({end}) above maximum ({high}): {piece}"
    if start > end:
        return f"beginning of range ({start}) beyond end of range ({end}): {piece}"
    return ""


def _number(text: str, words: dict[str, int]) -> int | None:
    if text.lower() in words:
        return words[text.lower()]
    return int(text) if text.isdigit() else None


def zone_problems(zone: str) -> list[str]:
    """What is wrong with the name of a time zone; whether the zone exists is found out when a job is due."""
    if not zone:
        return ["timeZone must be nil or non-empty string"]
    for part in zone.split("/"):
        if part in (".", "..") or part.startswith("-") or not re.fullmatch(r"[A-Za-z.\-_0-9+]{1,14}", part):
            return [f"unknown time zone {zone}"]
    if zone.lower() == "local":
        problems = ["timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"]
        return problems if zone == "Local" else [*problems, f"unknown time zone {zone}"]
    return []
