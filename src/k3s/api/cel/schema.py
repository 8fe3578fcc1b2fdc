"""Types of expressions from structural schemas, with what is known about sizes, and values by their schema.

Source: the API server's rules for `x-kubernetes-validations`: names are escaped, what has no schema is left out, sizes
that nothing bounds are those of the largest request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from k3s.api.cel import types
from k3s.api.cel.types import Type

Raw = Mapping[str, Any]
REQUEST_BYTES = 3 * 1024 * 1024
_RESERVED = frozenset(
    (
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
        "let", "loop", "package", "namespace", "return", "var", "void", "while",
    )
)  # fmt: skip
_ESCAPED = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_STRING: Raw = {"type": "string"}
_META: Raw = {"type": "object", "properties": {"name": _STRING, "generateName": _STRING}}
# The smallest and the largest text of a format, quotes included.
_FORMATS = {
    "duration": (types.DURATION, 3, 32),
    "date": (types.TIMESTAMP, 12, 12),
    "date-time": (types.TIMESTAMP, 21, 32),
}


@dataclass(frozen=True, slots=True)
class Declared:
    """A type and its sizes: the most elements or characters, the fewest bytes of its JSON."""

    type: Type
    most: int = 0
    least_bytes: int = 1
    fields: Mapping[str, Declared] = field(default_factory=dict)
    element: Declared | None = None
    key: Declared | None = None


_BY_TYPE = {
    "boolean": Declared(types.BOOL, 0, 4),
    "number": Declared(types.DOUBLE, 0, 1),
    "integer": Declared(types.INT, 0, 1),
}
_KEY = Declared(types.STRING, 0, 2)


def escape(name: str) -> str | None:
    """A property's name in expressions; None for one that has none there."""
    if name in _RESERVED:
        return f"__{name}__"
    for plain, escaped in _ESCAPED.items():
        name = name.replace(plain, escaped)
    ok = name[:1].isalpha() or name[:1] == "_"
    return name if ok and all(c.isalnum() or c == "_" for c in name) and name.isascii() else None


def declared(raw: Raw, name: str, *, root: bool = False) -> Declared | None:
    """The type of what a schema describes; None for what expressions do not see. `root` is a whole resource."""
    if raw.get("x-kubernetes-int-or-string"):
        return Declared(types.DYN, REQUEST_BYTES - 2, 1)
    kind = raw.get("type", "")
    if root:
        kind, raw = "object", with_meta(raw)
    if kind == "array":
        return _list(raw, name)
    if kind == "object":
        extra = raw.get("additionalProperties")
        if isinstance(extra, Mapping) and not raw.get("properties"):
            return _map(raw, extra, name)
        return _object(raw, name)
    if kind == "string":
        return _text(raw)
    return _BY_TYPE.get(kind)


def with_meta(raw: Raw) -> Raw:
    """The schema of a resource with what every resource has."""
    given = raw.get("properties") or {}
    return {**raw, "properties": {**given, "kind": _STRING, "apiVersion": _STRING, "metadata": _META}}


def _bounded(raw: Raw, word: str, otherwise: int) -> int:
    bound = raw.get(word)
    return otherwise if bound is None else max(0, int(bound))


def _list(raw: Raw, name: str) -> Declared | None:
    items = raw.get("items")
    if not isinstance(items, Mapping):
        return None
    element = declared(items, f"{name}.@idx", root=bool(items.get("x-kubernetes-embedded-resource")))
    if element is None:
        return None
    most = _bounded(raw, "maxItems", (REQUEST_BYTES - 2) // (element.least_bytes + 1))
    return Declared(types.list_of(element.type), most, 2, {}, element, None)


def _map(raw: Raw, extra: Raw, name: str) -> Declared | None:
    element = declared(extra, f"{name}.@elem", root=bool(extra.get("x-kubernetes-embedded-resource")))
    if element is None:
        return None
    most = _bounded(raw, "maxProperties", (REQUEST_BYTES - 2) // (element.least_bytes + 6))
    return Declared(types.map_of(types.STRING, element.type), most, 2, {}, element, _KEY)


def _object(raw: Raw, name: str) -> Declared:
    fields: dict[str, Declared] = {}
    required, least = set(raw.get("required") or ()), 2
    for key, inner in (raw.get("properties") or {}).items():
        found = declared(inner, f"{name}.{key}", root=bool(inner.get("x-kubernetes-embedded-resource")))
        if found is None:
            continue
        escaped = escape(key)
        if escaped is not None:
            fields[escaped] = found
        if key in required and "default" not in inner:
            least += len(key) + found.least_bytes + 4
    kind = types.object_type(name, {key: found.type for key, found in fields.items()})
    return Declared(kind, 0, least, fields)


def _text(raw: Raw) -> Declared:
    form = raw.get("format", "")
    if form == "byte":
        return Declared(types.BYTES, _bounded(raw, "maxLength", REQUEST_BYTES - 2), 2)
    if form in _FORMATS:
        kind, least, most = _FORMATS[form]
        return Declared(kind, most, least)
    if raw.get("maxLength") is not None:
        return Declared(types.STRING, max(0, int(raw["maxLength"])) * 4, 2)
    if raw.get("enum"):
        return Declared(types.STRING, max(len(str(word).encode()) for word in raw["enum"]), 2)
    return Declared(types.STRING, REQUEST_BYTES - 2, 2)
