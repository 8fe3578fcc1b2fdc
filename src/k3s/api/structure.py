"""What a decoder does with an object: leave out what the schema does not know, write values in their one form, refuse
values of another type.

Source: the JSON decoding of the API server, whose errors name the struct, the field and the type.
"""

from __future__ import annotations

import base64
from typing import Any

from k3s.api import quantity, times
from k3s.api.errors import BadRequest
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.api.schema import Node

# Stands in a path for the key of a map, which the decoder's errors leave out.
_ANY_KEY = "\0"
_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
# Lists of which none is another wish than no list: the defaults are for the latter.
_EMPTY_IS_SAID = frozenset({("HPAScalingRules", "policies")})
_INT_RANGE = {"int32": (-(1 << 31), (1 << 31) - 1), "int64": (-(1 << 63), (1 << 63) - 1)}


class _Pruner:
    __slots__ = ("custom", "struct", "unknown")

    def __init__(self, kind: Kind) -> None:
        self.unknown: list[str] = []
        self.custom = kind.custom
        self.struct = "" if kind.custom else kind.kind

    def value(self, node: Node, value: Any, path: str, known: Any = None) -> Any:
        """The value in its one form; what is the same object in `known` has it already."""
        kind = node.type
        if kind == "string":
            if value.__class__ is str:
                return value if node.format != "byte" else _base64(value)
        elif kind == "object":
            if value.__class__ is dict:
                return self.object(node, value, path, known)
        elif kind == "array":
            if value.__class__ is list:
                return self.array(node, value, path, known)
        elif kind == "integer":
            if value.__class__ is int:
                return _ranged(self, node, value, path)
            if value.__class__ is float and value.is_integer():
                return int(value)
        elif kind == "boolean":
            if value.__class__ is bool:
                return value
        elif kind == "map":
            if value.__class__ is dict:
                return self.map(node, value, path)
        elif kind == "any":
            return value
        elif kind == "number":
            if value.__class__ in (int, float):
                return value
        elif node.definition or kind in ("time", "microtime", "quantity"):
            return self.scalar(node, value, path)
        if self.custom and not self.struct:
            return value  # the schema's own validation names it
        raise self.mismatch(node, value, path)

    def object(self, node: Node, value: dict[str, Any], path: str, known: Any = None) -> dict[str, Any]:
        """The fields of an object that the schema has."""
        before = known.get if known.__class__ is dict else _nothing
        fields = node.fields
        keep_unknown = node.preserve_unknown
        outer, self.struct = self.struct, node.name or self.struct
        out: dict[str, Any] = {}
        changed = False
        for key, inner in value.items():
            if inner is not None and inner is before(key):
                out[key] = inner
                continue
            child = fields.get(key)
            # Most values are texts, which need no call and no path.
            if inner.__class__ is str and inner and child is not None and child.type == "string" and not child.format:
                out[key] = inner
                continue
            if child is None:
                if keep_unknown:
                    out[key] = inner
                else:
                    self.unknown.append(f"{path}.{key}" if path else key)
                    changed = True
                continue
            if inner is None:
                if self.custom and not self.struct and (child.default is None or child.raw.get("nullable")):
                    out[key] = None
                    continue
                changed = True
                if child.type == "any" and node.name.startswith("JSON"):
                    out[key] = None
                continue
            new = self.value(child, inner, f"{path}.{key}" if path else key, before(key))
            if not new and _is_nothing(node, child, key, new):
                changed = True
                continue
            changed = changed or new is not inner
            out[key] = new
        self.struct = outer
        return out if changed else value

    def map(self, node: Node, value: dict[str, Any], path: str) -> dict[str, Any]:
        """The values of a map; null becomes the empty value."""
        items = node.items()
        if items is None:
            return value
        scalar = items.type == "string"
        if scalar and not items.format and all(v.__class__ is str for v in value.values()):
            return value
        out = {
            key: self.value(items, _present(items, v), f"{path}.{_ANY_KEY}" if scalar else f"{path}.{key}")
            for key, v in value.items()
        }
        return value if all(out[key] is v for key, v in value.items()) else out

    def array(self, node: Node, value: list[Any], path: str, known: Any = None) -> list[Any]:
        """The elements of a list; null becomes the empty value."""
        items = node.items()
        if items is None:
            return value
        if known.__class__ is list:
            done = {id(element) for element in known if element is not None}
            out = [
                v if id(v) in done else self.value(items, _present(items, v), f"{path}[{i}]")
                for i, v in enumerate(value)
            ]
        else:
            out = [self.value(items, _present(items, v), f"{path}[{i}]") for i, v in enumerate(value)]
        return value if all(a is b for a, b in zip(out, value, strict=True)) else out

    def scalar(self, node: Node, value: Any, path: str) -> Any:
        """A quantity, a time or an int-or-string."""
        kind = node.type
        if kind == "int-or-string" and value.__class__ in (int, str):
            return value
        if kind == "quantity" and value.__class__ not in (int, float, str):
            raise _Refused(quantity.FORMAT_WRONG)
        try:
            if kind == "quantity":
                new = quantity.canonical(value)
            elif value.__class__ is str and kind == "time":
                new = times.canonical(value)
            elif value.__class__ is str and kind == "microtime":
                new = times.canonical_micro(value)
            else:
                raise self.mismatch(node, value, path)
        except ValueError as error:
            raise _Refused(str(error)) from error
        return value if new == value else new

    def mismatch(self, node: Node, value: Any, path: str) -> _Refused:
        """The error of a value that has another type than its field."""
        words = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
        name = words.get(type(value), "null")
        if name == "number" and node.type == "integer":
            name = f"number {value}"
        where = ".".join(part.partition("[")[0] for part in path.split(".") if part != _ANY_KEY)
        if self.custom:
            where = where.removeprefix("metadata.")  # the one part of a custom object that has a struct
        field = f"{self.struct}.{where}" if self.struct else where
        text = f"json: cannot unmarshal {name} into Go struct field {field} of type {_go_type(node)}"
        return _Refused(text, _unrestored(node, value))


