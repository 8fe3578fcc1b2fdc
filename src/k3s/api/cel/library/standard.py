"""The functions and operators of the language itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from k3s.api.cel import numbers, times
from k3s.api.cel.errors import Fault, bounded_list
from k3s.api.cel.library import regex
from k3s.api.cel.overloads import Overload, declare
from k3s.api.cel.types import Type
from k3s.api.cel.values import (
    NOTHING,
    Duration,
    MapList,
    Object,
    Opaque,
    SetList,
    Timestamp,
    TypeValue,
    Uint,
    compare,
    contains,
    equal,
    finder,
    to_key,
    type_name,
)


def _never(*args: Any) -> Any:
    raise AssertionError("the compiler has its own way for this one")


def _in_map(key: Any, values: dict[Any, Any]) -> bool:
    try:
        return to_key(key) in values
    except Fault:
        return False


def index_list(values: list[Any], index: Any) -> Any:
    """An element; numbers of all types may be its place."""
    if index.__class__ is float and index.is_integer():
        index = int(index)
    if index.__class__ not in (int, Uint):
        raise Fault(f"unsupported index type '{type_name(index)}' in list")
    if not 0 <= index < len(values):
        raise Fault(f"index out of bounds: {index}")
    return values[index]


def index_map(values: dict[Any, Any], key: Any) -> Any:
    """The value of a key."""
    found = values.get(to_key(key), NOTHING)
    if found is NOTHING:
        raise Fault(f"no such key: {shown(key)}")
    return found


def shown(value: Any) -> str:
    """A key as messages have it."""
    if value.__class__ is bool:
        return "true" if value else "false"
    return numbers.text_of_double(value) if value.__class__ is float else str(value)


def _type_of(value: Any) -> TypeValue:
    if isinstance(value, Object):
        return TypeValue(value.type)
    return TypeValue(Type("opaque" if isinstance(value, Opaque) else "scalar", type_name(value)))


def _add_lists(a: list[Any], b: list[Any]) -> list[Any]:
    bounded_list(len(a) + len(b))
    if a.__class__ is SetList:
        known = finder(a)
        return SetList([*a, *(x for x in b if not known(x))])
    if a.__class__ is MapList:
        assert isinstance(a, MapList)
        return _merged(a, b)
    return [*a, *b]


def _merged(a: MapList, b: list[Any]) -> MapList:
    places = {a.key(element): i for i, element in enumerate(a)}
    merged = list(a)
    for element in b:
        place = places.get(a.key(element))
        if place is None:
            merged.append(element)
        else:
            merged[place] = element
    return MapList(merged, a.keys)


def _bytes_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Fault("invalid UTF-8 in bytes, cannot convert to string") from None


def _timestamp_of_text(text: str) -> Timestamp:
    try:
        return times.parse_timestamp(text)
    except ValueError:
        raise numbers.conversion("string", "google.protobuf.Timestamp") from None


def _duration_of_text(text: str) -> Duration:
    try:
        return times.parse_duration(text)
    except ValueError:
        raise numbers.conversion("string", "google.protobuf.Duration") from None


def _same(value: Any) -> Any:
    return value


def _less(a: Any, b: Any) -> bool:
    return compare(a, b) == -1


def _less_equal(a: Any, b: Any) -> bool:
    return compare(a, b) in (-1, 0)


def _greater(a: Any, b: Any) -> bool:
    return compare(a, b) == 1


def _greater_equal(a: Any, b: Any) -> bool:
    return compare(a, b) in (1, 0)


_Row = tuple[str, str, str, Callable[..., Any]]
_SECOND = 1_000_000_000
_NUMBER_IDS = {"int": "int64", "uint": "uint64"}


def _orders() -> list[Overload]:
    pairs = [(a, b) for a in ("int", "uint", "double") for b in (a, *(o for o in ("int", "uint", "double") if o != a))]
    same = [(kind, kind) for kind in ("bool", "string", "bytes", "timestamp", "duration")]
    found = []
    for name, word, run in (
        ("_<_", "less", _less),
        ("_<=_", "less_equals", _less_equal),
        ("_>_", "greater", _greater),
        ("_>=_", "greater_equals", _greater_equal),
    ):
        for a, b in (same[0], *pairs, *same[1:]):
            one, other = _NUMBER_IDS.get(a, a), _NUMBER_IDS.get(b, b)
            id = f"{word}_{one}" if a == b else f"{word}_{one}_{other}"
            found.append(declare(name, id, f"{a} {b} -> bool", run))
    return found


def _parts() -> list[Overload]:
    found = []
    words = {
        "getFullYear": "year",
        "getMonth": "month",
        "getDayOfYear": "day_of_year",
        "getDayOfMonth": "day_of_month",
        "getDate": "day_of_month_1_based",
        "getDayOfWeek": "day_of_week",
        "getHours": "hours",
        "getMinutes": "minutes",
        "getSeconds": "seconds",
        "getMilliseconds": "milliseconds",
    }

    def stamp(name: str) -> Any:
        return lambda value, zone="UTC": times.part(name, value, zone)

    def span(name: str) -> Any:
        return lambda value: times.span_part(name, value)

    for name, word in words.items():
        found.append(declare(name, f"timestamp_to_{word}", ".timestamp -> int", stamp(name)))
        found.append(declare(name, f"timestamp_to_{word}_with_tz", ".timestamp string -> int", stamp(name)))
        if name in ("getHours", "getMinutes", "getSeconds", "getMilliseconds"):
            found.append(declare(name, f"duration_to_{word}", ".duration -> int", span(name)))
    return found


_ARITHMETIC: tuple[_Row, ...] = (
    ("_+_", "add_bytes", "bytes bytes -> bytes", lambda a, b: a + b),
    ("_+_", "add_double", "double double -> double", lambda a, b: a + b),
    ("_+_", "add_duration_duration", "duration duration -> duration", lambda a, b: times.duration(a.nanos + b.nanos)),
    (
        "_+_",
        "add_duration_timestamp",
        "duration timestamp -> timestamp",
        lambda a, b: times.timestamp(a.nanos + b.nanos),
    ),
    (
        "_+_",
        "add_timestamp_duration",
        "timestamp duration -> timestamp",
        lambda a, b: times.timestamp(a.nanos + b.nanos),
    ),
    ("_+_", "add_int64", "int int -> int", lambda a, b: numbers.checked(a + b)),
    ("_+_", "add_list", "list<A> list<A> -> list<A>", _add_lists),
    ("_+_", "add_string", "string string -> string", lambda a, b: a + b),
    ("_+_", "add_uint64", "uint uint -> uint", lambda a, b: numbers.unsigned(a + b)),
    ("_-_", "subtract_double", "double double -> double", lambda a, b: a - b),
    (
        "_-_",
        "subtract_duration_duration",
        "duration duration -> duration",
        lambda a, b: times.duration(a.nanos - b.nanos),
    ),
    ("_-_", "subtract_int64", "int int -> int", lambda a, b: numbers.checked(a - b)),
    (
        "_-_",
        "subtract_timestamp_duration",
        "timestamp duration -> timestamp",
        lambda a, b: times.timestamp(a.nanos - b.nanos),
    ),
    (
        "_-_",
        "subtract_timestamp_timestamp",
        "timestamp timestamp -> duration",
        lambda a, b: times.duration(a.nanos - b.nanos),
    ),
    ("_-_", "subtract_uint64", "uint uint -> uint", lambda a, b: numbers.unsigned(a - b)),
    ("_*_", "multiply_double", "double double -> double", lambda a, b: a * b),
    ("_*_", "multiply_int64", "int int -> int", lambda a, b: numbers.checked(a * b)),
    ("_*_", "multiply_uint64", "uint uint -> uint", lambda a, b: numbers.unsigned(a * b)),
    ("_/_", "divide_double", "double double -> double", numbers.divide_doubles),
    ("_/_", "divide_int64", "int int -> int", numbers.divide_ints),
    ("_/_", "divide_uint64", "uint uint -> uint", numbers.divide_uints),
    ("_%_", "modulo_int64", "int int -> int", numbers.modulo_ints),
    ("_%_", "modulo_uint64", "uint uint -> uint", numbers.modulo_uints),
    ("-_", "negate_double", "double -> double", numbers.negate),
    ("-_", "negate_int64", "int -> int", numbers.negate),
)
_LOGIC: tuple[_Row, ...] = (
    ("_?_:_", "conditional", "bool A A -> A", _never),
    ("_&&_", "logical_and", "bool bool -> bool", _never),
    ("_||_", "logical_or", "bool bool -> bool", _never),
    ("!_", "logical_not", "bool -> bool", lambda a: not a),
    ("@not_strictly_false", "not_strictly_false", "bool -> bool", _never),
    ("_==_", "equals", "A A -> bool", equal),
    ("_!=_", "not_equals", "A A -> bool", lambda a, b: not equal(a, b)),
    ("@in", "in_list", "A list<A> -> bool", lambda a, b: contains(b, a)),
    ("@in", "in_map", "A map<A,B> -> bool", _in_map),
    ("_[_]", "index_list", "list<A> int -> A", index_list),
    ("_[_]", "index_map", "map<A,B> A -> B", index_map),
)
_CONVERSIONS: tuple[_Row, ...] = (
    ("type", "type", "A -> type<A>", _type_of),
    ("dyn", "to_dyn", "A -> dyn", _same),
    ("bool", "bool_to_bool", "bool -> bool", _same),
    ("bool", "string_to_bool", "string -> bool", numbers.bool_of_text),
    ("bytes", "bytes_to_bytes", "bytes -> bytes", _same),
    ("bytes", "string_to_bytes", "string -> bytes", lambda a: a.encode()),
    ("double", "double_to_double", "double -> double", _same),
    ("double", "int64_to_double", "int -> double", float),
    ("double", "string_to_double", "string -> double", numbers.double_of_text),
    ("double", "uint64_to_double", "uint -> double", float),
    ("duration", "duration_to_duration", "duration -> duration", _same),
    ("duration", "int64_to_duration", "int -> duration", times.duration),
    ("duration", "string_to_duration", "string -> duration", _duration_of_text),
    ("int", "int64_to_int64", "int -> int", _same),
    ("int", "double_to_int64", "double -> int", numbers.int_of_double),
    ("int", "duration_to_int64", "duration -> int", lambda a: a.nanos),
    ("int", "string_to_int64", "string -> int", numbers.int_of_text),
    ("int", "timestamp_to_int64", "timestamp -> int", lambda a: a.nanos // _SECOND),
    ("int", "uint64_to_int64", "uint -> int", lambda a: numbers.checked(int(a))),
    ("string", "string_to_string", "string -> string", _same),
    ("string", "bool_to_string", "bool -> string", lambda a: "true" if a else "false"),
    ("string", "bytes_to_string", "bytes -> string", _bytes_text),
    ("string", "double_to_string", "double -> string", numbers.text_of_double),
    ("string", "duration_to_string", "duration -> string", times.duration_text),
    ("string", "int64_to_string", "int -> string", str),
    ("string", "timestamp_to_string", "timestamp -> string", times.timestamp_text),
    ("string", "uint64_to_string", "uint -> string", str),
    ("timestamp", "timestamp_to_timestamp", "timestamp -> timestamp", _same),
    ("timestamp", "int64_to_timestamp", "int -> timestamp", lambda a: times.timestamp(a * _SECOND)),
    ("timestamp", "string_to_timestamp", "string -> timestamp", _timestamp_of_text),
    ("uint", "uint64_to_uint64", "uint -> uint", _same),
    ("uint", "double_to_uint64", "double -> uint", numbers.uint_of_double),
    ("uint", "int64_to_uint64", "int -> uint", numbers.unsigned),
    ("uint", "string_to_uint64", "string -> uint", numbers.uint_of_text),
)
_SIZES: tuple[_Row, ...] = tuple(
    ("size", f"{prefix}size_{word}" if not dot else f"{word}_size", f"{dot}{kind} -> int", len)
    for kind, word in (("bytes", "bytes"), ("list<A>", "list"), ("map<A,B>", "map"), ("string", "string"))
    for dot, prefix in (("", ""), (".", ""))
)
_TEXTS: tuple[_Row, ...] = (
    ("contains", "contains_string", ".string string -> bool", lambda a, b: b in a),
    ("endsWith", "ends_with_string", ".string string -> bool", str.endswith),
    ("startsWith", "starts_with_string", ".string string -> bool", str.startswith),
    ("matches", "matches", "string string -> bool", regex.matches),
    ("matches", "matches_string", ".string string -> bool", regex.matches),
)


OVERLOADS = (
    *(declare(*row) for row in (*_LOGIC, *_ARITHMETIC)),
    *_orders(),
    *(declare(*row) for row in (*_CONVERSIONS, *_SIZES, *_TEXTS)),
    *_parts(),
)
