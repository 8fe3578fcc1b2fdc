"""The paths of rules' `fieldPath`: fields and map keys, `.spec.names['a.b']`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_STEP = re.compile(r"\.([^.\[\]]+)|\['((?:[^'\\]|\\.)*)'\]")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "'": "'", "\\": "\\"}


def normalized(path: str, schema: Mapping[str, Any]) -> str:
    """The path as messages have it; raises ValueError for one that does not lead to a field of the schema."""
    out, at = "", 0
    node: Any = schema
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            raise ValueError(path)
        name = match[1] if match[1] is not None else _unescaped(match[2])
        properties, more = node.get("properties"), node.get("additionalProperties")
        if properties:
            if name not in properties:
                raise ValueError(path)
            node, out = properties[name], f"{out}.{name}"
        elif isinstance(more, Mapping):
            node, out = more, f"{out}[{name}]"
        else:
            raise ValueError(path)
        at = match.end()
    return out.removeprefix(".")


def _unescaped(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        if match[1] not in _ESCAPES:
            raise ValueError(text)
        return _ESCAPES[match[1]]

    return re.sub(r"\\(.)", replace, text)
