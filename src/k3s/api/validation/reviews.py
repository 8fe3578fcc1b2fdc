"""What a review of somebody's rights has to say. Source: the authorization.k8s.io/v1 types; wording as upstream's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from k3s.api import names
from k3s.api.object import Object
from k3s.api.validation.causes import Causes, each, forbidden, invalid, required

Spec = Mapping[str, Any]
_ONE = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
_LISTED = ("In", "NotIn")
_BARE = ("Exists", "DoesNotExist")


def attributes(spec: Spec) -> Causes:
    """What is asked for: a resource or another path."""
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and path is not None:
        why = f"cannot be specified in combination with resourceAttributes: {_ONE}"
        yield invalid("spec.nonResourceAttributes", _path(path), why)
    elif resource is None and path is None:
        yield invalid("spec.resourceAttributes", None, _ONE)
    at = "spec.resourceAttributes"
    for part, check in (("fieldSelector", _field), ("labelSelector", _label)):
        if resource is not None and resource.get(part) is not None:
            yield from _selector(f"{at}.{part}", resource[part], check)


def subject(spec: Spec) -> Causes:
    """Who asks for what."""
    selected = list(attributes(spec))
    exclusive = [cause for cause in selected if "Selector" not in cause["field"]]
    yield from exclusive
    if not spec.get("user") and not spec.get("groups"):
        yield invalid("spec.user", "", "at least one of user or group must be specified")
    yield from (cause for cause in selected if cause not in exclusive)


def metadata(obj: Object) -> Causes:
    """A review has no metadata."""
    meta = {name: value for name, value in (obj.get("metadata") or {}).items() if name != "managedFields"}
    if meta:
        yield invalid("metadata", meta, "must be empty")


def local_metadata(obj: Object) -> Causes:
    """A review in a namespace has no other metadata."""
    meta = {name: value for name, value in (obj.get("metadata") or {}).items() if name != "managedFields"}
    if meta.keys() - {"namespace"}:
        yield invalid("metadata", meta, "must be empty except for namespace")


def local(spec: Spec, namespace: str) -> Causes:
    """In a namespace only its resources are asked about."""
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and resource.get("namespace", "") != namespace:
        at = "spec.resourceAttributes.namespace"
        yield invalid(at, resource.get("namespace", ""), "must match metadata.namespace")
    if path is not None:
        yield invalid("spec.nonResourceAttributes", _path(path), "disallowed on this kind of request")


def _path(asked: Spec) -> Object:
    """The path attributes as messages print them."""
    return {"Path": asked.get("path", ""), "Verb": asked.get("verb", "")}


def _selector(at: str, selector: Spec, check: Callable[[str, Spec], Causes]) -> Causes:
    text, requirements = selector.get("rawSelector", ""), selector.get("requirements") or ()
    if text and requirements:
        yield invalid(f"{at}.rawSelector", text, "may not specified at the same time as requirements")
    if not text and not requirements:
        yield required(f"{at}.requirements", f"when {at} is specified, requirements or rawSelector is required")
    for i, requirement in enumerate(requirements):
        yield from check(f"{at}.requirements[{i}]", requirement)


def _values(at: str, operator: str, values: Iterable[str]) -> Causes:
    """Operators that this server does not know are left to whoever does."""
    if operator in _LISTED and not values:
        yield required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in _BARE and values:
        yield forbidden(f"{at}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")


def _field(at: str, requirement: Spec) -> Causes:
    if not requirement.get("key"):
        yield required(f"{at}.key", "must be specified")
    yield from _values(at, requirement.get("operator", ""), requirement.get("values") or ())


def _label(at: str, requirement: Spec) -> Causes:
    key, values = requirement.get("key", ""), requirement.get("values") or ()
    yield from _values(at, requirement.get("operator", ""), values)
    yield from each(f"{at}.key", key, names.qualified_name(key))
    for i, value in enumerate(values):
        yield from each(f"{at}.values[{i}]", value, names.label_value(value))
