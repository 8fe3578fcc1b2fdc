"""Rules for what drivers publish of their devices (ResourceSlice, resource.k8s.io).

Source: the API documentation of the kind; order and wording as upstream's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import names, quantity
from k3s.api.object import Object
from k3s.api.validation import meta
from k3s.api.validation.causes import (
    Causes,
    each,
    forbidden,
    invalid,
    name_of,
    one_of,
    required,
    too_long,
    too_many,
    unchanged,
)
from k3s.api.validation.devices import EFFECTS, MOST, binding, listed, pool_name, qualified
from k3s.api.validation.scheduling import node_selector
from k3s.api.validation.storageclasses import driver_name

Spec = Mapping[str, Any]
_MOST_DEVICES, _MOST_SPECIAL = 128, 64
_MOST_SETS = 8
_MOST_CONSUMED = 2
_MOST_OPTIONS = 10
_MOST_TAINTS = 16
_VALUE_LENGTH = 64
_WHERE = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")
_NUMBER, _PART = r"(0|[1-9]\d*)", r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_VERSION = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_PART}(\.{_PART})*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?\Z", re.ASCII
)


def _spec(obj: Object) -> Spec:
    return obj.get("spec") or {}


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
    devices = spec.get("devices") or ()
    if devices and spec.get("sharedCounters"):
        yield invalid("spec", "", "only one of `sharedCounters` or `devices` is allowed")
    known = {old.get("name"): old.get("taints") for old in (before or {}).get("devices") or ()}

    def device(at: str, value: Spec) -> Causes:
        tainted = value.get("taints") if value.get("taints") != known.get(value.get("name")) else ()
        yield from _device(at, value, tainted or (), alone=bool(spec.get("perDeviceNodeSelection")))

    special = any(value.get("taints") or value.get("consumesCounters") for value in devices)
    yield from listed("spec.devices", devices, _MOST_SPECIAL if special else _MOST_DEVICES, device, "name")
    yield from listed("spec.sharedCounters", spec.get("sharedCounters") or (), _MOST_SETS, _counters, "name")


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


def _pool(at: str, pool: Spec) -> Causes:
    name, count, generation = pool.get("name", ""), pool.get("resourceSliceCount", 0), pool.get("generation", 0)
    yield from pool_name(f"{at}.name", name)
    if count <= 0:
        yield invalid(f"{at}.resourceSliceCount", count, "must be greater than zero")
    if generation < 0:
        yield invalid(f"{at}.generation", generation, "must be greater than or equal to zero")


def _counters(at: str, counters: Spec) -> Causes:
    yield from name_of(f"{at}.name", counters.get("name", ""), names.dns_label)
    yield from _counter_names(f"{at}.counters", counters.get("counters") or {})


def _counter_names(at: str, given: Mapping[str, Any]) -> Causes:
    if not given:
        yield required(at)
    elif len(given) > MOST:
        yield too_many(at, len(given), MOST)
    else:
        for name in given:
            yield from name_of(f"{at}[{name}]", name, names.dns_label)


def _device(at: str, device: Spec, tainted: Sequence[Spec], *, alone: bool) -> Causes:
    yield from name_of(f"{at}.name", device.get("name", ""), names.dns_label)
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    if len(attributes) + len(capacity) > MOST:
        why = f"the total number of attributes and capacities must not exceed {MOST}"
        yield invalid(at, len(attributes) + len(capacity), why)
    for name, value in attributes.items():
        yield from qualified(f"{at}.attributes[{name}]", name)
        yield from _attribute(f"{at}.attributes[{name}]", value)
    for name, value in capacity.items():
        here, policy = f"{at}.capacity[{name}]", value.get("requestPolicy")
        yield from qualified(here, name)
        if policy is not None and not device.get("allowMultipleAllocations"):
            yield forbidden(f"{here}.requestPolicy", "allowMultipleAllocations must be true")
        elif policy is not None:
            yield from _policy(f"{here}.requestPolicy", value.get("value", "0"), policy)
    yield from listed(f"{at}.taints", tainted, _MOST_TAINTS, _taint)
    consumed = device.get("consumesCounters") or ()
    yield from listed(f"{at}.consumesCounters", consumed, _MOST_CONSUMED, _consumed, "counterSet")
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
        yield invalid(at, "", "exactly one value must be specified")
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
        yield from one_of(f"{at}.effect", effect, EFFECTS)


def _consumed(at: str, consumed: Spec) -> Causes:
    yield from name_of(f"{at}.counterSet", consumed.get("counterSet", ""), names.dns_label)
    yield from _counter_names(f"{at}.counters", consumed.get("counters") or {})


def _policy(at: str, capacity: str, policy: Spec) -> Causes:
    """How much of a capacity can be asked for at once."""
    values, bounds, usual = policy.get("validValues") or (), policy.get("validRange"), policy.get("default")
    if values and bounds is not None:
        why = 'exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time'
        yield forbidden(at, why)
    elif values and usual is None:
        yield required(f"{at}.default", "required when validValues is defined")
    elif values:
        yield from _values(f"{at}.validValues", capacity, usual, values)
    elif bounds is not None and usual is None:
        yield required(f"{at}.default", "required when validRange is defined")
    elif bounds is not None:
        yield from _range(f"{at}.validRange", capacity, usual, bounds)


def _values(at: str, capacity: str, usual: Any, values: Sequence[str]) -> Causes:
    for i in range(1, len(values)):
        if quantity.compare(values[i - 1], values[i]) > 0:
            yield invalid(f"{at}[{i}]", values[i], "values must be sorted in ascending order")
    if len(values) > _MOST_OPTIONS:
        yield too_many(at, len(values), _MOST_OPTIONS)
    else:
        for i, value in enumerate(values):
            if quantity.compare(value, capacity) > 0:
                yield invalid(f"{at}[{i}]", value, f"option is larger than capacity value: {capacity}")
        yield from meta.unique(at, [str(quantity.value(value)) for value in values])
    if len(values) > _MOST_OPTIONS or all(quantity.compare(value, usual) for value in values):
        yield invalid(at, usual, "default value is not valid according to the requestPolicy")


def _range(at: str, capacity: str, usual: Any, bounds: Spec) -> Causes:
    low, high, step = bounds.get("min"), bounds.get("max"), bounds.get("step")
    if low is None:
        yield required(f"{at}.min", "required when validRange is defined")
        return
    if quantity.compare(low, capacity) > 0:
        yield invalid(f"{at}.min", low, f"min is larger than capacity value: {capacity}")
    if quantity.compare(usual, low) < 0:
        yield invalid(f"{at}.min", usual, f"default is less than min: {low}")
    if high is not None:
        if quantity.compare(low, high) > 0:
            yield invalid(f"{at}.max", low, f"min is larger than max: {high}")
        if quantity.compare(high, capacity) > 0:
            yield invalid(f"{at}.max", high, f"max is larger than capacity value: {capacity}")
        if quantity.compare(usual, high) > 0:
            yield invalid(f"{at}.max", usual, f"default is more than max: {high}")
    if step is not None:
        one = quantity.add(low, step)
        if quantity.compare(one, capacity) > 0:
            yield invalid(f"{at}.step", step, f"one step {one} is larger than capacity value: {capacity}")
        for value in (usual, high):
            # Upstream divides by a step of 0, which its handler answers with 500; here no value is a multiple of it.
            size = quantity.value(step)
            if value is not None and (not size or (quantity.value(value) - quantity.value(low)) % size):
                yield invalid(f"{at}.step", value, f"value is not a multiple of a given step ({step}) from ({low})")
