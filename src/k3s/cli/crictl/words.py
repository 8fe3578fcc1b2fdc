"""How crictl writes tables, ages, sizes and shortened ids: the forms of upstream's client. Pure."""

from __future__ import annotations

from collections.abc import Sequence

_ID_LENGTH = 13
_CELL_WIDTH, _PADDING = 20, 3
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")


def table(rows: Sequence[Sequence[str]], width: int = _CELL_WIDTH) -> str:
    """Rows in columns of at least `width`; the last column is not filled up."""
    widths = [
        max(width, *(len(row[column]) + _PADDING for row in rows)) for column in range(len(rows[0]) - 1 if rows else 0)
    ]
    lines = ["".join(cell.ljust(w) for cell, w in zip(row, widths, strict=False)) + row[-1] for row in rows]
    return "".join(f"{line}\n" for line in lines)


def short(identifier: str, prefix: str = "") -> str:
    """The beginning of an id, without the name of its algorithm."""
    return identifier.removeprefix(prefix)[:_ID_LENGTH]


def ago(seconds: float) -> str:
    """How long ago something was, in one rough unit."""
    return f"{span(seconds)} ago"


def span(seconds: float) -> str:
    """A length of time in one rough unit: `5 seconds`, `About a minute`, `3 weeks`."""
    whole, minutes, hours = int(seconds), int(seconds / 60), int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / 3600) // 24 // 365} years"


def size(count: float, digits: int = 4) -> str:
    """Bytes in decimal units: `1.99MB`."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:.{digits}g}{_UNITS[unit]}"
