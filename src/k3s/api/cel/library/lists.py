"""Functions over lists and sets.

Source: the list library of the API server and CEL's sets extension.
"""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from typing import Any

from k3s.api.cel import numbers, times
from k3s.api.cel.errors import Fault
from k3s.api.cel.overloads import Overload, declare
from k3s.api.cel.values import Duration, Uint, compare, equal, finder


def _sorted(values: list[Any]) -> bool:
    return all(compare(a, b) != 1 for a, b in pairwise(values))


def _extreme(word: str, wanted: int) -> Any:
    def pick(values: list[Any]) -> Any:
        if not values:
            raise Fault(f"{word} called on empty list")
        return reduce(lambda a, b: b if compare(b, a) == wanted else a, values)

    return pick


def _sum(zero: Any) -> Any:
    def add(a: Any, b: Any) -> Any:
        if a.__class__ is Duration:
            return times.duration(a.nanos + b.nanos)
        total = a + b
        if a.__class__ is int:
            return numbers.checked(total)
        return numbers.unsigned(total) if a.__class__ is Uint else total

    return lambda values: reduce(add, values, zero)


def _index(values: list[Any], wanted: Any) -> int:
    return next((i for i, value in enumerate(values) if equal(value, wanted)), -1)


def _last_index(values: list[Any], wanted: Any) -> int:
    return next((i for i in range(len(values) - 1, -1, -1) if equal(values[i], wanted)), -1)


def _overloads() -> list[Overload]:
    found = []
    sums = {"int": 0, "uint": Uint(0), "double": 0.0, "duration": Duration(0)}
    for kind in ("int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes"):
        listed = f".list<{kind}> -> "
        found.append(declare("isSorted", f"list_{kind}_is_sorted_bool", f"{listed}bool", _sorted))
        found.append(declare("min", f"list_{kind}_min_{kind}", f"{listed}{kind}", _extreme("min", -1)))
        found.append(declare("max", f"list_{kind}_max_{kind}", f"{listed}{kind}", _extreme("max", 1)))
        if kind in sums:
            found.append(declare("sum", f"list_{kind}_sum_{kind}", f"{listed}{kind}", _sum(sums[kind])))
    found.append(declare("indexOf", "list_a_index_of_int", ".list<A> A -> int", _index))
    found.append(declare("lastIndexOf", "list_a_last_index_of_int", ".list<A> A -> int", _last_index))
    return found


def _all_in(values: list[Any], wanted: list[Any]) -> bool:
    return all(map(finder(values), wanted))


OVERLOADS = tuple(_overloads())
SETS = tuple(
    declare(*row)
    for row in (
        ("sets.contains", "list_sets_contains_list", "list<T> list<T> -> bool", _all_in),
        (
            "sets.equivalent",
            "list_sets_equivalent_list",
            "list<T> list<T> -> bool",
            lambda a, b: _all_in(a, b) and _all_in(b, a),
        ),
        (
            "sets.intersects",
            "list_sets_intersects_list",
            "list<T> list<T> -> bool",
            lambda a, b: any(map(finder(b), a)),
        ),
    )
)
