"""Functions: what an overload is, how libraries declare them, and the choice among them when types are only known at
run time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from k3s.api.cel import types
from k3s.api.cel.errors import Fault
from k3s.api.cel.types import Type
from k3s.api.cel.values import Duration, Opaque, Optional, Timestamp, TypeValue, Uint, type_name

# What Python says of values inside lists and maps whose types nobody could check before.
WRONG_VALUES = (TypeError, AttributeError, ValueError, ArithmeticError)
_CLASSES = {
    "bool": bool,
    "int": int,
    "uint": Uint,
    "double": float,
    "string": str,
    "bytes": bytes,
    "timestamp": Timestamp,
    "duration": Duration,
}


@dataclass(frozen=True, slots=True, eq=False)
class Overload:
    """One form of a function: `id` is the reference implementation's, by which costs are told apart."""

    name: str
    id: str
    member: bool
    args: tuple[Type, ...]
    result: Type
    run: Callable[..., Any]

    @property
    def exact(self) -> bool:
        """Whether any value may be given for every argument."""
        return all(arg.kind in ("dyn", "param") for arg in self.args)


def declare(name: str, id: str, signature: str, run: Callable[..., Any]) -> Overload:
    """An overload from `int string -> bool`; a point before the first argument makes it a method."""
    given, _, result = signature.partition("->")
    member = given.startswith(".")
    args = tuple(types.parse(text) for text in given.lstrip(".").split())
    return Overload(name, id, member, args, types.parse(result.strip()), run)


def takes(kind: Type, cls: type) -> bool:
    """Whether a value of the class may be an argument of the type."""
    if kind.kind == "scalar":
        return _CLASSES.get(kind.name) is cls
    if kind.kind in ("dyn", "param"):
        return True
    if kind.kind == "list":
        return issubclass(cls, list)
    if kind.kind == "map":
        return issubclass(cls, dict)
    if kind.kind == "null":
        return cls is type(None)
    if kind.kind == "type":
        return cls is TypeValue
    if types.is_optional(kind):
        return cls is Optional
    return issubclass(cls, Opaque) and cls.kind == kind.name if kind.kind == "opaque" else issubclass(cls, dict)


def dispatcher(name: str, overloads: Iterable[Overload]) -> Callable[..., Any]:
    """One function that runs the overload that fits the values it is given; raises Fault when none does."""
    candidates = tuple(overloads)
    chosen: dict[tuple[type, ...], Callable[..., Any]] = {}

    def unfit(*args: Any) -> Any:
        raise Fault(_no_overload(name, args))

    def choose(*classes: type) -> Callable[..., Any]:
        fitting = (o.run for o in candidates if len(o.args) == len(classes) and all(map(takes, o.args, classes)))
        chosen[classes] = found = next(fitting, unfit)
        return found

    def run(*args: Any) -> Any:
        classes = tuple(map(type, args))
        fitting = chosen.get(classes) or choose(*classes)
        try:
            return fitting(*args)
        except WRONG_VALUES:
            raise Fault(_no_overload(name, args)) from None

    def of_two(one: Any, other: Any) -> Any:
        fitting = chosen.get((one.__class__, other.__class__)) or choose(one.__class__, other.__class__)
        try:
            return fitting(one, other)
        except WRONG_VALUES:
            raise Fault(_no_overload(name, (one, other))) from None

    return of_two if all(len(overload.args) == 2 for overload in candidates) else run


def _no_overload(name: str, args: tuple[Any, ...]) -> str:
    if not name[0].isalpha():
        return "no such overload"
    return f"no such overload: {name}({', '.join(map(type_name, args))})"
