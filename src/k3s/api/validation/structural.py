"""What makes the schema of a custom kind wrong: it has to say the structure of every object, once and completely.

    check(at, schema, *, with_status) -> causes     one openAPIV3Schema; `with_status`: the status is written on its own

For expression rules see `rules`. Source: the CustomResourceDefinition documentation on structural schemas;
order and wording as upstream's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from k3s.api import custom, pattern
from k3s.api.validation import rules
from k3s.api.validation.causes import Causes, forbidden, invalid, one_of, required

Raw = Mapping[str, Any]
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_INT_OR_TEXT = [{"type": "integer"}, {"type": "string"}]
_RESOURCE = ("metadata", "kind", "apiVersion")
# The words that a root may have when the status is looked at alone, by their names in the reference server's memory.
_AT_ROOT = (
    "Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern "
    "MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields "
    "XValidations"
)
_ROOT_WORDS = {
    *(word[0].lower() + word[1:] for word in _AT_ROOT.split()),
    *("x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations"),
}
# What no schema may say.
_UNKNOWN = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
# What a schema inside allOf, anyOf, oneOf or not may not say, because the outer one has to: word -> how it has to be.
_OUTER_ONLY = {
    "type": "empty",
    "additionalProperties": "undefined",
    "default": "undefined",
    "title": "empty",
    "description": "empty",
    "nullable": "false",
    "x-kubernetes-preserve-unknown-fields": "false",
    "x-kubernetes-embedded-resource": "false",
    "x-kubernetes-int-or-string": "false",
    "x-kubernetes-list-map-keys": "empty",
    "x-kubernetes-list-type": "undefined",
    "x-kubernetes-map-type": "undefined",
    "x-kubernetes-validations": "empty",
}
_NO_DEFAULT_IN_MAP = "must not be set inside additionalProperties applying to object metadata"


def check(at: str, schema: Raw, *, with_status: bool) -> Causes:
    """The schema of one version (or of all) at the field `at`."""
    if with_status:
        yield from _root_words(at, schema)
    sound = not schema.get("nullable")
    if not sound:
        yield forbidden(f"{at}.nullable", "nullable cannot be true at the root")
    if not any(word in part or "$schema" in part for part in _parts(schema) for word in _UNKNOWN):
        wrong = sorted(
            [*_structure(at, schema, "root"), *_complete(schema, schema, at, at)],
            key=lambda cause: f"{cause['field']}: {cause['message']}",
        )
        wrong = wrong or list(_defaults(at, schema, root=True))
        yield from wrong
        sound = sound and not wrong
    found = list(_words(at, schema, root=True, forbidden_default="", inside_meta=False))
    yield from found
    if not found and any("$schema" in part for part in _parts(schema)):
        yield invalid(at, "", "OpenAPIV3 'schema' is not supported")
    elif sound and not found:
        yield from rules.check(at, schema)


def _parts(schema: Raw) -> Iterator[Raw]:
    """A schema and all that are in it."""
    yield schema
    for inner in _children(schema):
        yield from _parts(inner)


def _children(schema: Raw) -> Iterator[Raw]:
    items = schema.get("items")
    single = [items, schema.get("additionalProperties"), schema.get("not")]
    many = [*(schema.get("properties") or {}).values(), *(items if isinstance(items, Sequence) else ())]
    choices = [part for word in ("allOf", "anyOf", "oneOf") for part in schema.get(word) or ()]
    for inner in (*single, *many, *choices):
        if isinstance(inner, Mapping):
            yield inner


def _root_words(at: str, schema: Raw) -> Causes:
    kind = schema.get("type", "")
    if kind and kind != "object":
        why = 'only "object" is allowed as the type at the root of the schema if the status subresource is enabled'
        yield invalid(f"{at}.type", kind, why)
    elif any(value not in (None, False, "") for word, value in schema.items() if word not in _ROOT_WORDS):
        why = f"only [{_AT_ROOT}] fields are allowed at the root of the schema if the status subresource is enabled"
        yield invalid(at, schema, why)


def _structure(at: str, schema: Raw, level: str) -> Causes:
    """What every object has to be is said outside of allOf, anyOf, oneOf and not."""
    kind, items, more = schema.get("type", ""), schema.get("items"), schema.get("additionalProperties")
    if kind == "array" and items is None:
        yield required(f"{at}.items", "must be specified")
    if isinstance(items, Mapping):
        yield from _structure(f"{at}.items", items, "items")
    for name, inner in (schema.get("properties") or {}).items():
        yield from _structure(f"{at}.properties[{name}]", inner, "field")
    if more is not None:
        if level == "root":
            yield forbidden(f"{at}.additionalProperties", "must not be used at the root")
        if isinstance(more, Mapping):
            yield from _structure(f"{at}.additionalProperties", more, "field")
    mixed, free = schema.get("x-kubernetes-int-or-string"), schema.get("x-kubernetes-preserve-unknown-fields")
    embedded = schema.get("x-kubernetes-embedded-resource")
    for word, set_ in (("preserve-unknown-fields", free), ("embedded-resource", embedded)):
        if mixed and set_:
            yield invalid(f"{at}.x-kubernetes-{word}", True, "must be false if x-kubernetes-int-or-string is true")
    yield from _junctions(at, schema, skip_first=True)
    if embedded and kind != "object":
        yield from _must_be(f"{at}.type", kind, "object if x-kubernetes-embedded-resource is true")
    elif not kind and not mixed and not free:
        where = {"root": "at the root", "items": "for specified array items", "field": "for specified object fields"}
        yield required(f"{at}.type", f"must not be empty {where[level]}")
    if embedded and more is not None:
        yield forbidden(f"{at}.additionalProperties", "must not be used if x-kubernetes-embedded-resource is set")
    if level == "root" and kind and kind != "object":
        yield invalid(f"{at}.type", kind, "must be object at the root")
    yield from _metadata(at, schema, level)
    if embedded and not free and not schema.get("properties"):
        why = "x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
        yield required(f"{at}.properties", f"must not be empty if {why}")


def _must_be(at: str, kind: str, what: str) -> Causes:
    yield invalid(at, kind, f"must be {what}") if kind else required(at, f"must be {what}")


def _metadata(at: str, schema: Raw, level: str) -> Causes:
    """An object's own metadata can only be limited in its names."""
    properties = schema.get("properties") or {}
    whole = level == "root" or schema.get("x-kubernetes-embedded-resource")
    for name in ("kind", "apiVersion"):
        if whole and name in properties and properties[name].get("type") != "string":
            yield invalid(f"{at}.properties[{name}].type", properties[name].get("type", ""), "must be string")
    meta = properties.get("metadata")
    if meta is None:
        return
    here = f"{at}.properties[metadata]"
    if whole and meta.get("type") != "object":
        yield invalid(f"{here}.type", meta.get("type", ""), "must be object")
    structure = {"description", "title", "nullable", "items", "additionalProperties"}
    said = {word for word, value in meta.items() if value and (word in structure or word.startswith("x-kubernetes-"))}
    if level == "root" and (said or set(meta.get("properties") or ()) - {"name", "generateName"}):
        why = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        yield forbidden(here, why)


