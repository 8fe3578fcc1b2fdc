"""The macros over lists and maps as plain loops.

They give what the fold of the reference implementation gives: `all` and `exists` go on after an error and forget it
when another element decides; every other error ends the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from k3s.api.cel.errors import Fault, exceeded
from k3s.api.cel.values import keys, to_key, type_name

Frame = list[Any]
Run = Callable[[Frame], Any]

# What the fold pays for each element besides the author's own terms: the accumulated value, the condition, the step.
_QUANTIFIER, _ONE, _COLLECT, _SKIP = 3, 1, 13, 1


def make(macro: str, items: Run, first: int, second: int, parts: list[Run | None]) -> Run:
    """The loop of a macro; the variables live in two places of the frame."""
    if macro in ("all", "exists"):
        assert parts[0] is not None
        return _quantifier(macro == "exists", items, first, second, parts[0])
    if macro == "exists_one":
        assert parts[0] is not None
        return _exactly_one(items, first, second, parts[0])
    predicate, value = parts
    assert value is not None
    if macro == "list":
        return _collect(items, first, second, predicate, value)
    return _entries(macro == "entries", items, first, second, predicate, value)


def _elements(value: Any, second: int) -> Iterable[Any]:
    """The elements of a list, the keys of a map, or pairs of both when two variables are named."""
    if isinstance(value, list):
        return enumerate(value) if second else value
    if isinstance(value, dict):
        return zip(keys(value), value.values(), strict=True) if second else keys(value)
    raise Fault(f"got '{type_name(value)}', expected iterable type")


def _each(f: Frame, items: Run, first: int, second: int) -> Iterator[None]:
    for element in _elements(items(f), second):
        if second:
            f[first], f[second] = element
        else:
            f[first] = element
        if f[0] < f[1]:
            raise exceeded(f)
        yield


def _quantifier(decides: bool, items: Run, first: int, second: int, predicate: Run) -> Run:
    cost = _QUANTIFIER + decides

    def run(f: Frame) -> Any:
        problem: Fault | None = None
        value = items(f)
        for element in value if value.__class__ is list and not second else _elements(value, second):
            if second:
                f[first], f[second] = element
            else:
                f[first] = element
            f[0] -= cost
            if f[0] < f[1]:
                raise exceeded(f)
            try:
                found = predicate(f)
            except Fault as fault:
                problem = problem or fault
                continue
            if found is decides:
                return decides
            if found.__class__ is not bool:
                problem = problem or Fault("no such overload")
        if problem is not None:
            raise problem
        f[0] -= 1
        return not decides

    return run


def _exactly_one(items: Run, first: int, second: int, predicate: Run) -> Run:
    def run(f: Frame) -> bool:
        count = 0
        for _ in _each(f, items, first, second):
            f[0] -= _ONE
            if _true(predicate(f)):
                f[0] -= 1
                count += 1
        f[0] -= 2
        return count == 1

    return run


def _true(value: Any) -> bool:
    if value.__class__ is not bool:
        raise Fault("no such overload")
    return bool(value)


def _collect(items: Run, first: int, second: int, predicate: Run | None, value: Run) -> Run:
    def run(f: Frame) -> list[Any]:
        made = []
        for _ in _each(f, items, first, second):
            if predicate is not None and not _true(predicate(f)):
                f[0] -= _SKIP
                continue
            f[0] -= _COLLECT
            made.append(value(f))
        f[0] -= 1
        return made

    return run


def _entries(whole: bool, items: Run, first: int, second: int, predicate: Run | None, value: Run) -> Run:
    def run(f: Frame) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for _ in _each(f, items, first, second):
            if predicate is not None and not _true(predicate(f)):
                f[0] -= _SKIP
                continue
            f[0] -= 2
            new = value(f) if whole else {to_key(f[first]): value(f)}
            if not isinstance(new, dict):
                raise Fault("no such overload")
            for key, found in new.items():
                if key in made:
                    raise Fault(f"insert failed: key {next(keys({key: None}))} already exists")
                made[key] = found
        f[0] -= 1
        return made

    return run
