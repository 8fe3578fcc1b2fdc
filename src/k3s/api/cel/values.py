"""The values of expressions that JSON does not have, and equality and order among all values.

Integers, floats, texts, bytes, booleans, null, lists and maps are Python's own. Keys of maps that are booleans are
`TRUE_KEY` and `FALSE_KEY`, because Python takes True for 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from k3s.api.cel.errors import Fault, exceeded
from k3s.api.cel.types import Type

INT_MIN, INT_MAX, UINT_MAX = -(1 << 63), (1 << 63) - 1, (1 << 64) - 1
NANOS = 1_000_000_000
# 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999999Z.
TIME_MIN, TIME_MAX = -62135596800 * NANOS, 253402300799 * NANOS + NANOS - 1


class Uint(int):
    """An unsigned integer."""

    __slots__ = ()


class _Nanos:
    """A number of nanoseconds."""

    __slots__ = ("nanos",)

    def __init__(self, nanos: int) -> None:
        self.nanos = nanos

    def __eq__(self, other: object) -> bool:
        return other.__class__ is self.__class__ and other.nanos == self.nanos

    def __hash__(self) -> int:
        return hash((self.__class__, self.nanos))


class Timestamp(_Nanos):
    """A moment, in nanoseconds since 1970."""

    __slots__ = ()


class Duration(_Nanos):
    """A span of time."""

    __slots__ = ()


class TypeValue:
    """A type as a value; two are the same when their names are."""

    __slots__ = ("name", "type")

    def __init__(self, kind: Type) -> None:
        self.type = kind
        self.name = {"timestamp": "google.protobuf.Timestamp", "duration": "google.protobuf.Duration"}.get(
            kind.name, kind.name
        )

    def __eq__(self, other: object) -> bool:
        return other.__class__ is TypeValue and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


class _Nothing:
    __slots__ = ()


NOTHING: Any = _Nothing()


class Optional:
    """A value that may be missing: then `value` is NOTHING."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return other.__class__ is Optional and equal(self.value, other.value)

    __hash__ = None  # type: ignore[assignment]


NONE = Optional(NOTHING)


class BoolKey:
    """A boolean as the key of a map."""

    __slots__ = ("value",)

    def __init__(self, value: bool) -> None:
        self.value = value


TRUE_KEY, FALSE_KEY = BoolKey(True), BoolKey(False)


