"""Rules for custom resource definitions: names, versions, conversion, and that their schemas are structural.

Expression rules are not looked at yet. Source: the CustomResourceDefinition documentation; order
and wording as recorded from upstream 1.36.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import names
from k3s.api.object import Object
from k3s.api.validation.causes import Causes, duplicate, each, forbidden, internal, invalid, one_of, required, unchanged

Spec = Mapping[str, Any]
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_APPROVAL = "api-approved.kubernetes.io"
_APPROVAL_TEXT = (
    f'protected groups must have approval annotation "{_APPROVAL}", '
    "see https://github.com/kubernetes/enhancements/pull/1111"
)
# What a schema inside allOf, anyOf, oneOf or not may not say, because the outer one has to.
_OUTER_ONLY = ("type", "additionalProperties", "default", "nullable", "description", "title")


def _spec(obj: Object) -> Spec:
    return obj.get("spec") or {}


def create(obj: Object) -> Causes:
    """A new definition."""
    spec, meta = _spec(obj), obj.get("metadata") or {}
    plural = (spec.get("names") or {}).get("plural", "")
    if meta.get("name", "") != f"{plural}.{spec.get('group', '')}":
        yield invalid("metadata.name", meta.get("name", ""), 'must be spec.names.plural+"."+spec.group')
    yield from _definition(obj)
    yield from _stored(obj)


def _definition(obj: Object) -> Causes:
    spec = _spec(obj)
    group, given = spec.get("group", ""), spec.get("names") or {}
    meta = obj.get("metadata") or {}
    protected = group.endswith((".k8s.io", ".kubernetes.io")) or group in ("k8s.io", "kubernetes.io")
    if protected and not (meta.get("annotations") or {}).get(_APPROVAL):
        yield required(f"metadata.annotations[{_APPROVAL}]", _APPROVAL_TEXT)
    if not group:
        yield required("spec.group")
    else:
        yield from each("spec.group", group, names.dns_subdomain(group))
        if "." not in group:
            yield invalid("spec.group", group, "should be a domain with at least one dot")
    if not spec.get("scope"):
        yield required("spec.scope")
    else:
        yield from one_of("spec.scope", spec["scope"], ("Cluster", "Namespaced"))
    if spec.get("preserveUnknownFields"):
        why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        yield invalid("spec.preserveUnknownFields", True, why)
    yield from _versions(spec.get("versions") or ())
    yield from _names(given)
    yield from _conversion(spec.get("conversion") or {})


def _names(given: Spec) -> Causes:
    for part in ("plural", "singular", "kind", "listKind"):
        value = given.get(part, "")
        at = f"spec.names.{part}"
        if not value:
            yield required(at)
        else:
            shown = value.lower() if part in ("kind", "listKind") else value
            yield from each(at, value, names.dns1035_label(shown))
    for part in ("shortNames", "categories"):
        for i, word in enumerate(given.get(part) or ()):
            yield from each(f"spec.names.{part}[{i}]", word, names.dns1035_label(word))
    if given.get("kind") and given.get("kind") == given.get("listKind"):
        yield invalid("spec.names.listKind", given["listKind"], "kind and listKind may not be the same")


def _versions(versions: Sequence[Spec]) -> Causes:
    for i, version in enumerate(versions):
        yield from each(
            f"spec.versions[{i}].name", version.get("name", ""), names.dns1035_label(version.get("name", ""))
        )
    shown = [internal(version) for version in versions] or None
    if len({version.get("name") for version in versions}) < len(versions):
        yield invalid("spec.versions", shown, "must contain unique version names")
    if sum(bool(version.get("storage")) for version in versions) != 1:
        yield invalid("spec.versions", shown, "must have exactly one version marked as storage version")
    if versions:
        yield from each("spec.version", versions[0].get("name", ""), names.dns1035_label(versions[0].get("name", "")))
    for i, version in enumerate(versions):
        yield from _selectable(version, "spec" if len(versions) == 1 else f"spec.versions[{i}]")
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        at = "spec.validation" if len(versions) == 1 else f"spec.versions[{i}].schema"
        if not schema:
            yield required(f"spec.versions[{i}].schema.openAPIV3Schema", "schemas are required")
            continue
        if not schema.get("type"):
            yield required(f"{at}.openAPIV3Schema.type", "must not be empty at the root")
        elif schema["type"] != "object":
            yield invalid(f"{at}.openAPIV3Schema.type", schema["type"], "must be object at the root")
        yield from _metadata(f"{at}.openAPIV3Schema", schema)
        yield from _structural(f"{at}.openAPIV3Schema", schema)


def _selectable(version: Spec, at: str) -> Causes:
    """The fields by which objects can be asked for: paths without lists to plain values."""
    schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    seen: set[str] = set()
    for i, field in enumerate(version.get("selectableFields") or ()):
        place, path = f"{at}.selectableFields[{i}].jsonPath", field.get("jsonPath", "")
        if not path:
            yield required(place)
            continue
        problem = _bad_path(path, schema)
        if problem:
            yield invalid(place, path, problem)
        elif path in seen:
            yield duplicate(place, path)
        seen.add(path)


def _bad_path(path: str, schema: Spec) -> str:
    if path[0] not in ".[":
        return f"is an invalid path: expected [ or . but got: {path.partition('.')[0]}"
    node: Any = schema
    for depth, step in enumerate(path[1:].split(".")):
        name, bracket, _ = step.partition("[")
        node = (node.get("properties") or {}).get(name) if not (depth == 0 and name == "metadata") else None
        if not isinstance(node, Mapping):
            return "is an invalid path: does not refer to a valid field"
        if bracket:
            return "is an invalid path: array notation is not allowed"
    if node.get("type") not in ("string", "boolean", "integer"):
        return (
            "must point to a field of type string, boolean or integer. "
            "Enum string fields and strings with formats are allowed."
        )
    return ""


def _metadata(at: str, schema: Spec) -> Causes:
    given = (schema.get("properties") or {}).get("metadata")
    if given is None:
        return
    extra = set(given) - {"type", "properties", "description"}
    if extra or set(given.get("properties") or ()) - {"name", "generateName"}:
        why = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        yield forbidden(f"{at}.properties[metadata]", why)


def _structural(at: str, schema: Spec, *, inner: str = "") -> Causes:
    """One schema; `inner` says what it describes, empty for the root."""
    for word in ("allOf", "anyOf", "oneOf"):
        for i, part in enumerate(schema.get(word) or ()):
            yield from _junction(f"{at}.{word}[{i}]", part, schema)
    if schema.get("not"):
        yield from _junction(f"{at}.not", schema["not"], schema)
    kind = schema.get("type", "")
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if inner and not kind and not free:
        yield required(f"{at}.type", f"must not be empty for specified {inner}")
    elif kind:
        yield from one_of(f"{at}.type", kind, _TYPES)
    if schema.get("properties") and schema.get("additionalProperties"):
        yield forbidden(f"{at}.additionalProperties", "additionalProperties and properties are mutual exclusive")
    if kind == "array" and not schema.get("items"):
        yield required(f"{at}.items", "must be specified")
    for name, part in (schema.get("properties") or {}).items():
        if inner or name != "metadata":
            yield from _structural(f"{at}.properties[{name}]", part, inner="object fields")
    if isinstance(schema.get("items"), Mapping):
        yield from _structural(f"{at}.items", schema["items"], inner="array items")
    if isinstance(schema.get("additionalProperties"), Mapping):
        more = schema["additionalProperties"]
        yield from _structural(f"{at}.additionalProperties", more, inner="object fields")


def _junction(at: str, schema: Spec, outer: Spec) -> Causes:
    for word in _OUTER_ONLY:
        if schema.get(word) and not outer.get("x-kubernetes-int-or-string"):
            yield forbidden(f"{at}.{word}", "must be empty to be structural")
    for name, part in (schema.get("properties") or {}).items():
        yield from _junction(f"{at}.properties[{name}]", part, {})
    if isinstance(schema.get("items"), Mapping):
        yield from _junction(f"{at}.items", schema["items"], {})
    for word in ("allOf", "anyOf", "oneOf"):
        for i, part in enumerate(schema.get(word) or ()):
            yield from _junction(f"{at}.{word}[{i}]", part, outer)


def _conversion(conversion: Spec) -> Causes:
    strategy = conversion.get("strategy", "None")
    yield from one_of("spec.conversion.strategy", strategy, ("None", "Webhook"))
    hook = conversion.get("webhook") or {}
    if strategy == "Webhook":
        if not hook.get("clientConfig"):
            yield required("spec.conversion.webhookClientConfig", "required when strategy is set to Webhook")
        if not hook.get("conversionReviewVersions"):
            yield required("spec.conversion.conversionReviewVersions")


def update(old: Object, new: Object) -> Causes:
    """A changed definition: group and plural stay, scope and kind once it is served, and every version that objects
    were stored in."""
    yield from _definition(new)
    before, after = _spec(old), _spec(new)
    was, now = (spec.get("names") or {} for spec in (before, after))
    conditions = (old.get("status") or {}).get("conditions") or ()
    if any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions):
        yield from unchanged("spec.scope", before.get("scope"), after.get("scope"))
        yield from unchanged("spec.names.kind", was.get("kind"), now.get("kind"))
    yield from unchanged("spec.group", before.get("group"), after.get("group"))
    yield from unchanged("spec.names.plural", was.get("plural"), now.get("plural"))
    yield from _stored(new)


def _stored(obj: Object) -> Causes:
    """The versions that objects are stored in are versions of the definition; the server writes them first."""
    if "conditions" not in (obj.get("status") or {}):
        return
    at = "status.storedVersions"
    stored = list((obj.get("status") or {}).get("storedVersions") or ())
    if not stored:
        yield invalid(at, None, "must have at least one stored version")
    left = dict.fromkeys(stored)
    for version in _spec(obj).get("versions") or ():
        name = version.get("name", "")
        if version.get("storage") and stored and name not in left:
            yield invalid(at, stored, f"must have the storage version {name}")
        left.pop(name, None)
    for name in left:
        why = (
            f"missing from spec.versions; {name} was previously a storage version, and must remain in "
            f"spec.versions until a storage migration ensures no data remains persisted in {name} and removes "
            f"{name} from status.storedVersions"
        )
        yield invalid(f"{at}[{stored.index(name)}]", name, why)