def _junctions(at: str, schema: Raw, *, skip_first: bool = False, skip_any: bool = False) -> Causes:
    """What is inside anyOf, allOf, oneOf and not; that a number or a text is wanted may be said there, too."""
    for word in ("anyOf", "allOf", "oneOf"):
        choices = schema.get(word) or ()
        if word == "anyOf" and (skip_any or (skip_first and choices == _INT_OR_TEXT)):
            continue
        for i, part in enumerate(choices):
            first = skip_first and word == "allOf" and i == 0 and part.get("anyOf") == _INT_OR_TEXT
            yield from _junction(f"{at}.{word}[{i}]", part, skip_any=first)
    if isinstance(schema.get("not"), Mapping):
        yield from _junction(f"{at}.not", schema["not"])
    text = schema.get("pattern")
    if text:
        try:
            pattern.compiled(text)
        except pattern.BadPattern as error:
            yield invalid(f"{at}.pattern", text, f"must be a valid regular expression, but isn't: {error}")


def _junction(at: str, schema: Raw, *, skip_any: bool = False) -> Causes:
    yield from _junctions(at, schema, skip_any=skip_any)
    if isinstance(schema.get("items"), Mapping):
        yield from _junction(f"{at}.items", schema["items"])
    for name, inner in (schema.get("properties") or {}).items():
        yield from _junction(f"{at}.properties[{name}]", inner)
    for word, how in _OUTER_ONLY.items():
        if word in schema and (schema[word] or how == "undefined"):
            yield forbidden(f"{at}.{word}", f"must be {how} to be structural")
    if "metadata" in (schema.get("properties") or {}):
        yield forbidden(f"{at}.properties[metadata]", "must not be specified in a nested context")


