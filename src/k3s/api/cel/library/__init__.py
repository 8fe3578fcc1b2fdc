"""The functions of expressions, a file or two a library; a library is a tuple of overloads."""

from __future__ import annotations

from collections.abc import Mapping

from k3s.api.cel.library import authorizer, lists, mathematics, names, net, optional, regex, standard, strings, versions
from k3s.api.cel.overloads import Overload, declare


def _looped(*args: object) -> object:
    raise AssertionError("the loops do this themselves")


_INSERT = (
    declare("cel.@mapInsert", "@mapInsert_map_map", "map<K,V> map<K,V> -> map<K,V>", _looped),
    declare("cel.@mapInsert", "@mapInsert_map_key_value", "map<K,V> K V -> map<K,V>", _looped),
)

LIBRARIES: Mapping[str, tuple[Overload, ...]] = {
    "standard": (*standard.OVERLOADS, *_INSERT),
    "optional": optional.OVERLOADS,
    "strings": strings.OVERLOADS,
    "lists": lists.OVERLOADS,
    "sets": lists.SETS,
    "regex": regex.OVERLOADS,
    "url": net.URLS,
    "net": net.ADDRESSES,
    "quantity": versions.QUANTITIES,
    "semver": versions.SEMVER,
    "format": names.FORMATS,
    "authorizer": authorizer.OVERLOADS,
    "math": mathematics.MATH,
    "base64": mathematics.BASE64,
    "jsonpatch": names.JSON_PATCH,
}
