"""Cells of custom kinds: the JSON path of each printer column, evaluated on the object.

Of JSON path the forms that printer columns use are understood: `.a.b`, `['a']`, `[0]`, `[*]`, `[?(@.type=="Ready")]`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from k3s.api.cells.text import Age, created
from k3s.api.object import Object, encode

_STEP = re.compile(
    r"""\.?(?:
        (?P<star>\*|\[\*\])
      | \[(?P<index>-?\d+)\]
      | \[\?\(@\.?(?P<path>[^=!<>\s)]+)\s*(?P<op>==|!=)\s*(?P<quote>["']?)(?P<value>[^"')]*)(?P=quote)\s*\)\]
      | \[(?P<q>["'])(?P<quoted>(?:\\.|(?!(?P=q)).)*)(?P=q)\]
      | (?P<name>(?:\\.|[^.\[\]])+)
    )""",
    re.VERBOSE,
)
Step = Callable[[Any], list[Any]]


def custom_cells(columns: Sequence[Mapping[str, Any]], age: Age) -> Callable[[Object], list[Any]]:
    """The function that makes the cells of a custom object: its name, then its columns, or its age without any."""
    paths = [(column.get("type", ""), compile_path(column.get("jsonPath", ""))) for column in columns]

    def cells(obj: Object) -> list[Any]:
        name = obj["metadata"].get("name", "")
        if not paths:
            return [name, age(created(obj))]
        return [name, *(_cell(kind, path(obj), age) for kind, path in paths)]

    return cells


def _cell(kind: str, found: list[Any], age: Age) -> Any:
    """The first value found, as its column's type; None when there is none or it has another type."""
    value = found[0] if found else None
    if value is None:
        return None
    if kind == "integer":
        return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind == "number":
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if kind == "date":
        try:
            return age(value) if isinstance(value, str) else None
        except ValueError:
            return "<invalid>"
    if isinstance(value, str):
        return value
    return _json(value) if isinstance(value, dict | list) else encode(value).decode()


def _json(value: Any) -> str:
    """JSON as Go writes it: keys in order, no characters that mean something in HTML."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.translate(_ESCAPED)


_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


@functools.lru_cache(maxsize=1024)
def compile_path(text: str) -> Callable[[Any], list[Any]]:
    """The values at a JSON path; raises ValueError when the path has a form that is not understood."""
    text = text.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    steps: list[Step] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None or match.end() == position:
            raise ValueError(f"Cannot read JSON path {text!r}: unexpected {text[position:]!r}")
        steps.append(_step(match))
        position = match.end()

    def walk(obj: Any) -> list[Any]:
        values = [obj]
        for step in steps:
            values = [new for value in values for new in step(value)]
        return values

    return walk


def _step(match: re.Match[str]) -> Step:
    if match["star"]:
        return lambda v: list(v) if isinstance(v, list) else list(v.values()) if isinstance(v, dict) else []
    if match["index"]:
        index = int(match["index"])
        return lambda v: [v[index]] if isinstance(v, list) and -len(v) <= index < len(v) else []
    if match["op"]:
        inner, wanted, same = compile_path("." + match["path"]), match["value"], match["op"] == "=="
        return lambda v: [e for e in v if (_plain(inner(e)) == wanted) is same] if isinstance(v, list) else []
    name = match["quoted"] if match["quoted"] is not None else match["name"]
    name = re.sub(r"\\(.)", r"\1", name)
    return lambda v: [v[name]] if isinstance(v, dict) and name in v else []


def _plain(values: list[Any]) -> str | None:
    if not values:
        return None
    value = values[0]
    return value if isinstance(value, str) else encode(value).decode()
