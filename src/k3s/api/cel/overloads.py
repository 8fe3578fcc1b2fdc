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
    chosen: dict[tuple[type, ...], Overload | None] = {}

    def choose(classes: tuple[type, ...]) -> Overload | None:
        for overload in candidates:
            if len(overload.args) == len(classes) and all(map(takes, overload.args, classes)):
                return overload
        return None

    def run(*args: Any) -> Any:
        classes = tuple(map(type, args))
        try:
            overload = chosen[classes]
        except KeyError:
            overload = chosen[classes] = choose(classes)
        if overload is None:
            raise Fault(_no_overload(name, args))
        try:
            return overload.run(*args)
        except WRONG_VALUES:
            raise Fault(_no_overload(name, args)) from None

    return run


def _no_overload(name: str, args: tuple[Any, ...]) -> str:
    if not name[0].isalpha():
        return "no such overload"
    return f"no such overload: {name}({', '.join(map(type_name, args))})"
