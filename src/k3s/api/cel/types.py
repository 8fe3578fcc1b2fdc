"""Static types of expressions, and which of them may stand for which.

Source: the language definition of CEL; the names in messages are those of the reference checker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["dyn", "error", "null", "scalar", "list", "map", "type", "param", "opaque", "object"]


@dataclass(frozen=True, slots=True)
class Type:
    """A type: what sort it is of, its name, and the types it is made from."""

    kind: Kind
    name: str
    args: tuple[Type, ...] = ()
    # What an object type has; the types of some fields are only known when they are asked for.
    fields: FieldsOf | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        """The name as result types are told."""
        return f"{self.name}({', '.join(map(str, self.args))})" if self.args else _FULL_NAMES.get(self.name, self.name)

    @property
    def shown(self) -> str:
        """The name as the checker's messages have it."""
        if self.kind == "error":
            return "!error!"
        if self.kind == "null":
            return "null"
        return f"{self.name}({', '.join(a.shown for a in self.args)})" if self.args else self.name


# The type of a field of an object; None for one that it does not have.
FieldsOf = Callable[[str], Type | None]
_FULL_NAMES = {"timestamp": "google.protobuf.Timestamp", "duration": "google.protobuf.Duration"}

DYN, ERROR, NULL = Type("dyn", "dyn"), Type("error", "!error!"), Type("null", "null_type")
BOOL, INT, UINT, DOUBLE, STRING, BYTES = (
    Type("scalar", n) for n in ("bool", "int", "uint", "double", "string", "bytes")
)
TIMESTAMP, DURATION = Type("scalar", "timestamp"), Type("scalar", "duration")
ANY = Type("scalar", "any")
TYPE = Type("type", "type")


def list_of(element: Type) -> Type:
    """A list."""
    return Type("list", "list", (element,))


def map_of(key: Type, value: Type) -> Type:
    """A map."""
    return Type("map", "map", (key, value))


def type_of(named: Type) -> Type:
    """The type of a type."""
    return Type("type", "type", (named,))


def optional_of(value: Type) -> Type:
    """A value that may be missing."""
    return Type("opaque", "optional_type", (value,))


def param(name: str) -> Type:
    """A type that is still open."""
    return Type("param", name)


def object_type(name: str, fields: Mapping[str, Type] | FieldsOf) -> Type:
    """A type with named fields."""
    return Type("object", name, (), fields.get if isinstance(fields, Mapping) else fields)


def is_optional(kind: Type) -> bool:
    """Whether it is the type of optional values."""
    return kind.name == "optional_type" and kind.kind == "opaque"


_NAMED = {t.name: t for t in (DYN, NULL, BOOL, INT, UINT, DOUBLE, STRING, BYTES, TIMESTAMP, DURATION, TYPE)}
_NAMED["null"] = NULL


def parse(text: str) -> Type:
    """A type from its text: `map<string,list<T>>`; a single capital is an open type, unknown names are opaque."""
    name, bracket, rest = text.partition("<")
    if not bracket:
        if name in _NAMED:
            return _NAMED[name]
        return param(name) if len(name) == 1 else Type("opaque", name)
    parts, depth, start = [], 0, 0
    inner = rest[:-1]
    for i, char in enumerate(inner):
        depth += (char == "<") - (char == ">")
        if char == "," and not depth:
            parts.append(inner[start:i])
            start = i + 1
    args = tuple(parse(part) for part in [*parts, inner[start:]])
    if name == "optional":
        return optional_of(args[0])
    return Type(name if name in ("list", "map", "type") else "opaque", name, args)  # type: ignore[arg-type]


