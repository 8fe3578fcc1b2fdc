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
    one_of,
    required,
    selector,
    unsupported,
)

Spec = Mapping[str, Any]
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_NOT_POSITIVE = "must be greater than zero"
_NO_SELECTOR = "must not be specified when labelSelector is not set"


def gates(field: str, spec: Spec) -> Causes:
    """What a pod waits for: to be scheduled, and to be ready."""
    for i, gate in enumerate(spec.get("readinessGates") or ()):
        kind = gate.get("conditionType", "")
        yield from each(f"{field}.readinessGates[{i}].conditionType", kind, names.qualified_name(kind))
    seen: set[str] = set()
    for i, gate in enumerate(spec.get("schedulingGates") or ()):
        name, at = gate.get("name", ""), f"{field}.schedulingGates[{i}]"
        yield from each(at, name, names.qualified_name(name))
        if name in seen:
            yield duplicate(at, name)
        seen.add(name)


def tolerations(field: str, values: Sequence[Spec]) -> Causes:
    """The taints that a pod tolerates."""
    for i, value in enumerate(values):
        yield from _toleration(f"{field}[{i}]", value)


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
            yield invalid(f"{at}.operator", value["value"], "value must be empty when `operator` is 'Exists'")
    elif operator in ("", "Equal"):
        problems = names.label_value(value.get("value", ""))
        if problems:
            yield invalid(f"{at}.operator", value["value"], ";".join(problems))
    else:
        # What compares numbers waits for a gate that is off (TaintTolerationComparisonOperators).
        known = ("Equal", "Exists", "Lt", "Gt") if operator in ("Lt", "Gt") else ("Equal", "Exists")
        yield unsupported(f"{at}.operator", operator, known)
    if effect:
        yield from one_of(f"{at}.effect", effect, EFFECTS)


def spread(field: str, constraints: Sequence[Spec]) -> Causes:
    """How pods are spread over the nodes."""
    pairs = [(value.get("topologyKey", ""), value.get("whenUnsatisfiable", "")) for value in constraints]
    for i, value in enumerate(constraints):
        at = f"{field}[{i}]"
        key, then = pairs[i]
        if value.get("maxSkew", 0) <= 0:
            yield invalid(f"{at}.maxSkew", value.get("maxSkew", 0), _NOT_POSITIVE)
        if not key:
            yield required(f"{at}.topologyKey", "can not be empty")
        yield from one_of(f"{at}.whenUnsatisfiable", then, ("DoNotSchedule", "ScheduleAnyway"))
        if pairs[i] in pairs[i + 1 :]:
            yield duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {then}}}")
        domains = value.get("minDomains")
        if domains is not None and domains <= 0:
            yield invalid(f"{at}.minDomains", domains, _NOT_POSITIVE)
        if domains is not None and then != "DoNotSchedule":
            why = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {then}"
            yield invalid(f"{at}.minDomains", domains, why)
        for part in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if part in value:
                yield from one_of(f"{at}.{part}", value[part], ("Honor", "Ignore"))
        yield from _pod_keys(at, value)
        yield from selector(f"{at}.labelSelector", value.get("labelSelector"))


