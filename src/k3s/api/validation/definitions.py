"""Rules for custom resource definitions: names, versions, columns, subresources, conversion; for schemas see
`structural`.

Expression rules are not looked at here. Source: the CustomResourceDefinition documentation; order and wording as
upstream's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from k3s.api import names
from k3s.api.object import Object, encode
from k3s.api.validation import hooks, structural
from k3s.api.validation.causes import (
    Causes,
    duplicate,
    forbidden,
    internal,
    invalid,
    joined,
    one_of,
    required,
    too_many,
    unchanged,
)

Spec = Mapping[str, Any]
_APPROVAL = "api-approved.kubernetes.io"
_APPROVAL_MORE = "see https://github.com/kubernetes/enhancements/pull/1111"
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_REVIEWS = ("v1", "v1beta1")
_MOST_SELECTABLE = 8
# The parts of a version that are said once where all versions agree, and where.
_SHARED = {
    "schema": "validation",
    "subresources": "subresources",
    "additionalPrinterColumns": "additionalPrinterColumns",
    "selectableFields": "selectableFields",
}


def _spec(obj: Object) -> Spec:
    return obj.get("spec") or {}


def create(obj: Object) -> Causes:
    """A new definition."""
    spec, meta = _spec(obj), obj.get("metadata") or {}
    plural = (spec.get("names") or {}).get("plural", "")
    if meta.get("name", "") != f"{plural}.{spec.get('group', '')}":
        yield invalid("metadata.name", meta.get("name", ""), 'must be spec.names.plural+"."+spec.group')
    yield from _definition(spec)
    yield from _stored(obj)
    yield from _approved(obj)
    yield from _preserving(spec)


def update(old: Object, new: Object) -> Causes:
    """A changed definition: group and plural stay, scope and kind once it is served, and every version that objects
    were stored in."""
    before, after = _spec(old), _spec(new)
    yield from _definition(after)
    was, now = (spec.get("names") or {} for spec in (before, after))
    conditions = (old.get("status") or {}).get("conditions") or ()
    if any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions):
        yield from _bundle(before, after)
        yield from unchanged("spec.scope", before.get("scope"), after.get("scope"))
        yield from unchanged("spec.names.kind", was.get("kind"), now.get("kind"))
    yield from unchanged("spec.group", before.get("group"), after.get("group"))
    yield from unchanged("spec.names.plural", was.get("plural"), now.get("plural"))
    yield from _stored(new)
    if _approval(old)[0] != _approval(new)[0]:
        yield from _approved(new)
    if not before.get("preserveUnknownFields"):
        yield from _preserving(after)


def _definition(spec: Spec) -> Causes:
    group, versions = spec.get("group", ""), spec.get("versions") or ()
    if not group:
        yield required("spec.group")
    elif names.dns_subdomain(group):
        yield from joined("spec.group", group, names.dns_subdomain(group))
    elif "." not in group:
        yield invalid("spec.group", group, "should be a domain with at least one dot")
    yield from _word("spec.scope", spec.get("scope", ""), ("Cluster", "Namespaced"))
    for i, version in enumerate(versions):
        if not (version.get("schema") or {}).get("openAPIV3Schema"):
            yield required(f"spec.versions[{i}].schema.openAPIV3Schema", "schemas are required")
    shared = {part for part in _SHARED if versions and all(v.get(part) == versions[0].get(part) for v in versions)}
    yield from _versions(versions, shared)
    given = spec.get("names") or {}
    for part in ("plural", "singular", "kind", "listKind"):
        if not given.get(part):
            yield required(f"spec.names.{part}")
    yield from _names(given)
    if versions:
        with_status = any("status" in (v.get("subresources") or {}) for v in versions)
        yield from _parts(versions[0], shared, _SHARED, "spec", with_status=with_status)
    yield from _conversion(spec.get("conversion") or {}, preserving=bool(spec.get("preserveUnknownFields")))


def _word(at: str, value: str, accepted: Sequence[str]) -> Causes:
    if not value:
        yield required(at)
    else:
        yield from one_of(at, value, accepted)


def _versions(versions: Sequence[Spec], shared: set[str]) -> Causes:
    own = {part: part for part in _SHARED if part not in shared}
    for i, version in enumerate(versions):
        at, name = f"spec.versions[{i}]", version.get("name", "")
        yield from joined(f"{at}.name", name, names.dns1035_label(name))
        for problem in _deprecation(version):
            yield invalid(f"{at}.deprecationWarning", version["deprecationWarning"], problem)
        with_status = "status" in (version.get("subresources") or {})
        yield from _parts(version, set(own), own, at, with_status=with_status)
    shown = [internal(version) for version in versions] or None
    if len({version.get("name") for version in versions}) < len(versions):
        yield invalid("spec.versions", shown, "must contain unique version names")
    if sum(bool(version.get("storage")) for version in versions) != 1:
        yield invalid("spec.versions", shown, "must have exactly one version marked as storage version")
    if versions:
        name = versions[0].get("name", "")
        yield from joined("spec.version", name, names.dns1035_label(name) if name else [])


def _deprecation(version: Spec) -> list[str]:
    text = version.get("deprecationWarning")
    if text is None:
        return []
    if not version.get("deprecated"):
        return ["can only be set for deprecated versions"]
    problems = ["must be <= 256 characters long"] if len(text.encode()) > 256 else []
    if not text:
        problems.append("must not be an empty string")
    at = 0
    for char in text:
        if not char.isprintable():
            why = f"non-printable character found at index {at}"
            return [*problems, f"must only contain printable UTF-8 characters; {why}"]
        at += len(char.encode())
    return problems


def _parts(version: Spec, which: set[str], titles: Mapping[str, str], at: str, *, with_status: bool) -> Causes:
    """Some parts of a version: schema, subresources, columns, selectable fields."""
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    if schema and "schema" in which:
        yield from structural.check(f"{at}.{titles['schema']}.openAPIV3Schema", schema, with_status=with_status)
    if "subresources" in which:
        yield from _scale(f"{at}.subresources.scale", (version.get("subresources") or {}).get("scale"))
    if "additionalPrinterColumns" in which:
        for i, column in enumerate(version.get("additionalPrinterColumns") or ()):
            yield from _column(f"{at}.additionalPrinterColumns[{i}]", column)
    if schema and "selectableFields" in which:
        yield from _selectable(f"{at}.selectableFields", version.get("selectableFields") or (), schema)


def _scale(at: str, scale: Spec | None) -> Causes:
    if scale is None:
        return
    for part, under in (("specReplicasPath", "spec"), ("statusReplicasPath", "status")):
        path = scale.get(part, "")
        if not path:
            yield required(f"{at}.{part}")
        elif not path.startswith("."):
            yield invalid(f"{at}.{part}", path, "must be a simple json path starting with .")
        elif not path.startswith(f".{under}."):
            yield invalid(f"{at}.{part}", path, f"should be a json path under .{under}")
    path = scale.get("labelSelectorPath")
    if path and not path.startswith("."):
        yield invalid(f"{at}.labelSelectorPath", path, "must be a simple json path starting with .")
    elif path and not path.startswith((".spec.", ".status.")):
        yield invalid(f"{at}.labelSelectorPath", path, "should be a json path under either .spec or .status")


def _column(at: str, column: Spec) -> Causes:
    kind, form, path = column.get("type", ""), column.get("format", ""), column.get("jsonPath", "")
    if not column.get("name"):
        yield required(f"{at}.name")
    types = f"must be one of {','.join(_COLUMN_TYPES)}"
    if not kind:
        yield required(f"{at}.type", types)
    elif kind not in _COLUMN_TYPES:
        yield invalid(f"{at}.type", kind, types)
    if form and form not in _COLUMN_FORMATS:
        yield invalid(f"{at}.format", form, f"must be one of {','.join(_COLUMN_FORMATS)}")
    if not path:
        yield required(f"{at}.JSONPath")
    elif not path.startswith("."):
        yield invalid(f"{at}.JSONPath", path, "must be a simple json path starting with .")


def _selectable(at: str, fields: Sequence[Spec], schema: Spec) -> Causes:
    """The fields by which objects can be asked for: paths without lists to plain values."""
    seen: set[str] = set()
    for i, field in enumerate(fields):
        place, path = f"{at}[{i}].jsonPath", field.get("jsonPath", "")
        if not path:
            yield required(place)
            continue
        node, problem = _at_path(path, schema)
        if problem:
            yield invalid(place, path, f"is an invalid path: {problem}")
            continue
        if path.startswith(".metadata"):
            yield invalid(place, path, "must not point to fields in metadata")
        if node.get("type") not in ("string", "boolean", "integer"):
            why = "must point to a field of type string, boolean or integer."
            yield invalid(place, path, f"{why} Enum string fields and strings with formats are allowed.")
        if path in seen:
            yield duplicate(place, path)
        seen.add(path)
    if len(seen) > _MOST_SELECTABLE:
        yield too_many(at, len(seen), _MOST_SELECTABLE)


def _at_path(path: str, schema: Spec) -> tuple[Spec, str]:
    if path[0] not in ".[":
        return {}, f"expected [ or . but got: {path.partition('.')[0]}"
    node: Any = schema
    for step in path[1:].split("."):
        name, bracket, _ = step.partition("[")
        node = (node.get("properties") or {}).get(name)
        if not isinstance(node, Mapping):
            return {}, "does not refer to a valid field"
        if bracket:
            return {}, "array notation is not allowed"
    return node, ""


def _names(given: Spec) -> Causes:
    for part in ("plural", "singular"):
        value = given.get(part, "")
        yield from joined(f"spec.names.{part}", value, names.dns1035_label(value) if value else [])
    for part in ("kind", "listKind"):
        value = given.get(part, "")
        problems = names.dns1035_label(value.lower()) if value else []
        if problems:
            why = "may have mixed case, but should otherwise match: " + ",".join(problems)
            yield invalid(f"spec.names.{part}", value, why)
    for i, word in enumerate(given.get("shortNames") or ()):
        yield from joined(f"spec.names.shortNames[{i}]", word, names.dns1035_label(word))
    if given.get("kind") and given.get("kind") == given.get("listKind"):
        yield invalid("spec.names.listKind", given["listKind"], "kind and listKind may not be the same")
    for i, word in enumerate(given.get("categories") or ()):
        yield from joined(f"spec.names.categories[{i}]", word, names.dns1035_label(word))


def _conversion(conversion: Spec, *, preserving: bool) -> Causes:
    at, strategy, hook = "spec.conversion", conversion.get("strategy", "None"), conversion.get("webhook") or {}
    client, reviews = hook.get("clientConfig"), hook.get("conversionReviewVersions") or ()
    if strategy != "None" and preserving:
        yield invalid(f"{at}.strategy", strategy, "must be None if spec.preserveUnknownFields is true")
    yield from _word(f"{at}.strategy", strategy, ("None", "Webhook"))
    if strategy == "Webhook":
        if client is None:
            yield required(f"{at}.webhookClientConfig", "required when strategy is set to Webhook")
        else:
            yield from hooks.client(f"{at}.webhookClientConfig", client)
        yield from _reviews(f"{at}.conversionReviewVersions", reviews)
        return
    for part, value in (("webhookClientConfig", client), ("conversionReviewVersions", reviews)):
        if value:
            yield forbidden(f"{at}.{part}", "should not be set when strategy is not set to Webhook")


def bundle(spec: Spec) -> str:
    """The authorities that the webhook of a definition is trusted by."""
    hook = (spec.get("conversion") or {}).get("webhook") or {}
    return str((hook.get("clientConfig") or {}).get("caBundle") or "")


def _bundle(before: Spec, after: Spec) -> Causes:
    """A definition that is served keeps authorities that can be used."""
    given = bundle(after)
    if given == bundle(before) or hooks.bad_bundle(bundle(before)):
        return
    problem = hooks.bad_bundle(given)
    if problem:
        yield invalid("spec.conversion.webhookClientConfig.caBundle", given, problem)


def _reviews(at: str, versions: Sequence[str]) -> Causes:
    if not versions:
        yield required(at)
        return
    seen: set[str] = set()
    for i, version in enumerate(versions):
        if version in seen:
            yield invalid(f"{at}[{i}]", version, "duplicate version")
            continue
        seen.add(version)
        for problem in names.dns1035_label(version):
            yield invalid(f"{at}[{i}]", version, problem)
    if not seen & set(_REVIEWS):
        yield invalid(at, list(versions), f"must include at least one of {', '.join(_REVIEWS)}")


def _stored(obj: Object) -> Causes:
    """The versions that objects are stored in are versions of the definition; the server writes them first."""
    if "conditions" not in (obj.get("status") or {}):
        return
    at = "status.storedVersions"
    stored = list((obj.get("status") or {}).get("storedVersions") or ())
    if not stored:
        yield invalid(at, None, "must have at least one stored version")
        return
    left = dict.fromkeys(stored)
    for version in _spec(obj).get("versions") or ():
        name = version.get("name", "")
        if version.get("storage") and name not in left:
            yield invalid(at, stored, f"must have the storage version {name}")
        left.pop(name, None)
    for name in left:
        why = (
            f"missing from spec.versions; {name} was previously a storage version, and must remain in "
            f"spec.versions until a storage migration ensures no data remains persisted in {name} and removes "
            f"{name} from status.storedVersions"
        )
        yield invalid(f"{at}[{stored.index(name)}]", name, why)


def _approval(obj: Object) -> tuple[str, str]:
    """How a definition of a protected group stands, and what its annotation says."""
    text = ((obj.get("metadata") or {}).get("annotations") or {}).get(_APPROVAL, "")
    if not text:
        return "missing", text
    if text.startswith("unapproved"):
        return "bypassed", text
    try:
        parts = urlsplit(text)
    except ValueError:
        return "invalid", text
    return ("approved" if parts.scheme and parts.netloc else "invalid"), text


def _is_protected(obj: Object) -> bool:
    return f".{_spec(obj).get('group', '')}".endswith((".k8s.io", ".kubernetes.io"))


_UNSAID = f'protected groups must have approval annotation "{_APPROVAL}"'
_MISSING = f"{_UNSAID}, {_APPROVAL_MORE}"
_WRONG = f'{_UNSAID} with either a URL or a reason starting with "unapproved", {_APPROVAL_MORE}'


def _approved(obj: Object) -> Causes:
    if not _is_protected(obj):
        return
    (state, text), at = _approval(obj), f"metadata.annotations[{_APPROVAL}]"
    if state == "missing":
        yield required(at, _MISSING)
    elif state == "invalid":
        yield invalid(at, text, _WRONG)


def conformance(obj: Object) -> tuple[str, str, str] | None:
    """Status, reason and message of the condition that says who approved a definition of the Kubernetes project's own
    groups; None for all others."""
    if not _is_protected(obj):
        return None
    state, text = _approval(obj)
    return {
        "missing": ("False", "MissingAnnotation", _MISSING),
        "invalid": ("False", "InvalidAnnotation", _WRONG),
        "bypassed": ("False", "UnapprovedAnnotation", f"not approved: {encode(text).decode()}"),
        "approved": ("True", "ApprovedAnnotation", f"approved in {text}"),
    }[state]


def _preserving(spec: Spec) -> Causes:
    if spec.get("preserveUnknownFields"):
        why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        yield invalid("spec.preserveUnknownFields", True, why)
