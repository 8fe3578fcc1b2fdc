"""What is said of a value that is not of its schema's type, in the words of upstream's structured merge diff."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def misfit(kind: str, value: Any) -> str:
    """Why a value is not of a type (`schema.Node.type`); empty when it is."""
    found = value.__class__
    if value is None or kind not in _PYTHON or found in _PYTHON[kind]:
        return ""
    if kind == "string":
        return f"expected string, got &value.valueUnstructured{{Value:{_go(value, quoted=True)}}}"
    if kind in ("integer", "number"):
        return f"expected numeric (int or float), got {_GO_TYPES.get(found, 'int64')}"
    word = {"object": "map", "map": "map", "array": "list"}.get(kind, kind)
    return f"expected {word}, got &{{{_go(value)}}}"


_PYTHON: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "map": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int, float),
    "number": (int, float),
}
_GO_TYPES = {str: "string", bool: "bool", dict: "map[string]interface {}", list: "[]interface {}"}


def _go(value: Any, *, quoted: bool = False) -> str:
    """A value as Go prints it."""
    if isinstance(value, dict):
        inner = " ".join(f"{key}:{_go(value[key])}" for key in sorted(value))
        return f"map[{inner}]"
    if isinstance(value, list):
        return "[" + " ".join(_go(item) for item in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if quoted else value
    if value is None or isinstance(value, bool):
        return {None: "<nil>", True: "true", False: "false"}[value]
    return str(value)