class _Refused(Exception):
    """A value that cannot be decoded; `restored` is what the converter of strategic patches says about it."""

    def __init__(self, text: str, restored: str = "") -> None:
        super().__init__(text)
        self.restored = restored or text


class Mistyped(BadRequest):
    """A value has another type than its field; `problem` and `restored` are the words of the two decoders."""

    problem = ""
    restored = ""


def _unrestored(node: Node, value: Any) -> str:
    words = {str: "string", bool: "bool", int: "int64", float: "float64", list: "slice", dict: "map"}
    found = words.get(type(value), "invalid")
    if node.type == "array":
        return f"cannot restore slice from {found}"
    if node.type in ("map", "any"):
        return f"cannot restore map from {found}"
    if node.type == "object":
        return f"cannot restore struct from: {found}"
    wanted = _go_type(node)
    if found in ("int64", "float64") and wanted in ("string", "int32", "int64"):
        return f"cannot convert {found} to {wanted}"
    return f"unrecognized type: {wanted}"


def _base64(text: str) -> str:
    """Bytes travel as base64; the message names the first character that is none."""
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        raise _Refused(f"illegal base64 data at input byte {_first_illegal(text)}") from None
    return text


def _first_illegal(text: str) -> int:
    good = len(text) - len(text.lstrip(_BASE64))
    padding = len(text[good:]) - len(text[good:].lstrip("="))
    if good == len(text) or (good + padding == len(text) and padding <= 2):
        return good // 4 * 4  # too short: the last group of four is not whole
    return good


def _is_nothing(node: Node, child: Node, field: str, value: Any) -> bool:
    """Whether an empty value is the same as none: lists and maps of the API, and some flags, counts and texts."""
    if value.__class__ in (dict, list):
        if (node.name, field) in _EMPTY_IS_SAID:
            return False
        return child.type in ("map", "array") and bool(node.definition)
    return field in node.omits


def _ranged(pruner: _Pruner, node: Node, value: int, path: str) -> int:
    low, high = _INT_RANGE.get(node.format, _INT_RANGE["int64"])
    if not low <= value <= high:
        raise pruner.mismatch(node, value, path)
    return value


def _present(items: Node, value: Any) -> Any:
    if value is not None:
        return value
    empty: dict[str, Any] = {"string": "", "object": {}, "map": {}, "array": [], "integer": 0, "boolean": False}
    return empty.get(items.type, "0" if items.type == "quantity" else None)


def _go_type(node: Node) -> str:
    if node.type == "array":
        items = node.items()
        return f"[]{_go_type(items)}" if items is not None else "[]interface {}"
    if node.type == "map":
        items = node.items()
        return f"map[string]{_go_type(items)}" if items is not None else "map[string]interface {}"
    if node.type == "integer":
        return node.format or "int64"
    if node.type == "boolean":
        return "bool"
    if node.type == "number":
        return "float64"
    if node.type == "string" and node.format == "byte":
        return "[]uint8"
    if node.definition:
        return ".".join(node.definition.split(".")[-2:])
    return "string"


def _nothing(key: str) -> None:
    return None


def prune(node: Node, kind: Kind, obj: Object, known: Object | None = None) -> tuple[Object, list[str]]:
    """See `k3s.api.schema.prune`."""
    pruner = _Pruner(kind)
    try:
        return pruner.object(node, obj, "", known), pruner.unknown
    except _Refused as error:
        text = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {error}'
        refused = Mistyped(text)
        refused.problem, refused.restored = str(error), error.restored
        raise refused from error