class Bindings:
    """What the open types of one expression stand for."""

    __slots__ = ("_count", "_known")

    def __init__(self) -> None:
        self._known: dict[str, Type] = {}
        self._count = 0

    def fresh(self) -> Type:
        """An open type that nothing else knows."""
        self._count += 1
        return Type("param", f"_var{self._count - 1}")

    def assignable(self, source: Type, target: Type) -> bool:
        """Whether a value of the one type may stand where the other is wanted; remembers what follows from that."""
        return self.all_assignable((source,), (target,))

    def all_assignable(self, sources: Sequence[Type], targets: Sequence[Type]) -> bool:
        """The same for several at once; when one does not fit, nothing is remembered."""
        if len(sources) != len(targets):
            return False
        before = dict(self._known)
        for source, target in zip(sources, targets, strict=True):
            if not self._fits(source, target):
                self._known = before
                return False
        return True

    def _fits(self, a: Type, b: Type) -> bool:
        if b.kind == "param":
            valid, known = self._stands_for(a, b)
            if valid or known:
                return valid
        if a.kind == "param":
            return self._stands_for(b, a)[0]
        if a.kind in ("dyn", "error") or b.kind in ("dyn", "error"):
            return True
        if a.kind == "null" or b.kind == "null":
            other = b if a.kind == "null" else a
            return other.kind in ("null", "object", "opaque") or other in (TIMESTAMP, DURATION, ANY)
        if a.kind == "type":
            return b.kind == "type"
        if a.kind in ("list", "map", "opaque"):
            same = a.kind == b.kind and a.name == b.name and len(a.args) == len(b.args)
            return same and all(self._fits(x, y) for x, y in zip(a.args, b.args, strict=True))
        return a.kind == b.kind and a.name == b.name

    def _stands_for(self, a: Type, open_type: Type) -> tuple[bool, bool]:
        """Whether the open type may stand for `a`, and whether it already stands for something."""
        if a == open_type:
            return True, True
        known = self._known.get(open_type.name)
        if known is not None:
            if known == a:
                return True, True
            if not self._fits(a, known):
                return False, True
            wider = a if self.wider(a, known) else known
            if not self._mentions(wider, open_type):
                self._known[open_type.name] = wider
            return True, True
        if self._mentions(a, open_type):
            return False, False
        self._known[open_type.name] = a
        return True, False

    def _mentions(self, where: Type, open_type: Type) -> bool:
        if where.kind == "param":
            known = self._known.get(where.name)
            return where == open_type or (known is not None and self._mentions(known, open_type))
        return any(self._mentions(arg, open_type) for arg in where.args)

    def wider(self, a: Type, b: Type) -> bool:
        """Whether the first type is at least as general as the second."""
        if a.kind in ("dyn", "param"):
            return True
        if b.kind in ("dyn", "param") or a.kind != b.kind:
            return False
        if a.kind in ("list", "map", "opaque"):
            same = a.name == b.name and len(a.args) == len(b.args)
            return same and all(self.wider(x, y) for x, y in zip(a.args, b.args, strict=True))
        return a.kind == "type" or a == b

    def resolve(self, kind: Type, *, close: bool = False) -> Type:
        """The type with what its open parts stand for; `close` makes those that stand for nothing dynamic."""
        if kind.kind == "param":
            known = self._known.get(kind.name)
            if known is not None:
                return self.resolve(known, close=close)
            return DYN if close else kind
        if not kind.args:
            return kind
        args = tuple(self.resolve(arg, close=close) for arg in kind.args)
        return kind if args == kind.args else Type(kind.kind, kind.name, args, kind.fields)


def instantiate(kinds: Sequence[Type], bindings: Bindings) -> list[Type]:
    """The types of a declaration with fresh open types in the place of its own."""
    fresh: dict[str, Type] = {}

    def renew(kind: Type) -> Type:
        if kind.kind == "param":
            if kind.name not in fresh:
                fresh[kind.name] = bindings.fresh()
            return fresh[kind.name]
        return Type(kind.kind, kind.name, tuple(map(renew, kind.args)), kind.fields) if kind.args else kind

    return [renew(kind) for kind in kinds]
