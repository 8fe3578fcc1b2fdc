"""Validation of custom resources against their OpenAPI schema.

Understood: type, nullable, required, enum, numeric and length bounds, pattern, multipleOf, formats date-time, ipv4 and
ipv6, list types set and map, allOf, anyOf, oneOf, not. Expression rules (`x-kubernetes-validations`) are not looked at
here. Source: the CustomResourceDefinition documentation; wording as upstream's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from k3s.api import times
from k3s.api.object import encode
from k3s.api.pattern import BadPattern, found
from k3s.api.schema import Node

Cause = dict[str, str]
Causes = Iterator[Cause]
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def check(node: Node, obj: Mapping[str, Any]) -> list[Cause]:
    """The causes why an object is not what its schema demands; its metadata is somebody else's business."""
    rest = {name: value for name, value in obj.items() if name != "metadata"}
    return list(_value(node.raw, rest, ""))


def check_status(node: Node, obj: Mapping[str, Any]) -> list[Cause]:
    """The causes why the status that was written through its own path is not what the schema demands of it."""
    raw = (node.raw.get("properties") or {}).get("status")
    if raw is None or "status" not in obj:
        return []
    found = []
    for cause in _value(raw, obj["status"], ""):
        inner = cause["field"] if cause["field"] != "<nil>" else ""
        found.append({**cause, "field": f"status.{inner}" if inner else "status"})
    return found


def _cause(reason: str, field: str, message: str) -> Cause:
    return {"reason": reason, "message": message, "field": field or "<nil>"}


def _invalid(field: str, value: Any, problem: str) -> Cause:
    return _cause("FieldValueInvalid", field, f"Invalid value: {encode(value).decode()}: {field} in body {problem}")


def _value(raw: Mapping[str, Any], value: Any, at: str) -> Causes:
    if value is None and raw.get("nullable"):
        return
    wanted = raw.get("type", "")
    if not _fits(raw, wanted, value):
        name = "null" if value is None else _TYPES.get(type(value), "object")
        text = f'Invalid value: "{name}": {at} in body must be of type {wanted or "integer,string"}: "{name}"'
        yield _cause("FieldValueTypeInvalid", at, text)
        return
    enum = raw.get("enum")
    if enum and value not in enum:
        listed = ", ".join(encode(word).decode() for word in enum)
        text = f"Unsupported value: {encode(value).decode()}: supported values: {listed}"
        yield _cause("FieldValueNotSupported", at, text)
    if isinstance(value, str):
        yield from _string(raw, value, at)
    elif isinstance(value, bool):
        pass
    elif isinstance(value, int | float):
        yield from _number(raw, value, at)
    elif isinstance(value, list):
        yield from _list(raw, value, at)
    elif isinstance(value, dict):
        yield from _object(raw, value, at)
    yield from _combined(raw, value, at)


def _fits(raw: Mapping[str, Any], wanted: str, value: Any) -> bool:
    if raw.get("x-kubernetes-int-or-string"):
        return value.__class__ in (int, str)
    if not wanted:
        return True
    if wanted == "integer":
        return value.__class__ is int or (value.__class__ is float and value.is_integer())
    if wanted == "number":
        return value.__class__ in (int, float)
    return _TYPES.get(type(value)) == wanted


def _string(raw: Mapping[str, Any], value: str, at: str) -> Causes:
    most, least, pattern = raw.get("maxLength"), raw.get("minLength"), raw.get("pattern")
    if most is not None and len(value) > most:
        yield _cause("FieldValueTooLong", at, f"Too long: may not be more than {most} bytes")
    if least is not None and len(value) < least:
        yield _invalid(at, value, f"should be at least {least} chars long")
    if pattern and not _matches(pattern, value):
        yield _invalid(at, value, f"should match '{pattern}'")
    form = raw.get("format", "")
    if form in ("date-time", "ipv4", "ipv6") and not _formed(form, value):
        text = f'Invalid value: "{value}": {at} in body must be of type {form}: "{value}"'
        yield _cause("FieldValueInvalid", at, text)


def _matches(pattern: str, value: str) -> bool:
    try:
        return found(pattern, value)
    except BadPattern:
        # Definitions with such a pattern are refused; one that is stored all the same demands nothing.
        return True


