"""Rules for claims of devices, their classes and what drivers publish of them (resource.k8s.io).

Expressions are looked at by whoever evaluates them, not here. Source: the API documentation of each kind; order and
wording as upstream's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from k3s.api import names
from k3s.api.object import Object, encode
from k3s.api.validation import meta, resources
from k3s.api.validation.causes import (
    Causes,
    duplicate,
    each,
    invalid,
    labels,
    name_of,
    one_of,
    required,
    too_long,
    too_many,
    unchanged,
)
from k3s.api.validation.storageclasses import driver_name

Spec = Mapping[str, Any]
Rule = Callable[[str, Any], Causes]
MOST = 32
_MOST_ALTERNATIVES = 8
_MOST_BINDING = 4
_ID_LENGTH = 32
_POOL_LENGTH = 253
_EXPRESSION_LENGTH = 10 * 1024
_PARAMETERS_LENGTH = 10 * 1024
EFFECTS = ("NoExecute", "NoSchedule", "None")
_REFERENCE = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"


def _spec(obj: Object) -> Spec:
    return obj.get("spec") or {}


def listed(at: str, values: Sequence[Any], most: int, rule: Rule, key: str | None = None) -> Causes:
    """A list of no more than `most`; `key` names what each element has alone, empty for the element itself."""
    if len(values) > most:
        yield too_many(at, len(values), most)
        return
    for i, value in enumerate(values):
        yield from rule(f"{at}[{i}]", value)
    seen: set[str] = set()
    for i, value in enumerate(values if key is not None else ()):
        own = value.get(key, "") if key else value
        if own in seen:
            yield duplicate(f"{at}[{i}]", own)
        seen.add(own)


def claim(obj: Object) -> Causes:
    """A claim for devices."""
    yield from _claim("spec.devices", _spec(obj).get("devices") or {})


def claim_update(old: Object, new: Object) -> Causes:
    """What is claimed stays."""
    yield from unchanged("spec", old.get("spec"), new.get("spec"))


def template(obj: Object) -> Causes:
    """A template of claims for devices."""
    inner = _spec(obj).get("metadata") or {}
    yield from meta.annotation_keys("spec.metadata.annotations", inner.get("annotations"))
    yield from labels("spec.metadata.labels", inner.get("labels"))
    yield from _claim("spec.spec.devices", (_spec(obj).get("spec") or {}).get("devices") or {})


def _claim(at: str, devices: Spec) -> Causes:
    reference = references(devices)

    def constraint(here: str, value: Spec) -> Causes:
        yield from listed(f"{here}.requests", value.get("requests") or (), MOST, reference, "")
        if value.get("matchAttribute") is not None:
            yield from _full_name(f"{here}.matchAttribute", value["matchAttribute"])
        elif value.get("distinctAttribute") is not None:
            yield from _full_name(f"{here}.distinctAttribute", value["distinctAttribute"])
        else:
            both = 'exactly one of "matchAttribute" or "distinctAttribute" is required'
            yield required(here, f"{both}, but multiple fields are set")

    def config(here: str, value: Spec) -> Causes:
        yield from listed(f"{here}.requests", value.get("requests") or (), MOST, reference, "")
        yield from configuration(here, value)

    yield from listed(f"{at}.requests", devices.get("requests") or (), MOST, _request, "name")
    yield from listed(f"{at}.constraints", devices.get("constraints") or (), MOST, constraint)
    yield from listed(f"{at}.config", devices.get("config") or (), MOST, config)


def references(devices: Spec) -> Rule:
    """The rule for what names a request of a claim, or an alternative of one."""
    requests = devices.get("requests") or ()
    known = {request.get("name", "") for request in requests}
    known |= {
        f"{request.get('name', '')}/{part.get('name', '')}"
        for request in requests
        for part in request.get("firstAvailable") or ()
    }

    def reference(here: str, name: str) -> Causes:
        parts = name.split("/")
        if len(parts) <= 2:
            for part in parts:
                yield from name_of(here, part, names.dns_label)
        if name not in known:
            yield invalid(here, name, _REFERENCE)

    return reference


def _request(at: str, request: Spec) -> Causes:
    yield from name_of(f"{at}.name", request.get("name", ""), names.dns_label)
    exactly, first = request.get("exactly"), request.get("firstAvailable") or ()
    either = "exactly one of `exactly` or `firstAvailable` is required"
    if exactly is None and not first:
        yield required(at, either)
    elif exactly is not None and first:
        yield invalid(at, None, f"{either}, but multiple fields are set")
    elif first:
        yield from listed(f"{at}.firstAvailable", first, _MOST_ALTERNATIVES, _alternative, "name")
    elif exactly is not None:
        yield from _device_request(f"{at}.exactly", exactly)


def _alternative(at: str, request: Spec) -> Causes:
    yield from name_of(f"{at}.name", request.get("name", ""), names.dns_label)
    yield from _device_request(at, request)


def _device_request(at: str, request: Spec) -> Causes:
    yield from name_of(f"{at}.deviceClassName", request.get("deviceClassName", ""))
    yield from listed(f"{at}.selectors", request.get("selectors") or (), MOST, _selector)
    mode, count = request.get("allocationMode", "ExactCount"), request.get("count", 0)
    if mode == "All":
        if count:
            yield invalid(f"{at}.count", count, "must not be specified when allocationMode is 'All'")
    elif mode == "ExactCount":
        if count <= 0:
            yield invalid(f"{at}.count", count, "must be greater than zero")
    else:
        yield from one_of(f"{at}.allocationMode", mode, ("All", "ExactCount"))
    for i, toleration in enumerate(request.get("tolerations") or ()):
        yield from _toleration(f"{at}.tolerations[{i}]", toleration)


def _selector(at: str, selector: Spec) -> Causes:
    if selector.get("cel") is None:
        yield required(f"{at}.cel")
    elif len(selector["cel"].get("expression", "")) > _EXPRESSION_LENGTH:
        yield too_long(f"{at}.cel.expression", _EXPRESSION_LENGTH)


def _toleration(at: str, toleration: Spec) -> Causes:
    key, value = toleration.get("key", ""), toleration.get("value", "")
    operator, effect = toleration.get("operator", ""), toleration.get("effect", "")
    if key:
        yield from each(f"{at}.key", key, names.qualified_name(key))
    if operator == "Exists":
        if value:
            yield invalid(f"{at}.value", value, "must be empty for operator `Exists`")
    elif operator == "Equal":
        yield from each(f"{at}.value", value, names.label_value(value))
    elif not operator:
        yield required(f"{at}.operator")
    else:
        yield from one_of(f"{at}.operator", operator, ("Equal", "Exists"))
    if effect:
        yield from one_of(f"{at}.effect", effect, EFFECTS)


def configuration(at: str, config: Spec) -> Causes:
    """What is handed to a driver."""
    opaque = config.get("opaque")
    if opaque is None:
        yield required(f"{at}.opaque")
        return
    yield from driver_name(f"{at}.opaque.driver", opaque.get("driver", ""))
    yield from opaque_object(f"{at}.opaque.parameters", opaque.get("parameters"))


def opaque_object(at: str, value: Any) -> Causes:
    """What only a driver understands."""
    if value is None:
        yield required(at)
    elif len(encode(value)) > _PARAMETERS_LENGTH:
        yield too_long(at, _PARAMETERS_LENGTH)
    elif not isinstance(value, dict):
        yield invalid(at, "<value omitted>", "must be a valid JSON object")


def _full_name(at: str, name: str) -> Causes:
    yield from qualified(at, name)
    if "/" not in name:
        yield invalid(at, name, "a fully qualified name must be a domain and a name separated by a slash")


def qualified(at: str, name: str) -> Causes:
    """A name, with or without a domain before it. Of one with more slashes upstream says nothing."""
    parts = name.split("/")
    if len(parts) == 1:
        yield from _identifier(at, name)
    elif len(parts) == 2:
        domain, own = parts
        yield from driver_name(at, domain) if domain else (invalid(at, "", "the domain must not be empty"),)
        yield from _identifier(at, own) if own else (invalid(at, "", "the name must not be empty"),)


def _identifier(at: str, name: str) -> Causes:
    if len(name) > _ID_LENGTH:
        yield too_long(at, _ID_LENGTH)
    yield from each(at, name, names.c_identifier(name))


def device_class(obj: Object) -> Causes:
    """A class of devices."""
    spec = _spec(obj)
    yield from listed("spec.selectors", spec.get("selectors") or (), MOST, _selector)
    yield from listed("spec.config", spec.get("config") or (), MOST, configuration)
    name = spec.get("extendedResourceName")
    if name is not None and not resources.is_extended(name):
        yield invalid("spec.extendedResourceName", name, "must be a valid extended resource name")


def pool_name(at: str, name: str) -> Causes:
    """Names that are divided by slashes."""
    if not name:
        yield required(at)
        return
    if len(name) > _POOL_LENGTH:
        yield too_long(at, _POOL_LENGTH)
    for part in name.split("/"):
        yield from each(at, part, names.dns_subdomain(part))


def binding(at: str, good: list[str], bad: list[str]) -> Causes:
    """The conditions that a device is waited for, and those that end the wait."""

    def condition(here: str, name: str) -> Causes:
        yield from each(here, name, names.qualified_name(name))

    yield from listed(f"{at}.bindingConditions", good, _MOST_BINDING, condition)
    yield from listed(f"{at}.bindingFailureConditions", bad, _MOST_BINDING, condition)
    for part, values in (("bindingConditions", good), ("bindingFailureConditions", bad)):
        for i, name in enumerate(values):
            if name in values[:i]:
                yield duplicate(f"{at}.{part}[{i}]", name)
            if values is bad and name in good:
                why = "bindingFailureConditions must not overlap with bindingConditions"
                yield invalid(f"{at}.{part}[{i}]", name, why)
    if bad and not good:
        why = "bindingConditions are required to use bindingFailureConditions"
        yield invalid(f"{at}.bindingConditions", None, why)
    elif good and not bad:
        why = "bindingFailureConditions are required to use bindingConditions"
        yield invalid(f"{at}.bindingFailureConditions", None, why)
