"""The functions of expressions, a file a library; a library is a tuple of overloads."""

from __future__ import annotations

from collections.abc import Mapping

from k3s.api.cel.library import optional, regex, standard
from k3s.api.cel.overloads import Overload, declare


def _bound(*args: object) -> object:
    raise AssertionError("the loops do this themselves")


_INSERT = (
    declare("cel.@mapInsert", "@mapInsert_map_map", "map<K,V> map<K,V> -> map<K,V>", _bound),
    declare("cel.@mapInsert", "@mapInsert_map_key_value", "map<K,V> K V -> map<K,V>", _bound),
)

LIBRARIES: Mapping[str, tuple[Overload, ...]] = {
    "standard": (*standard.OVERLOADS, *_INSERT),
    "optional": optional.OVERLOADS,
    "regex": regex.OVERLOADS,
}