class Object(dict[str, Any]):
    """An object of a named type, made by an expression."""

    __slots__ = ("type",)

    def __init__(self, kind: Type, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.type = kind


class SetList(list[Any]):
    """A list whose order means nothing (`x-kubernetes-list-type: set`)."""

    __slots__ = ()


class MapList(list[Any]):
    """A list whose elements have keys (`x-kubernetes-list-type: map`)."""

    __slots__ = ("keys",)

    def __init__(self, elements: list[Any], keys: tuple[str, ...]) -> None:
        super().__init__(elements)
        self.keys = keys

    def key(self, element: Any) -> tuple[Any, ...]:
        """What tells an element from the others: each key's value, with its class because Python takes True for 1."""
        if not isinstance(element, dict):
            return ()
        return tuple((value.__class__, value) for value in map(element.get, self.keys))


class Opaque:
    """A value of a library, such as a URL; `kind` names its type."""

    __slots__ = ()
    kind: str


def to_key(value: Any) -> Any:
    """The value as the key of a map; raises Fault for what cannot be one."""
    kind = value.__class__
    if kind is str or kind is int or kind is Uint:
        return value
    if kind is bool:
        return TRUE_KEY if value else FALSE_KEY
    if kind is float:
        return value
    raise Fault(f"unsupported key type: {type_name(value)}")


def keys(value: Mapping[Any, Any]) -> Iterator[Any]:
    """The keys of a map as values."""
    for key in value:
        yield key.value if key.__class__ is BoolKey else key


_NAMES = {
    bool: "bool",
    int: "int",
    Uint: "uint",
    float: "double",
    str: "string",
    bytes: "bytes",
    list: "list",
    SetList: "list",
    MapList: "list",
    tuple: "list",
    dict: "map",
    type(None): "null_type",
    Timestamp: "google.protobuf.Timestamp",
    Duration: "google.protobuf.Duration",
    TypeValue: "type",
    Optional: "optional_type",
}


def type_name(value: Any) -> str:
    """The name of the type that a value has."""
    known = _NAMES.get(value.__class__)
    if known is not None:
        return known
    if isinstance(value, Object):
        return value.type.name
    if isinstance(value, Opaque):
        return value.kind
    return "map" if isinstance(value, Mapping) else "list"


_NUMBERS = frozenset((int, Uint, float))
_SIMPLE = frozenset((str, bool, bytes, type(None), Timestamp, Duration, TypeValue))


# The frame of who pays for nothing: the cost that is left, and what it may not fall below.
_FREE: list[Any] = [0, -math.inf]


def equal(a: Any, b: Any, f: list[Any] = _FREE) -> bool:
    """Equality of CEL: numbers of all types compare by value, what has different types is not equal.

    The frame `f` pays for the lists and maps inside of both (see `_within`), not for the two themselves."""
    one, other = a.__class__, b.__class__
    if one is str or other is str:
        return one is other and bool(a == b)
    if one is dict and other is dict:  # of the many that are compared most are these
        return len(a) == len(b) and _maps_equal(a, b, f)
    if one in _NUMBERS:
        return other in _NUMBERS and bool(a == b)
    if one in _SIMPLE:
        return one is other and bool(a == b)
    if isinstance(a, list):
        return isinstance(b, list) and _lists_equal(a, b, f)
    if isinstance(a, dict):
        if not isinstance(b, dict) or len(a) != len(b):
            return False
        if isinstance(a, Object) != isinstance(b, Object):
            return False
        return _maps_equal(a, b, f)
    return bool(a == b) if one is other else False


def _within(a: Any, b: Any, f: list[Any]) -> bool:
    """Equality of what is inside lists and maps: each list or map that is looked into costs as if it came alone.

    Upstream takes the size of the outermost for all, and so charges next to nothing for what may take long."""
    if isinstance(a, list | dict):
        f[0] -= 1 + len(a) // 10
        if f[0] < f[1]:
            raise exceeded(f)
    return equal(a, b, f)


# What Python says of two values of one of these classes is what CEL says.
_EXACT = frozenset((str, int, bool, type(None)))


def _maps_equal(a: dict[Any, Any], b: dict[Any, Any], f: list[Any]) -> bool:
    for key, one in a.items():
        if key not in b:
            return False
        other = b[key]
        if one.__class__ is other.__class__ and one.__class__ in _EXACT:
            if one != other:
                return False
        elif not _within(one, other, f):
            return False
    return True


def _lists_equal(a: list[Any], b: list[Any], f: list[Any]) -> bool:
    if len(a) != len(b):
        return False
    if isinstance(a, SetList):
        return all(map(finder(b, f), a)) and all(map(finder(a, f), b))
    if isinstance(a, MapList):
        return _entries_equal(a, b, f)
    for one, other in zip(a, b, strict=True):
        if one.__class__ is other.__class__ and one.__class__ in _EXACT:
            if one != other:
                return False
        elif not _within(one, other, f):
            return False
    return True


def _entries_equal(a: MapList, b: list[Any], f: list[Any]) -> bool:
    """Whether two lists of the same length have equal elements under the same keys."""
    known = {a.key(element): element for element in b}
    return all(_within(x, known.get(a.key(x), NOTHING), f) for x in a)


def contains(values: list[Any], wanted: Any, f: list[Any] = _FREE) -> bool:
    """Whether a list has an element that is equal; the frame pays for what is inside of those."""
    if wanted.__class__ is str:
        return wanted in values
    return any(_within(value, wanted, f) for value in values)


_HASHED = frozenset((str, int))


def finder(values: list[Any], f: list[Any] = _FREE) -> Callable[[Any], bool]:
    """What tells whether a list that is asked often has an equal element; the frame pays for each search."""
    kinds = {value.__class__ for value in values}
    known = set(values) if kinds <= _HASHED else None

    def found(wanted: Any) -> bool:
        if known is not None and wanted.__class__ in _HASHED:
            return wanted in known
        f[0] -= len(values)
        if f[0] < f[1]:
            raise exceeded(f)
        return contains(values, wanted, f)

    return found


_ORDERED = frozenset((str, bool, bytes, Timestamp, Duration))


def compare(a: Any, b: Any) -> int | None:
    """-1, 0 or 1; None when one of two numbers is not a number. Raises Fault for values without an order."""
    one, other = a.__class__, b.__class__
    if one in _NUMBERS and other in _NUMBERS:
        if (one is float and math.isnan(a)) or (other is float and math.isnan(b)):
            return None
        return int(a > b) - int(a < b)
    if one is not other or one not in _ORDERED:
        raise Fault("no such overload")
    if one is Timestamp or one is Duration:
        a, b = a.nanos, b.nanos
    elif one is str and not (a.isascii() and b.isascii()):
        a, b = a.encode(), b.encode()
    return int(a > b) - int(a < b)


def is_zero(value: Any) -> bool:
    """Whether a value is what its type begins with: 0, no text, nothing in it."""
    if isinstance(value, _Nanos):
        return value.nanos == 0 if isinstance(value, Duration) else False
    if value.__class__ is Optional:
        return value.value is NOTHING
    return not value if not isinstance(value, Opaque | TypeValue) else False


def size(value: Any) -> int:
    """How much a value counts in costs: its length, 1 for what has none."""
    kind = value.__class__
    if kind is str or kind is bytes or isinstance(value, list | dict):
        return len(value)
    return 1
