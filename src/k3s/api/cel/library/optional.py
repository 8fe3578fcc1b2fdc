"""Values that may be missing.

Source: CEL's proposal 246, as upstream has it.
"""

from __future__ import annotations

from typing import Any

from k3s.api.cel.errors import Fault
from k3s.api.cel.library.standard import index_list, index_map
from k3s.api.cel.overloads import declare
from k3s.api.cel.values import NONE, NOTHING, Optional, is_zero


def select(value: Any, key: Any) -> Optional:
    """`?.` and `[?]`: what is there, as an optional value."""
    if value.__class__ is Optional:
        return NONE if value.value is NOTHING else select(value.value, key)
    try:
        if isinstance(value, dict):
            return Optional(index_map(value, key))
        if isinstance(value, list):
            return Optional(index_list(value, key))
    except Fault as fault:
        if not str(fault).startswith(("no such key", "index out of bounds")):
            raise
    return NONE


def _value(a: Optional) -> Any:
    if a.value is NOTHING:
        raise Fault("optional.none() dereference")
    return a.value


def _last(values: list[Any]) -> Optional:
    return Optional(values[-1]) if values else NONE


def _first(values: list[Any]) -> Optional:
    return Optional(values[0]) if values else NONE


def _unwrap(values: list[Optional]) -> list[Any]:
    for value in values:
        if value.__class__ is not Optional:
            raise Fault("no such overload")
    return [value.value for value in values if value.value is not NOTHING]


OVERLOADS = tuple(
    declare(*row)
    for row in (
        ("optional.of", "optional_of", "V -> optional<V>", Optional),
        (
            "optional.ofNonZeroValue",
            "optional_ofNonZeroValue",
            "V -> optional<V>",
            lambda a: NONE if is_zero(a) else Optional(a),
        ),
        ("optional.none", "optional_none", "-> optional<V>", lambda: NONE),
        ("optional.unwrap", "optional_unwrap", "list<optional<V>> -> list<V>", _unwrap),
        ("unwrapOpt", "optional_unwrapOpt", ".list<optional<V>> -> list<V>", _unwrap),
        ("value", "optional_value", ".optional<V> -> V", _value),
        ("hasValue", "optional_hasValue", ".optional<V> -> bool", lambda a: a.value is not NOTHING),
        ("or", "optional_or_optional", ".optional<V> optional<V> -> optional<V>", lambda a, b: a),
        ("orValue", "optional_orValue_value", ".optional<V> V -> V", lambda a, b: b if a.value is NOTHING else a.value),
        ("_?._", "select_optional_field", "dyn string -> optional<dyn>", select),
        ("_[?_]", "list_optindex_optional_int", "list<V> int -> optional<V>", select),
        ("_[?_]", "optional_list_optindex_optional_int", "optional<list<V>> int -> optional<V>", select),
        ("_[?_]", "map_optindex_optional_value", "map<K,V> K -> optional<V>", select),
        ("_[?_]", "optional_map_optindex_optional_value", "optional<map<K,V>> K -> optional<V>", select),
        ("_[_]", "optional_list_index_int", "optional<list<V>> int -> optional<V>", select),
        ("_[_]", "optional_map_index_value", "optional<map<K,V>> K -> optional<V>", select),
        ("first", "list_first", ".list<V> -> optional<V>", _first),
        ("last", "list_last", ".list<V> -> optional<V>", _last),
    )
)