def _complete(said: Raw, schema: Raw | None, outer: str, inner: str) -> Causes:
    """What is demanded inside allOf, anyOf, oneOf and not is a part of the object that is known outside."""
    choices = [(f"{inner}.not", said["not"])] if isinstance(said.get("not"), Mapping) else []
    choices += [(f"{inner}.{w}[{i}]", p) for w in ("allOf", "anyOf", "oneOf") for i, p in enumerate(said.get(w) or ())]
    for place, part in choices:
        yield from _known(part, schema, outer, place)


def _known(part: Raw, schema: Raw | None, outer: str, inner: str) -> Causes:
    if schema is None:
        yield required(outer, f"because it is defined in {inner}")
        return
    yield from _complete(part, schema, outer, inner)
    if isinstance(part.get("items"), Mapping):
        yield from _known(part["items"], schema.get("items"), f"{outer}.items", f"{inner}.items")
    for name, field in (part.get("properties") or {}).items():
        known = (schema.get("properties") or {}).get(name)
        yield from _known(field, known, f"{outer}.properties[{name}]", f"{inner}.properties[{name}]")


def _defaults(at: str, schema: Raw, *, root: bool = False) -> Causes:
    """A default is what the schema itself allows."""
    value = schema.get("default")
    if value is not None:
        here = f"{at}.default"
        if _has_unknown(schema, value):
            yield invalid(here, value, "must not have unknown fields")
        yield from custom.problems(schema, value, here)
    if isinstance(schema.get("items"), Mapping):
        yield from _defaults(f"{at}.items", schema["items"])
    whole = root or schema.get("x-kubernetes-embedded-resource")
    for name, inner in (schema.get("properties") or {}).items():
        if not (whole and name in _RESOURCE):
            yield from _defaults(f"{at}.properties[{name}]", inner)


def _has_unknown(schema: Raw, value: Any) -> bool:
    if isinstance(value, list):
        items = schema.get("items")
        return isinstance(items, Mapping) and any(_has_unknown(items, element) for element in value)
    if not isinstance(value, dict) or schema.get("x-kubernetes-int-or-string"):
        return False
    properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
    embedded = schema.get("x-kubernetes-embedded-resource")
    for name, inner in value.items():
        known = properties.get(name, more)
        if isinstance(known, Mapping):
            if _has_unknown(known, inner):
                return True
        elif (
            not known
            and not schema.get("x-kubernetes-preserve-unknown-fields")
            and not (embedded and name in _RESOURCE)
        ):
            return True
    return False


def _words(at: str, schema: Raw, *, root: bool, forbidden_default: str, inside_meta: bool) -> Causes:
    """The words of a schema and of all inside it, one by one."""
    yield from _allowed(at, schema, forbidden_default, inside_meta=inside_meta)
    more, properties, items = schema.get("additionalProperties"), schema.get("properties"), schema.get("items")
    if properties and (more is False or isinstance(more, Mapping)):
        yield forbidden(f"{at}.additionalProperties", "additionalProperties and properties are mutual exclusive")
    if isinstance(more, Mapping):
        reason = _NO_DEFAULT_IN_MAP if inside_meta else forbidden_default
        here = f"{at}.additionalProperties"
        yield from _words(here, more, root=False, forbidden_default=reason, inside_meta=inside_meta)
    for name, inner in (properties or {}).items():
        own = (root or bool(schema.get("x-kubernetes-embedded-resource"))) and name in _RESOURCE
        reason = f"must not be set in top-level {name}" if own and root else forbidden_default
        here = f"{at}.properties[{name}]"
        yield from _words(here, inner, root=False, forbidden_default=reason, inside_meta=inside_meta or own)
    parts = [(f"{at}.not", schema["not"])] if isinstance(schema.get("not"), Mapping) else []
    parts += [(f"{at}.{w}[{i}]", p) for w in ("allOf", "oneOf", "anyOf") for i, p in enumerate(schema.get(w) or ())]
    if isinstance(items, Mapping):
        parts.append((f"{at}.items", items))
    elif items is not None:
        parts += [(f"{at}.items[{i}]", part) for i, part in enumerate(items)]
    for place, part in parts:
        yield from _words(place, part, root=False, forbidden_default=forbidden_default, inside_meta=inside_meta)
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        yield invalid(f"{at}.x-kubernetes-preserve-unknown-fields", False, "must be true or undefined")
    yield from _collection(at, schema)
    yield from rules.words(at, schema)


