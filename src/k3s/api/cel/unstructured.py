"""From a value of JSON to a value of expressions, by the schema.

Moments, spans, bytes, floats, escaped names, and lists whose order or keys mean something change; most schemas have
none of these, then the value is taken as it is.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from k3s.api.cel import times
from k3s.api.cel.errors import Fault
from k3s.api.cel.schema import Raw, escape
from k3s.api.cel.values import MapList, SetList, Timestamp

Convert = Callable[[Any], Any]


def converter(raw: Raw) -> Convert | None:
    """What makes the value of expressions; None when it is the same."""
    if raw.get("x-kubernetes-int-or-string"):
        return None
    kind = raw.get("type", "")
    if kind == "number":
        return _number
    if kind == "string":
        return _TEXTS.get(raw.get("format", ""))
    if kind == "array":
        return _list(raw)
    return _object(raw)


def _number(value: Any) -> Any:
    return float(value) if value.__class__ is int else value


def _moment(text: Any) -> Any:
    return times.parse_timestamp(text) if isinstance(text, str) else text


def _day(text: Any) -> Timestamp:
    return times.parse_timestamp(f"{text}T00:00:00Z")


def _span(text: Any) -> Any:
    return times.parse_duration(text) if isinstance(text, str) else text


def _bytes(text: Any) -> bytes:
    return base64.b64decode(text)


def _safe(read: Convert, what: str) -> Convert:
    def run(value: Any) -> Any:
        if value is None:
            return None
        try:
            return read(value)
        except ValueError:
            raise Fault(f"Invalid {what} {value}") from None

    return run


_TEXTS: Mapping[str, Convert] = {
    "date-time": _safe(_moment, "date-time"),
    "date": _safe(_day, "date"),
    "duration": _safe(_span, "duration"),
    "byte": _safe(_bytes, "byte formatted string"),
}


def _list(raw: Raw) -> Convert | None:
    items = raw.get("items")
    inner = converter(items) if isinstance(items, Mapping) else None
    form = raw.get("x-kubernetes-list-type")
    keys = tuple(raw.get("x-kubernetes-list-map-keys") or ())
    if inner is None and form not in ("set", "map"):
        return None

    def run(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        made = value if inner is None else [inner(element) for element in value]
        if form == "set":
            return SetList(made)
        return MapList(made, keys) if form == "map" else made

    return run


def _object(raw: Raw) -> Convert | None:
    extra = raw.get("additionalProperties")
    if isinstance(extra, Mapping) and not raw.get("properties"):
        inner = converter(extra)
        if inner is None:
            return None

        def run_map(value: Any) -> Any:
            return {key: inner(v) for key, v in value.items()} if isinstance(value, dict) else value

        return run_map
    changes: dict[str, tuple[str, Convert | None]] = {}
    for key, part in (raw.get("properties") or {}).items():
        escaped, change = escape(key), converter(part)
        if escaped != key or change is not None:
            changes[key] = (escaped or key, change)
    if not changes:
        return None

    def run(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        made = {}
        for key, inner_value in value.items():
            name, change = changes.get(key, (key, None))
            made[name] = inner_value if change is None else change(inner_value)
        return made

    return run