def _formed(form: str, value: str) -> bool:
    try:
        if form == "date-time":
            times.parse(value)
            return True
        return ipaddress.ip_address(value).version == (4 if form == "ipv4" else 6)
    except ValueError:
        return False


def _number(raw: Mapping[str, Any], value: int | float, at: str) -> Causes:
    low, high, step = raw.get("minimum"), raw.get("maximum"), raw.get("multipleOf")
    if low is not None and (value <= low if raw.get("exclusiveMinimum") else value < low):
        words = "greater than" if raw.get("exclusiveMinimum") else "greater than or equal to"
        yield _invalid(at, value, f"should be {words} {low}")
    if high is not None and (value >= high if raw.get("exclusiveMaximum") else value > high):
        words = "less than" if raw.get("exclusiveMaximum") else "less than or equal to"
        yield _invalid(at, value, f"should be {words} {high}")
    if step and value % step:
        yield _invalid(at, value, f"should be a multiple of {step}")


def _list(raw: Mapping[str, Any], value: list[Any], at: str) -> Causes:
    most, least = raw.get("maxItems"), raw.get("minItems")
    if most is not None and len(value) > most:
        yield _cause("FieldValueTooMany", at, f"Too many: {len(value)}: must have at most {most} items")
    if least is not None and len(value) < least:
        yield _invalid(at, value, f"should have at least {least} items")
    items = raw.get("items")
    if isinstance(items, Mapping):
        for i, element in enumerate(value):
            yield from _value(items, element, f"{at}[{i}]")
    yield from _unique(raw, value, at)


def _unique(raw: Mapping[str, Any], value: list[Any], at: str) -> Causes:
    kind = raw.get("x-kubernetes-list-type")
    if kind not in ("set", "map"):
        return
    seen: set[bytes] = set()
    for i, element in enumerate(value):
        shown = element
        if kind == "map" and isinstance(element, dict):
            shown = {key: element.get(key) for key in raw.get("x-kubernetes-list-map-keys", ())}
        key = encode(shown)
        if key in seen:
            yield _cause("FieldValueDuplicate", f"{at}[{i}]", f"Duplicate value: {key.decode()}")
        seen.add(key)


def _object(raw: Mapping[str, Any], value: dict[str, Any], at: str) -> Causes:
    for name in raw.get("required", ()):
        if name not in value:
            field = f"{at}.{name}" if at else name
            yield _cause("FieldValueRequired", field, "Required value")
    most, least = raw.get("maxProperties"), raw.get("minProperties")
    if most is not None and len(value) > most:
        yield _cause("FieldValueTooMany", at, f"Too many: {len(value)}: must have at most {most} items")
    if least is not None and len(value) < least:
        yield _invalid(at, value, f"should have at least {least} properties")
    properties, extra = raw.get("properties", {}), raw.get("additionalProperties")
    for name, inner in value.items():
        schema = properties.get(name, extra)
        if isinstance(schema, Mapping) and "ref" not in schema:
            yield from _value(schema, inner, f"{at}.{name}" if at else name)


def _combined(raw: Mapping[str, Any], value: Any, at: str) -> Causes:
    for schema in raw.get("allOf", ()):
        yield from _value(schema, value, at)
    for word, rule in (("anyOf", "at least one schema"), ("oneOf", "one and only one schema")):
        schemas = raw.get(word)
        if not schemas or raw.get("x-kubernetes-int-or-string"):
            continue
        found = sum(not any(True for _ in _value(schema, value, at)) for schema in schemas)
        if found == 0 or (word == "oneOf" and found > 1):
            more = (
                "" if word == "anyOf" else ". Found none valid" if not found else f". Found {found} valid alternatives"
            )
            text = f'Invalid value: "": "{at}" must validate {rule} ({word}){more}'
            yield _cause("FieldValueInvalid", at, text)
    forbidden = raw.get("not")
    if forbidden and not any(True for _ in _value(forbidden, value, at)):
        yield _cause("FieldValueInvalid", at, f'Invalid value: "": "{at}" must not validate the schema (not)')