def _allowed(at: str, schema: Raw, forbidden_default: str, *, inside_meta: bool) -> Causes:
    kind = schema.get("type", "")
    if kind:
        yield from one_of(f"{at}.type", kind, _TYPES)
    if schema.get("default") is not None and forbidden_default:
        yield forbidden(f"{at}.default", forbidden_default)
    for word in _UNKNOWN:
        if schema.get(word) is not None:
            yield forbidden(f"{at}.{word}", f"{word} is not supported")
    if kind == "null":
        yield forbidden(f"{at}.type", "type cannot be set to null, use nullable as an alternative")
    if isinstance(schema.get("items"), list):
        yield forbidden(f"{at}.items", "items must be a schema object and not an array")
    if inside_meta and schema.get("x-kubernetes-embedded-resource"):
        yield forbidden(f"{at}.x-kubernetes-embedded-resource", "must not be used inside of resource meta")
    if schema.get("uniqueItems"):
        why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield forbidden(f"{at}.uniqueItems", why)


def _collection(at: str, schema: Raw) -> Causes:
    """How lists and maps are merged."""
    kind, map_type, list_type = (schema.get(w) for w in ("type", "x-kubernetes-map-type", "x-kubernetes-list-type"))
    keys, items = schema.get("x-kubernetes-list-map-keys") or [], schema.get("items")
    if map_type is not None:
        if kind != "object":
            yield from _must_be(f"{at}.type", kind or "", "object if x-kubernetes-map-type is specified")
        yield from one_of(f"{at}.x-kubernetes-map-type", map_type, ("atomic", "granular"))
    if list_type is not None and kind != "array":
        yield from _must_be(f"{at}.type", kind or "", "array if x-kubernetes-list-type is specified")
    elif list_type == "set" and isinstance(items, Mapping):
        yield from _set_items(f"{at}.items", items)
    if list_type is not None:
        yield from one_of(f"{at}.x-kubernetes-list-type", list_type, ("atomic", "set", "map"))
    if keys and list_type != "map":
        why = "must be map if x-kubernetes-list-map-keys is non-empty"
        here = f"{at}.x-kubernetes-list-type"
        yield required(here, why) if list_type is None else invalid(here, list_type, why)
    if list_type == "map":
        yield from _list_map(at, keys, items)
    if list_type in ("set", "map") and isinstance(items, Mapping):
        yield from _whole_items(at, list_type, keys, items)


def _set_items(at: str, items: Raw) -> Causes:
    why = "must be atomic as item of a list with x-kubernetes-list-type=set"
    inner = items.get("x-kubernetes-list-type")
    if items.get("type") == "array" and inner not in (None, "atomic"):
        yield invalid(f"{at}.x-kubernetes-list-type", inner, why)
    elif items.get("type") == "object" and items.get("x-kubernetes-map-type") != "atomic":
        yield invalid(f"{at}.x-kubernetes-map-type", inner, why)


def _list_map(at: str, keys: list[str], items: Any) -> Causes:
    if not keys:
        yield required(f"{at}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
    if items is None:
        yield required(f"{at}.items", "must have a schema if x-kubernetes-list-type is map")
    elif not isinstance(items, Mapping):
        yield invalid(f"{at}.items", items, "must only have a single schema if x-kubernetes-list-type is map")
    elif items.get("type") != "object":
        why = "must be object if parent array's x-kubernetes-list-type is map"
        yield invalid(f"{at}.items.type", items.get("type", ""), why)
    else:
        yield from _keys(at, keys, items)


def _keys(at: str, keys: list[str], items: Raw) -> Causes:
    here, seen = f"{at}.x-kubernetes-list-map-keys", set()
    for key in keys:
        known = (items.get("properties") or {}).get(key)
        if known is None:
            yield invalid(here, keys, "entries must all be names of item properties")
        elif known.get("type") in ("array", "object"):
            why = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            yield invalid(f"{at}.items.properties[{key}].type", items.get("type", ""), why)
        if key in seen:
            yield invalid(here, keys, "must not contain duplicate entries")
        seen.add(key)


def _whole_items(at: str, list_type: str, keys: list[str], items: Raw) -> Causes:
    """Elements that are told apart by what they are are all there."""
    if items.get("nullable"):
        yield forbidden(f"{at}.items.nullable", f"cannot be nullable when x-kubernetes-list-type is {list_type}")
    if list_type != "map":
        return
    for key in keys:
        field = (items.get("properties") or {}).get(key)
        if field is None:
            continue
        here, why = f"{at}.items.properties[{key}]", "this property is in x-kubernetes-list-map-keys, so it"
        if key not in (items.get("required") or ()) and field.get("default") is None:
            yield required(f"{here}.default", f"{why} must have a default or be a required property")
        if field.get("nullable"):
            yield forbidden(f"{here}.nullable", f"{why} cannot be nullable")
