"""Rules for where a pod may run: selectors, affinities, tolerations, spread. Source: the Pod API documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import names
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
    selector,
    unsupported,
)

Spec = Mapping[str, Any]
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def of_pod(field: str, spec: Spec) -> Causes:
    """Everything in a pod spec that steers the scheduler."""
    yield from labels(f"{field}.nodeSelector", spec.get("nodeSelector"))
    yield from _affinity(f"{field}.affinity", spec.get("affinity") or {})
    for i, toleration in enumerate(spec.get("tolerations") or ()):
        yield from _toleration(f"{field}.tolerations[{i}]", toleration)
    yield from _spread(f"{field}.topologySpreadConstraints", spec.get("topologySpreadConstraints") or ())
    seen: set[str] = set()
    gates = spec.get("schedulingGates") or ()
    for i, gate in enumerate(gates):
        name = gate.get("name", "")
        yield from each(f"{field}.schedulingGates[{i}].name", name, names.qualified_name(name))
        if name in seen:
            yield duplicate(f"{field}.schedulingGates[{i}]", name)
        seen.add(name)
    if gates and spec.get("nodeName"):
        yield forbidden(f"{field}.nodeName", "cannot be set until all schedulingGates have been cleared")
    for i, gate in enumerate(spec.get("readinessGates") or ()):
        kind = gate.get("conditionType", "")
        yield from each(f"{field}.readinessGates[{i}].conditionType", kind, names.qualified_name(kind))


def _toleration(at: str, value: Spec) -> Causes:
    key, operator, effect = value.get("key", ""), value.get("operator", ""), value.get("effect", "")
    if key:
        yield from each(f"{at}.key", key, names.qualified_name(key))
    elif operator != "Exists":
        why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        yield invalid(f"{at}.operator", operator, why)
    if "tolerationSeconds" in value and effect != "NoExecute":
        yield invalid(f"{at}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
    if operator == "Exists":
        if value.get("value"):
            why = "value must be empty when `operator` is 'Exists'"
            yield invalid(f"{at}.operator", value["value"], why)
    elif operator in ("", "Equal"):
        yield from each(f"{at}.operator", value.get("value", ""), names.label_value(value.get("value", "")))
    elif operator not in ("Lt", "Gt"):
        yield unsupported(f"{at}.operator", operator, ("Equal", "Exists"))
    if effect:
        yield from one_of(f"{at}.effect", effect, EFFECTS)


def _spread(field: str, constraints: Sequence[Spec]) -> Causes:
    for i, value in enumerate(constraints):
        at = f"{field}[{i}]"
        if value.get("maxSkew", 0) <= 0:
            yield invalid(f"{at}.maxSkew", value.get("maxSkew", 0), "must be greater than zero")
        key = value.get("topologyKey", "")
        if not key:
            yield required(f"{at}.topologyKey", "can not be empty")
        else:
            yield from each(f"{at}.topologyKey", key, names.qualified_name(key))
        then = value.get("whenUnsatisfiable", "")
        yield from one_of(f"{at}.whenUnsatisfiable", then, ("DoNotSchedule", "ScheduleAnyway"))
        pair = (key, then)
        if any((c.get("topologyKey", ""), c.get("whenUnsatisfiable", "")) == pair for c in constraints[:i]):
            yield duplicate(at, f"{{{key}, {then}}}")
        if value.get("minDomains", 1) <= 0:
            yield invalid(f"{at}.minDomains", value["minDomains"], "must be greater than zero")
        yield from selector(f"{at}.labelSelector", value.get("labelSelector"))


def _affinity(at: str, value: Spec) -> Causes:
    node = value.get("nodeAffinity") or {}
    needed = node.get("requiredDuringSchedulingIgnoredDuringExecution")
    if needed is not None:
        here = f"{at}.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"
        yield from node_selector(here, needed)
    for i, term in enumerate(node.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
        here = f"{at}.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[{i}]"
        yield from _weight(here, term)
        yield from _node_term(f"{here}.preference", term.get("preference") or {})
    for kind in ("podAffinity", "podAntiAffinity"):
        both = value.get(kind) or {}
        for i, term in enumerate(both.get("requiredDuringSchedulingIgnoredDuringExecution") or ()):
            yield from _pod_term(f"{at}.{kind}.requiredDuringSchedulingIgnoredDuringExecution[{i}]", term)
        for i, term in enumerate(both.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
            here = f"{at}.{kind}.preferredDuringSchedulingIgnoredDuringExecution[{i}]"
            yield from _weight(here, term)
            yield from _pod_term(f"{here}.podAffinityTerm", term.get("podAffinityTerm") or {})


def _weight(at: str, term: Spec) -> Causes:
    if not 1 <= term.get("weight", 0) <= 100:
        yield invalid(f"{at}.weight", term.get("weight", 0), "must be in the range 1-100")


def node_selector(at: str, value: Spec) -> Causes:
    """A node selector: at least one term."""
    terms = value.get("nodeSelectorTerms") or ()
    if not terms:
        yield required(f"{at}.nodeSelectorTerms", "must have at least one node selector term")
    for i, term in enumerate(terms):
        yield from _node_term(f"{at}.nodeSelectorTerms[{i}]", term)


def _node_term(at: str, term: Spec) -> Causes:
    for part in ("matchExpressions", "matchFields"):
        for i, rule in enumerate(term.get(part) or ()):
            here = f"{at}.{part}[{i}]"
            operator, values = rule.get("operator", ""), rule.get("values") or ()
            if operator in ("In", "NotIn"):
                if not values:
                    yield required(f"{here}.values", "must be specified when `operator` is 'In' or 'NotIn'")
            elif operator in ("Exists", "DoesNotExist"):
                if values:
                    why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                    yield forbidden(f"{here}.values", why)
            elif operator in ("Gt", "Lt"):
                if len(values) != 1:
                    why = "must be specified single value when `operator` is 'Lt' or 'Gt'"
                    yield required(f"{here}.values", why)
            else:
                yield invalid(f"{here}.operator", operator, "not a valid selector operator")
            if part == "matchExpressions":
                yield from each(f"{here}.key", rule.get("key", ""), names.qualified_name(rule.get("key", "")))
            elif rule.get("key") != "metadata.name":
                yield invalid(f"{here}.key", rule.get("key", ""), "not a valid field selector key")


def _pod_term(at: str, term: Spec) -> Causes:
    yield from selector(f"{at}.labelSelector", term.get("labelSelector"))
    yield from selector(f"{at}.namespaceSelector", term.get("namespaceSelector"))
    for space in term.get("namespaces") or ():
        yield from name_of(f"{at}.namespace", space, names.dns_label)
    key = term.get("topologyKey", "")
    if not key:
        yield required(f"{at}.topologyKey", "can not be empty")
    yield from each(f"{at}.topologyKey", key, names.qualified_name(key))


def taints(field: str, values: Sequence[Spec]) -> Causes:
    """The taints of a node: unique by key and effect."""
    seen: set[tuple[str, str]] = set()
    for i, taint in enumerate(values):
        at = f"{field}[{i}]"
        key, effect = taint.get("key", ""), taint.get("effect", "")
        yield from each(f"{at}.key", key, names.qualified_name(key))
        yield from each(f"{at}.value", taint.get("value", ""), names.label_value(taint.get("value", "")))
        if not effect:
            yield required(f"{at}.effect")
        else:
            yield from one_of(f"{at}.effect", effect, EFFECTS)
        if (key, effect) in seen:
            shown = {"Key": key, "Value": taint.get("value", ""), "Effect": effect, "TimeAdded": taint.get("timeAdded")}
            found = duplicate(at, shown)
            yield {**found, "message": f"{found['message']}: taints must be unique by key and effect pair"}
        seen.add((key, effect))
