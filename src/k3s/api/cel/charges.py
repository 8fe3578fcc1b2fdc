"""What calls cost at run time.

Source: the reference implementation's and the API server's cost tables; a unit is about 50 ns of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from k3s.api.cel.overloads import Overload
from k3s.api.cel.values import size

Charge = Callable[[list[Any], Any], int]

# Going through a text costs a unit for each ten characters.
TRAVERSAL = 10
_PATTERN = 4
# As many elements are copied in a unit's time.
_COPIED = 128
_CHECK = 350_000


def _tenths(count: int) -> int:
    return -(-count // TRAVERSAL)


def traversal(value: Any) -> int:
    """The cost to go through a value with all in it."""
    if value.__class__ is str or value.__class__ is bytes:
        return len(value) // TRAVERSAL
    if isinstance(value, list):
        return sum(map(traversal, value))
    if isinstance(value, dict):
        return sum(traversal(key) + traversal(inner) for key, inner in value.items())
    return 1


def _matching(args: list[Any], result: Any) -> int:
    return _tenths(1 + size(args[0])) * math.ceil(size(args[1]) / _PATTERN)


def _first(factor: int) -> Charge:
    return lambda args, result: _tenths(size(args[0]) * factor)


def _inside(values: Any) -> int:
    """What all in the lists and maps of a list costs to compare; upstream takes those for nothing (see `values`)."""
    return sum(traversal(value) for value in values if isinstance(value, list | dict)) // TRAVERSAL


def _sets(factor: int) -> Charge:
    def charge(args: list[Any], result: Any) -> int:
        one, other = args
        inside = _inside(one) * size(other) + _inside(other) * size(one)
        return 1 + factor * (size(one) * size(other) + inside)

    return charge


def _in_list(args: list[Any], result: Any) -> int:
    return size(args[1]) + (_inside(args[1]) if isinstance(args[0], list | dict) else 0)


def _contains_ip(args: list[Any], result: Any) -> int:
    base = _tenths(2 * _width(args[0]))
    return base + (_tenths(size(args[1])) if args[1].__class__ is str else 0)


def _contains_cidr(args: list[Any], result: Any) -> int:
    return _contains_ip(args, result) + _tenths(_width(args[0])) + 1


def _width(value: Any) -> int:
    return int(getattr(value, "bits", 8)) // 8


_BY_FUNCTION: dict[str, Charge] = {
    "check": lambda args, result: _CHECK,
    **dict.fromkeys(("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf"), lambda args, _: traversal(args[0])),
    **dict.fromkeys(("url", "lowerAscii", "upperAscii", "substring", "trim"), _first(1)),
    **dict.fromkeys(("replace", "split"), _first(2)),
    "join": lambda args, result: _tenths(size(result) * 2),
    **dict.fromkeys(("find", "findAll"), _matching),
    **dict.fromkeys(("cidr", "isIP", "isCIDR", "ip", "quantity", "isQuantity", "semver", "isSemver"), _first(1)),
    "ip.isCanonical": _first(2),
    "containsIP": _contains_ip,
    "containsCIDR": _contains_cidr,
    **dict.fromkeys(("sets.contains", "sets.intersects"), _sets(1)),
    "sets.equivalent": _sets(2),
    "format": _first(1),
    "validate": lambda args, result: _tenths(size(args[1])),
}
_BY_OVERLOAD: dict[str, Charge] = {
    **dict.fromkeys(("starts_with_string", "ends_with_string"), lambda args, result: _tenths(size(args[1]))),
    **dict.fromkeys(("string_to_bytes", "bytes_to_string"), _first(1)),
    "in_list": _in_list,
    # Copying is not for nothing: upstream makes a list of two without it.
    "add_list": lambda args, result: 1 + len(result) // _COPIED,
    **dict.fromkeys(
        (
            f"{word}_{kind}"
            for word in ("less", "greater", "less_equals", "greater_equals")
            for kind in ("string", "bytes")
        ),
        lambda args, result: _tenths(min(size(args[0]), size(args[1]))),
    ),
    **dict.fromkeys(("add_string", "add_bytes"), lambda args, result: _tenths(size(args[0]) + size(args[1]))),
    "matches_string": _matching,
    "matches": _matching,
    "contains_string": lambda args, result: _tenths(size(args[0])) * _tenths(size(args[1])),
}


def of(function: str, overloads: list[Overload]) -> Charge | None:
    """What calls of a function cost beyond the one unit that all others cost."""
    if function in _BY_FUNCTION:
        return _BY_FUNCTION[function]
    for overload in overloads:
        charge = _BY_OVERLOAD.get(overload.id)
        if charge is not None:
            return charge
    return None