def affinity(at: str, value: Spec) -> Causes:
    """To which nodes and near which pods a pod goes."""
    node = value.get("nodeAffinity") or {}
    needed = node.get("requiredDuringSchedulingIgnoredDuringExecution")
    if needed is not None:
        here = f"{at}.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"
        yield from node_selector(here, needed)
    for i, term in enumerate(node.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
        here = f"{at}.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[{i}]"
        yield from _weight(here, term)
        yield from _node_term(f"{here}.preference", term.get("preference") or {}, values=False)
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
        yield from _node_term(f"{at}.nodeSelectorTerms[{i}]", term, values=True)


def _node_term(at: str, term: Spec, *, values: bool) -> Causes:
    """A term of a node selector; `values`: what labels are compared with has to be the value of a label."""
    for i, rule in enumerate(term.get("matchExpressions") or ()):
        yield from _node_rule(f"{at}.matchExpressions[{i}]", rule)
        for j, text in enumerate(rule.get("values") or ()) if values else ():
            yield from each(f"{at}.matchExpressions[{i}].values[{j}]", text, names.label_value(text))
    for i, rule in enumerate(term.get("matchFields") or ()):
        here, key, given = f"{at}.matchFields[{i}]", rule.get("key", ""), rule.get("values") or ()
        if rule.get("operator") not in ("In", "NotIn"):
            yield invalid(f"{here}.operator", rule.get("operator", ""), "not a valid selector operator")
        elif len(given) != 1:
            why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            yield required(f"{here}.values", why)
        if key != "metadata.name":
            yield invalid(f"{here}.key", key, "not a valid field selector key")
        for j, text in enumerate(given) if key == "metadata.name" else ():
            yield from each(f"{here}.values[{j}]", text, names.dns_subdomain(text))


def _node_rule(here: str, rule: Spec) -> Causes:
    operator, values = rule.get("operator", ""), rule.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            yield required(f"{here}.values", "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            yield forbidden(f"{here}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            yield required(f"{here}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
    else:
        yield invalid(f"{here}.operator", operator, "not a valid selector operator")
    yield from each(f"{here}.key", rule.get("key", ""), names.qualified_name(rule.get("key", "")))


def _pod_term(at: str, term: Spec) -> Causes:
    yield from selector(f"{at}.labelSelector", term.get("labelSelector"))
    yield from selector(f"{at}.namespaceSelector", term.get("namespaceSelector"))
    for space in term.get("namespaces") or ():
        yield from each(f"{at}.namespace", space, names.dns_label(space))
    if "matchLabelKeys" in term or "mismatchLabelKeys" in term:
        yield from _pod_keys(at, term)
    key = term.get("topologyKey", "")
    if not key:
        yield required(f"{at}.topologyKey", "can not be empty")
    yield from each(f"{at}.topologyKey", key, names.qualified_name(key))


def _pod_keys(at: str, term: Spec) -> Causes:
    """Labels that another pod has, or has not, the same value of."""
    chosen, same = term.get("labelSelector"), term.get("matchLabelKeys") or []
    other = term.get("mismatchLabelKeys") or ()
    for part, keys in (("matchLabelKeys", same), ("mismatchLabelKeys", other)):
        if keys and chosen is None:
            yield forbidden(f"{at}.{part}", _NO_SELECTOR)
        for i, key in enumerate(keys if chosen is not None else ()):
            yield from each(f"{at}.{part}[{i}]", key, names.qualified_name(key))
    taken = {*((chosen or {}).get("matchLabels") or ())}
    for rule in (chosen or {}).get("matchExpressions") or ():
        key = rule.get("key", "")
        if key in same and key in taken:
            last = len(same) - 1 - same[::-1].index(key)
            yield invalid(f"{at}[{last}]", key, "exists in both matchLabelKeys and labelSelector")
        taken.add(key)
    for i, key in enumerate(same):
        if key in other:
            yield invalid(f"{at}.matchLabelKeys[{i}]", key, "exists in both matchLabelKeys and mismatchLabelKeys")


def taints(field: str, values: Sequence[Spec]) -> Causes:
    """The taints of a node: unique by key and effect."""
    seen: set[tuple[str, str]] = set()
    for i, taint in enumerate(values):
        at = f"{field}[{i}]"
        key, effect = taint.get("key", ""), taint.get("effect", "")
        yield from each(f"{at}.key", key, names.qualified_name(key))
        problems = names.label_value(taint.get("value", ""))
        if problems:
            yield invalid(f"{at}.value", taint["value"], ";".join(problems))
        if not effect:
            yield required(f"{at}.effect")
        else:
            yield from one_of(f"{at}.effect", effect, EFFECTS)
        if (key, effect) in seen:
            shown = {"Key": key, "Value": taint.get("value", ""), "Effect": effect, "TimeAdded": taint.get("timeAdded")}
            found = duplicate(at, shown)
            yield {**found, "message": f"{found['message']}: taints must be unique by key and effect pair"}
        seen.add((key, effect))
