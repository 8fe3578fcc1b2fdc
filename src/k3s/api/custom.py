"""Validation of custom resources against their OpenAPI schema.

    check(node, obj, old=None) -> causes           the whole object
    check_status(node, obj, old=None) -> causes    its status, where that was written through its own path
    problems(raw, value, at) -> causes             one value against a schema as it stands in a definition

A part of an object that was there before and has not changed is left in peace, whatever the schema says by now.
Expression rules (`x-kubernetes-validations`) are not looked at here. Source: the CustomResourceDefinition
documentation; order and wording as the API server's schema library has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from k3s.api import formats, names
from k3s.api.object import encode, get
from k3s.api.pattern import BadPattern, found
from k3s.api.schema import OWN_METADATA, Node

Cause = dict[str, str]
Raw = Mapping[str, Any]
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
_GO_TYPES = {str: "string", bool: "bool", int: "int64", float: "float64", list: "[]interface {}"}
_MOST_REPLICAS = 2**31 - 1
#: Stands for the value of before where there was none, or none that is known to be the same thing.
_NONE = object()


def check(node: Node, obj: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[Cause]:
    """The causes why an object is not what its schema demands."""
    raw = node.raw
    own = raw.get(OWN_METADATA)
    if own is not None:
        raw = {**raw, "properties": {**raw["properties"], "metadata": own}}
    causes: list[Cause] = []
    _value(raw, obj, "", causes, _NONE if old is None else old)
    _embedded(raw, obj, "", causes, root=True)
    repeated: list[Cause] = []
    _repeated(raw, obj, "", repeated)
    if repeated and old is not None:
        before: list[Cause] = []
        _repeated(raw, old, "", before)
        repeated = [] if before else repeated
    return causes + repeated


def check_status(node: Node, obj: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[Cause]:
    """The causes why the status that was written through its own path is not what the schema demands of it."""
    raw = (node.raw.get("properties") or {}).get("status")
    if raw is None or "status" not in obj:
        return []
    causes: list[Cause] = []
    _value(raw, obj["status"], "", causes, (old or {}).get("status", _NONE))
    _repeated(raw, obj["status"], "", causes)
    return [_under("status", cause) for cause in causes]


def scale(paths: tuple[tuple[str, ...], ...], obj: Mapping[str, Any], *, only_status: bool = False) -> list[Cause]:
    """The causes why an object cannot be scaled: its numbers are none, or its selector is no text."""
    if not paths:
        return []
    wanted, current, chosen = paths
    causes: list[Cause] = []
    for path in (current,) if only_status else (wanted, current):
        at, value = "." + ".".join(path), get(obj, *path)
        if value is not None and value.__class__ is not int:
            causes.append(_unreadable(at, 0, value, "int64"))
        elif value is not None and value < 0:
            causes.append(_scaled(at, value, "should be a non-negative integer"))
        elif value is not None and value > _MOST_REPLICAS:
            causes.append(_scaled(at, value, f"should be less than or equal to {_MOST_REPLICAS}"))
    selector = get(obj, *chosen) if chosen else None
    if selector is not None and not isinstance(selector, str):
        causes.append(_unreadable("." + ".".join(chosen), "", selector, "string"))
    return causes


def _scaled(at: str, value: Any, why: str) -> Cause:
    return {"reason": "FieldValueInvalid", "message": f"Invalid value: {_shown(value)}: {why}", "field": at}


def _unreadable(at: str, zero: Any, value: Any, wanted: str) -> Cause:
    found = _GO_TYPES.get(type(value), "map[string]interface {}")
    return _scaled(at, zero, f"{at} accessor error: {_go_value(value)} is of the type {found}, expected {wanted}")


def _go_value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else _shown(value) if isinstance(value, float) else str(value)


def problems(raw: Raw, value: Any, at: str) -> list[Cause]:
    """The causes why a value is not what a schema demands, named as parts of the field `at`."""
    causes: list[Cause] = []
    _value(raw, value, "", causes, _NONE)
    return [_under(at, cause) for cause in causes]


def _under(at: str, cause: Cause) -> Cause:
    inner = cause["field"]
    return {**cause, "field": at if inner == "<nil>" else f"{at}.{inner}"}


def _cause(reason: str, at: str, message: str) -> Cause:
    return {"reason": reason, "message": message, "field": at.removeprefix(".") or "<nil>"}


def _invalid(at: str, value: Any, problem: str, reason: str = "FieldValueInvalid") -> Cause:
    return _cause(reason, at, f"Invalid value: {_shown(value)}: {at} in body {problem}")


def _shown(value: Any) -> str:
    return _number_text(value) if value.__class__ is float else encode(value).decode()


def _number_text(number: float) -> str:
    """A number as Go prints one: the shortest digits, with an exponent from a million on and below 1e-4."""
    if number.__class__ is int:
        return str(number)
    exact = Decimal(repr(number)).normalize()
    _, digits, last = exact.as_tuple()
    power = len(digits) - 1 + int(last)
    if -4 <= power < 6:
        return f"{exact:f}"
    body = f"{exact.scaleb(-power):f}"
    return f"{body}e{'-' if power < 0 else '+'}{abs(power):02d}"


def _value(raw: Raw, value: Any, at: str, causes: list[Cause], old: Any) -> int:
    """Adds what is wrong with a value; answers how many checks it passed, by which the best of some failures is told.

    Nothing is wrong with a value that is the old one.
    """
    if value is old:
        return 0
    start = len(causes)
    passed = _type(raw, value, at, causes)
    if value is None:
        _enum(raw, value, at, causes)
    else:
        passed += 3 + _combined(raw, value, at, causes)
        if value.__class__ is str:
            _string(raw, value, at, causes)
            passed += 1
        elif value.__class__ in (int, float):
            _number(raw, value, at, causes)
            passed += 2
        elif value.__class__ is list:
            passed += 2 + _list(raw, value, at, causes, old)
        _enum(raw, value, at, causes)
        if value.__class__ is dict:
            passed += 1 + _object(raw, value, at, causes, old)
    if len(causes) > start and old is not _NONE and _same(value, old):
        del causes[start:]
    return passed


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) and encode(a) == encode(b)


def _type(raw: Raw, value: Any, at: str, causes: list[Cause]) -> int:
    wanted = "integer,string" if raw.get("x-kubernetes-int-or-string") else raw.get("type", "")
    if not wanted or (value is None and raw.get("nullable")):
        return 1 if wanted else 0
    name = "null" if value is None else _TYPES.get(type(value), "object")
    fits = name in wanted.split(",")
    if not fits and name in ("integer", "number"):
        fits = wanted == "number" or (wanted == "integer" and float(value).is_integer())
    if not fits and name == "string" and raw.get("format") and wanted not in ("number", "integer"):
        fits = True
    if not fits:
        problem = f'must be of type {wanted}: "{name}"'
        causes.append(_invalid(at, name, problem, "FieldValueTypeInvalid"))
        return 0
    return 2


def _enum(raw: Raw, value: Any, at: str, causes: list[Cause]) -> None:
    enum = raw.get("enum")
    if not enum or any(value == word and (value.__class__ is bool) == (word.__class__ is bool) for word in enum):
        return
    listed = ", ".join(f'"{word}"' if isinstance(word, str) else f'"{encode(word).decode()}"' for word in enum)
    text = f"Unsupported value: {_shown(value)}: supported values: {listed}"
    causes.append(_cause("FieldValueNotSupported", at, text))


def _string(raw: Raw, value: str, at: str, causes: list[Cause]) -> None:
    """The first rule of length and pattern that a text breaks, and its format."""
    most, least, pattern = raw.get("maxLength"), raw.get("minLength"), raw.get("pattern")
    if most is not None and len(value) > most:
        causes.append(_cause("FieldValueTooLong", at, f"Too long: may not be more than {most} bytes"))
    elif least is not None and len(value) < least:
        causes.append(_invalid(at, value, f"should be at least {least} chars long"))
    elif pattern and not _matches(pattern, value):
        causes.append(_invalid(at, value, f"should match '{pattern}'"))
    form = raw.get("format", "")
    if form and not formats.fits(form, value):
        causes.append(_invalid(at, value, f"must be of type {form}: {_shown(value)}", "FieldValueTypeInvalid"))


def _matches(pattern: str, value: str) -> bool:
    try:
        return found(pattern, value)
    except BadPattern:
        # Definitions with such a pattern are refused; one that is stored all the same demands nothing.
        return True


def _number(raw: Raw, value: float, at: str, causes: list[Cause]) -> None:
    step, high, low = raw.get("multipleOf"), raw.get("maximum"), raw.get("minimum")
    # Whole numbers are compared as such, with what is whole of the bound.
    step, high, low = (b if b is None else value.__class__(b) for b in (step, high, low))
    if step is not None and step <= 0:
        text = f"factor MultipleOf declared for {at} must be positive: {_number_text(step)}"
        causes.append(_cause("FieldValueInvalid", at, f"Invalid value: {_number_text(step)}: {text}"))
    elif step is not None and not _is_multiple(value, step):
        causes.append(_invalid(at, value, f"should be a multiple of {_number_text(step)}"))
    if high is not None and (value >= high if raw.get("exclusiveMaximum") else value > high):
        words = "less than" if raw.get("exclusiveMaximum") else "less than or equal to"
        causes.append(_invalid(at, value, f"should be {words} {_number_text(high)}"))
    if low is not None and (value <= low if raw.get("exclusiveMinimum") else value < low):
        words = "greater than" if raw.get("exclusiveMinimum") else "greater than or equal to"
        causes.append(_invalid(at, value, f"should be {words} {_number_text(low)}"))


def _is_multiple(value: float, step: float) -> bool:
    if value.__class__ is int:
        return value % step == 0
    times = value * (1 / step) if step < 1 else value / step
    return abs(times - round(times)) < 1e-9


def _list(raw: Raw, value: list[Any], at: str, causes: list[Cause], old: Any) -> int:
    passed, items = 0, raw.get("items")
    if isinstance(items, Mapping):
        before = _by_key(raw, old)
        for i, element in enumerate(value):
            passed += _value(items, element, f"{at}[{i}]", causes, before.get(_key(raw, element), _NONE))
    least, most = raw.get("minItems"), raw.get("maxItems")
    if least is not None and len(value) < least:
        causes.append(_invalid(at, len(value), f"should have at least {least} items"))
    if most is not None and len(value) > most:
        causes.append(_too_many(at, len(value), most))
    return passed


def _too_many(at: str, count: int, most: int) -> Cause:
    return _cause("FieldValueTooMany", at, f"Too many: {count}: must have at most {most} items")


def _by_key(raw: Raw, old: Any) -> dict[bytes, Any]:
    """The elements of before of a list whose elements have keys; others cannot be told to be the same."""
    if raw.get("x-kubernetes-list-type") != "map" or old.__class__ is not list:
        return {}
    return {_key(raw, element): element for element in old}


def _key(raw: Raw, element: Any) -> bytes:
    if element.__class__ is not dict:
        return b""
    return encode([element.get(name) for name in raw.get("x-kubernetes-list-map-keys", ())])


def _object(raw: Raw, value: dict[str, Any], at: str, causes: list[Cause], old: Any) -> int:
    least, most = raw.get("minProperties"), raw.get("maxProperties")
    if least is not None and len(value) < least:
        causes.append(_invalid(at, len(value), f"should have at least {least} properties"))
        return 0
    if most is not None and len(value) > most:
        causes.append(_too_many(at, len(value), most))
        return 0
    passed = 0
    properties, extra = raw.get("properties") or {}, raw.get("additionalProperties")
    before = old if old.__class__ is dict else {}
    for name, inner in value.items():
        schema = properties.get(name)
        # What has no schema of its own is named with a dot before it even at the root.
        path = f"{at}.{name}" if at or schema is None else name
        schema = extra if schema is None else schema
        if isinstance(schema, Mapping) and "ref" not in schema:
            passed += _value(schema, inner, path, causes, before.get(name, _NONE))
    causes += [
        _cause("FieldValueRequired", f"{at}.{name}", "Required value")
        for name in raw.get("required") or ()
        if name not in value
    ]
    return passed


def _combined(raw: Raw, value: Any, at: str, causes: list[Cause]) -> int:
    """allOf, anyOf, oneOf and not; of failed alternatives the one that came nearest says what is wrong with it."""
    passed = 0
    choices = raw.get("anyOf")
    if choices:
        fitting, best, count = _alternatives(choices, value, at, stop=True)
        passed += count
        if not fitting:
            causes.append(_whole(f'"{at}" must validate at least one schema (anyOf)'))
            causes += best
    choices = raw.get("oneOf")
    if choices:
        fitting, best, count = _alternatives(choices, value, at, stop=False)
        passed += count
        if fitting != 1:
            which = f"Found {fitting} valid alternatives" if fitting else "Found none valid"
            causes.append(_whole(f'"{at}" must validate one and only one schema (oneOf). {which}'))
            causes += best
    choices = raw.get("allOf")
    if choices:
        fitting = 0
        for schema in choices:
            start = len(causes)
            passed += _value(schema, value, at, causes, _NONE)
            fitting += len(causes) == start
        if fitting < len(choices):
            none = "" if fitting else ". None validated"
            causes.append(_whole(f'"{at}" must validate all the schemas (allOf){none}'))
    forbidden = raw.get("not")
    if forbidden:
        inner: list[Cause] = []
        _value(forbidden, value, at, inner, _NONE)
        if not inner:
            causes.append(_whole(f'"{at}" must not validate the schema (not)'))
    return passed + 1


def _alternatives(schemas: list[Raw], value: Any, at: str, *, stop: bool) -> tuple[int, list[Cause], int]:
    """How many fit, else what is wrong with the best, and the checks passed by the one that counts."""
    best: list[Cause] = []
    fitting, most = 0, -1
    for schema in schemas:
        inner: list[Cause] = []
        passed = _value(schema, value, at, inner, _NONE)
        if not inner:
            if not fitting:
                best, most = [], passed
            fitting += 1
            if stop:
                break
        elif not fitting and passed > most:
            best, most = inner, passed
    return fitting, best, most


def _whole(text: str) -> Cause:
    """What only the object as a whole is said to be wrong with."""
    return _cause("FieldValueInvalid", "", f'Invalid value: "": {text}')


def _repeated(raw: Raw, value: Any, at: str, causes: list[Cause]) -> None:
    """Elements of sets, and keys of lists with keys, that are there twice."""
    if value.__class__ is dict:
        properties, extra = raw.get("properties") or {}, raw.get("additionalProperties")
        for name, inner in value.items():
            schema = properties.get(name, extra)
            if inner.__class__ in (dict, list) and isinstance(schema, Mapping) and "ref" not in schema:
                _repeated(schema, inner, f"{at}.{name}", causes)
    elif value.__class__ is list:
        _repeated_in(raw, value, at, causes)
        items = raw.get("items")
        if isinstance(items, Mapping):
            for i, element in enumerate(value):
                _repeated(items, element, f"{at}[{i}]", causes)


def _repeated_in(raw: Raw, value: list[Any], at: str, causes: list[Cause]) -> None:
    kind = raw.get("x-kubernetes-list-type")
    if kind not in ("set", "map"):
        return
    seen: set[bytes] = set()
    for i, element in enumerate(value):
        shown = element
        if kind == "map":
            if element.__class__ is not dict:
                continue
            shown = {
                name: element[name] for name in sorted(raw.get("x-kubernetes-list-map-keys", ())) if name in element
            }
        key = encode(shown)
        if key in seen:
            causes.append(_cause("FieldValueDuplicate", f"{at}[{i}]", f"Duplicate value: {key.decode()}"))
        seen.add(key)


def _embedded(raw: Raw, value: Any, at: str, causes: list[Cause], *, root: bool = False) -> None:
    """Objects inside the object say what they are, and have a name like any other."""
    if value.__class__ is list:
        items = raw.get("items")
        if isinstance(items, Mapping):
            for i, element in enumerate(value):
                _embedded(items, element, f"{at}[{i}]", causes)
        return
    if value.__class__ is not dict:
        return
    if raw.get("x-kubernetes-embedded-resource") and not root:
        _resource(value, at, causes)
    properties, extra = raw.get("properties") or {}, raw.get("additionalProperties")
    for name, inner in value.items():
        schema = properties.get(name, extra)
        if inner.__class__ in (dict, list) and isinstance(schema, Mapping) and "ref" not in schema:
            _embedded(schema, inner, f"{at}.{name}", causes)


def _resource(value: dict[str, Any], at: str, causes: list[Cause]) -> None:
    for name, wrong in (("apiVersion", _wrong_version), ("kind", _wrong_kind)):
        if name not in value:
            causes.append(_cause("FieldValueRequired", f"{at}.{name}", "Required value: must not be empty"))
            continue
        said = value[name]
        why = "must not be empty" if said == "" else wrong(said) if isinstance(said, str) else "must be a string"
        if why:
            causes.append(_cause("FieldValueInvalid", f"{at}.{name}", f"Invalid value: {_shown(said)}: {why}"))
    meta = value.get("metadata")
    if isinstance(meta, dict):
        from k3s.api.validation import meta as rules

        causes += rules.embedded(f"{at}.metadata".removeprefix("."), meta)


def _wrong_version(text: str) -> str:
    return f"unexpected GroupVersion string: {text}" if text.count("/") > 1 else ""


def _wrong_kind(text: str) -> str:
    problem = ",".join(names.dns1035_label(text.lower()))
    return f"may have mixed case, but should otherwise match: {problem}" if problem else ""
