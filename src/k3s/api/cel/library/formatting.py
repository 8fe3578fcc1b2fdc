"""`format` and `quote` of the strings extension: clauses as those of C, with CEL's own texts for values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from k3s.api.cel import times
from k3s.api.cel.errors import Fault, bounded_text
from k3s.api.cel.values import Duration, Timestamp, TypeValue, Uint, keys, type_name

_CLAUSE = re.compile(r"%(?:(%)|(?:\.([0-9]*))?(.)|)", re.DOTALL)
_DEFAULT_PRECISION, _MOST_PRECISION = 6, 1000
_QUOTED = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
_QUOTED |= {"\\": "\\\\", '"': '\\"'}


def quote(text: str) -> str:
    """The text as a literal."""
    return '"' + "".join(_QUOTED.get(char, char) for char in text) + '"'


def format(text: str, args: list[Any]) -> str:
    """The text with its clauses replaced by the values; raises Fault."""
    taken = length = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal taken, length
        if match[1]:
            return "%"
        clause = _CLAUSES.get(match[3] or "")
        if clause is None:
            raise Fault(f'could not parse formatting string: unrecognized formatting clause "{match[3] or ""}"')
        if taken >= len(args):
            raise Fault(f"index {taken} out of range")
        taken += 1
        precision = _DEFAULT_PRECISION if match[2] is None else int(match[2] or 0)
        if precision > _MOST_PRECISION:
            raise Fault(f"could not parse formatting string: precision {precision} exceeds the limit {_MOST_PRECISION}")
        made = clause(args[taken - 1], precision)
        length += len(made)
        bounded_text(length)
        return made

    return _CLAUSE.sub(replace, text)


def _refused(what: str, value: Any) -> Fault:
    return Fault(f"error during formatting: {what}, was given {type_name(value)}")


def shown(value: Any, precision: int = 0) -> str:
    """A value as `%s` prints it."""
    kind = value.__class__
    if kind is str:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    if kind in (int, Uint):
        return str(int(value))
    if value is None:
        return "null"
    if kind is float:
        return _special(value) or repr(value).removesuffix(".0")
    if kind is bytes:
        return bytes(value).decode(errors="replace")
    if kind is Timestamp:
        return times.timestamp_text(value)
    if kind is Duration:
        return times.duration_text(value)
    if kind is TypeValue:
        return str(value.name)
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, dict):
        rows = sorted((shown(key), shown(inner)) for key, inner in zip(keys(value), value.values(), strict=True))
        return "{" + ", ".join(f"{key}: {inner}" for key, inner in rows) + "}"
    raise _refused("string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types", value)


def _special(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return ("Infinity" if value > 0 else "-Infinity") if math.isinf(value) else ""


def _decimal(value: Any, precision: int) -> str:
    if value.__class__ in (int, Uint):
        return str(int(value))
    if value.__class__ is float and not math.isfinite(value):
        return _special(value)
    raise _refused("decimal clause can only be used on integers", value)


def _number(value: Any, what: str) -> float:
    if value.__class__ not in (int, Uint, float):
        raise _refused(f"{what} clause can only be used on doubles", value)
    return float(value)


def _fixed(value: Any, precision: int) -> str:
    number = _number(value, "fixed-point")
    return _special(number) or f"{number:.{precision}f}"


def _scientific(value: Any, precision: int) -> str:
    number = _number(value, "scientific")
    return _special(number) or f"{number:.{precision}e}"


def _binary(value: Any, precision: int) -> str:
    if value.__class__ not in (int, Uint, bool):
        raise _refused("only integers and bools can be formatted as binary", value)
    return f"{int(value):b}"


def _octal(value: Any, precision: int) -> str:
    if value.__class__ not in (int, Uint):
        raise _refused("octal clause can only be used on integers", value)
    return f"{int(value):o}"


def _hex(value: Any, precision: int) -> str:
    if value.__class__ in (int, Uint):
        return f"{int(value):x}"
    if value.__class__ is str:
        return str(value.encode().hex())
    if value.__class__ is bytes:
        return str(value.hex())
    raise _refused("only integers, byte buffers, and strings can be formatted as hex", value)


_CLAUSES: dict[str, Callable[[Any, int], str]] = {
    "s": shown,
    "d": _decimal,
    "f": _fixed,
    "e": _scientific,
    "b": _binary,
    "o": _octal,
    "x": _hex,
    "X": lambda value, precision: _hex(value, precision).upper(),
}
