"""Rules for claims of devices, their classes and what drivers publish of them (resource.k8s.io).

Expressions are looked at by whoever evaluates them, not here. Source: the API documentation of each kind; order and
wording as upstream's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from k3s.api import names
from k3s.api.object import Object, encode
from k3s.api.validation import meta, resources
from k3s.api.validation.causes import (
    Causes,
    duplicate,
    each,
    forbidden,
    invalid,
    labels,
    name_of,
    one_of,
    required,
    too_long,
    too_many,
    unchanged,
)
from k3s.api.validation.scheduling import node_selector
from k3s.api.validation.storageclasses import driver_name

Spec = Mapping[str, Any]
Rule = Callable[[str, Any], Causes]
MOST = 32
_MOST_ALTERNATIVES = 8
_MOST_DEVICES = 128
_MOST_TAINTS = 16
_MOST_BINDING = 4
_VALUE_LENGTH = 64
_ID_LENGTH = 32
_POOL_LENGTH = 253
_EXPRESSION_LENGTH = 10 * 1024
_PARAMETERS_LENGTH = 10 * 1024
_EFFECTS = ("NoExecute", "NoSchedule", "None")
_WHERE = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")
_NUMBER, _PART = r"(0|[1-9]\d*)", r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_VERSION = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_PART}(\.{_PART})*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?\Z", re.ASCII
)
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
        yield from one_of(f"{at}.effect", effect, _EFFECTS)


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
    if name.count("/") != 1:
        yield invalid(at, name, "a fully qualified name must be a domain and a name separated by a slash")
    else:
        yield from _qualified(at, name)


def _qualified(at: str, name: str) -> Causes:
    """A name, with or without a domain before it."""
    if not name:
        yield required(at, "name required")
        return
    domain, slash, own = name.rpartition("/")
    if slash and not domain:
        yield required(at, "the domain must not be empty")
    elif slash:
        yield from driver_name(at, domain)
    if not own:
        yield required(at, "the name must not be empty")
        return
    if len(own) > _ID_LENGTH:
        yield too_long(at, _ID_LENGTH)
    yield from each(at, own, names.c_identifier(own))


def device_class(obj: Object) -> Causes:
    """A class of devices."""
    spec = _spec(obj)
    yield from listed("spec.selectors", spec.get("selectors") or (), MOST, _selector)
    yield from listed("spec.config", spec.get("config") or (), MOST, configuration)
    name = spec.get("extendedResourceName")
    if name is not None and not resources.is_extended(name):
        yield invalid("spec.extendedResourceName", name, "must be a valid extended resource name")


def resource_slice(obj: Object) -> Causes:
    """What a driver publishes of its devices."""
    yield from _slice(_spec(obj), None)


def resource_slice_update(old: Object, new: Object) -> Causes:
    """A changed slice: whose it is, and where, stays."""
    yield from _slice(_spec(new), _spec(old))


def _slice(spec: Spec, before: Spec | None) -> Causes:
    pool = spec.get("pool") or {}
    yield from driver_name("spec.driver", spec.get("driver", ""))
    yield from _pool("spec.pool", pool)
    if before is not None:
        yield from unchanged("spec.pool.name", (before.get("pool") or {}).get("name"), pool.get("name"))
        for name in ("driver", "nodeName"):
            yield from unchanged(f"spec.{name}", before.get(name), spec.get(name))
    given = [f"`{name}`" for name in _WHERE if spec.get(name)]
    yield from _place("spec", spec, "must be either unset or set to a non-empty string")
    only = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
    if not given:
        yield required("spec", only)
    elif len(given) > 1:
        yield invalid("spec", f"{{{', '.join(given)}}}", f"{only}, but multiple fields are set")
    counters = {s.get("name", ""): set(s.get("counters") or ()) for s in spec.get("sharedCounters") or ()}

    def device(at: str, value: Spec) -> Causes:
        yield from _device(at, value, counters, alone=bool(spec.get("perDeviceNodeSelection")))

    yield from listed("spec.devices", spec.get("devices") or (), _MOST_DEVICES, device, "name")
    yield from listed("spec.sharedCounters", spec.get("sharedCounters") or (), _MOST_DEVICES, _counters, "name")


def _place(at: str, spec: Spec, empty: str) -> Causes:
    """Where devices are: on a node, on the nodes of a selector, on all."""
    node, chosen = spec.get("nodeName"), spec.get("nodeSelector")
    if node:
        yield from each(f"{at}.nodeName", node, names.dns_subdomain(node))
    elif node is not None:
        yield invalid(f"{at}.nodeName", node, empty)
    if chosen is not None:
        yield from node_selector(f"{at}.nodeSelector", chosen)
        terms = chosen.get("nodeSelectorTerms") or []
        if at == "spec" and len(terms) != 1:
            yield invalid(f"{at}.nodeSelector.nodeSelectorTerms", terms, "must have exactly one node selector term")
    for name in ("allNodes", "perDeviceNodeSelection"):
        if spec.get(name) is False:
            yield invalid(f"{at}.{name}", False, "must be either unset or set to true")


def pool_name(at: str, name: str) -> Causes:
    """Names that are divided by slashes."""
    if not name:
        yield required(at)
        return
    if len(name) > _POOL_LENGTH:
        yield too_long(at, _POOL_LENGTH)
    for part in name.split("/"):
        yield from each(at, part, names.dns_subdomain(part))


def _pool(at: str, pool: Spec) -> Causes:
    name, count, generation = pool.get("name", ""), pool.get("resourceSliceCount", 0), pool.get("generation", 0)
    yield from pool_name(f"{at}.name", name)
    if count <= 0:
        yield invalid(f"{at}.resourceSliceCount", count, "must be greater than zero")
    if generation < 0:
        yield invalid(f"{at}.generation", generation, "must be greater than or equal to zero")


def _counters(at: str, counters: Spec) -> Causes:
    yield from name_of(f"{at}.name", counters.get("name", ""), names.dns_label)
    yield from _counter_names(f"{at}.counters", counters.get("counters") or ())


def _counter_names(at: str, given: Iterable[str]) -> Causes:
    if not given:
        yield required(at)
    for name in given:
        yield from name_of(f"{at}[{name}]", name, names.dns_label)


def _device(at: str, device: Spec, counters: Mapping[str, set[str]], *, alone: bool) -> Causes:
    yield from name_of(f"{at}.name", device.get("name", ""), names.dns_label)
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    if len(attributes) + len(capacity) > MOST:
        why = f"the total number of attributes and capacities must not exceed {MOST}"
        yield invalid(at, len(attributes) + len(capacity), why)
    for name, value in attributes.items():
        yield from _qualified(f"{at}.attributes[{name}]", name)
        yield from _attribute(f"{at}.attributes[{name}]", value)
    for name, value in capacity.items():
        yield from _qualified(f"{at}.capacity[{name}]", name)
        if value.get("requestPolicy") is not None and not device.get("allowMultipleAllocations"):
            yield forbidden(f"{at}.capacity[{name}].requestPolicy", "allowMultipleAllocations must be true")
    yield from listed(f"{at}.taints", device.get("taints") or (), _MOST_TAINTS, _taint)
    yield from _consumed(f"{at}.consumesCounters", device.get("consumesCounters") or (), counters)
    given = [f"`{name}`" for name in _WHERE[:3] if device.get(name)]
    if alone:
        yield from _place(at, device, "must not be empty")
        why = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection`"
        why += " is set to true in the ResourceSlice spec"
        if not given:
            yield required(at, why)
        elif len(given) > 1:
            yield invalid(at, f"{{{', '.join(given)}}}", why)
    elif any(device.get(name) is not None for name in _WHERE[:3]):
        why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true"
        yield invalid(at, None, f"{why} in the ResourceSlice spec")
    yield from binding(at, device.get("bindingConditions") or [], device.get("bindingFailureConditions") or [])


def _attribute(at: str, attribute: Spec) -> Causes:
    text, version = attribute.get("string"), attribute.get("version")
    if text is not None and len(text) > _VALUE_LENGTH:
        yield too_long(f"{at}.string", _VALUE_LENGTH)
    if version is not None:
        if not _VERSION.match(version):
            yield invalid(f"{at}.version", version, "must be a string compatible with semver.org spec 2.0.0")
        if len(version) > _VALUE_LENGTH:
            yield too_long(f"{at}.version", _VALUE_LENGTH)
    if not attribute:
        yield required(at, "exactly one value must be specified")
    elif len(attribute) > 1:
        yield invalid(at, dict(attribute), "exactly one value must be specified")


def _taint(at: str, taint: Spec) -> Causes:
    key, value, effect = taint.get("key", ""), taint.get("value", ""), taint.get("effect", "")
    yield from each(f"{at}.key", key, names.qualified_name(key))
    if value:
        yield from each(f"{at}.value", value, names.label_value(value))
    if not effect:
        yield required(f"{at}.effect")
    else:
        yield from one_of(f"{at}.effect", effect, _EFFECTS)


def _consumed(at: str, consumed: Sequence[Spec], counters: Mapping[str, set[str]]) -> Causes:
    def one(here: str, value: Spec) -> Causes:
        if not value.get("counterSet"):
            yield required(f"{here}.counterSet")
        yield from _counter_names(f"{here}.counters", value.get("counters") or ())

    yield from listed(at, consumed, MOST, one, "counterSet")
    for i, value in enumerate(consumed):
        known = counters.get(value.get("counterSet", ""))
        if known is None:
            why = "must reference a counterSet defined in the ResourceSlice sharedCounters"
            yield invalid(f"{at}[{i}].counterSet", value.get("counterSet", ""), why)
            continue
        for name in value.get("counters") or ():
            if name not in known:
                why = "must reference a counter defined in the ResourceSlice sharedCounters"
                yield invalid(f"{at}[{i}].counters", name, why)


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
