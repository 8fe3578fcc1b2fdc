"""Matching of nodes and pods: node selectors, tolerations, pod (anti-)affinity terms. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import object as objects
from k3s.api.object import Object
from k3s.api.selectors import from_object
from k3s.scheduler.snapshot import NodeFacts, PodFacts


def tolerates(tolerations: Sequence[Object], taint: Object) -> bool:
    """True when one of the tolerations covers the taint (API docs: Toleration v1 core)."""
    return any(_covers(toleration, taint) for toleration in tolerations)


def _covers(toleration: Object, taint: Object) -> bool:
    effect = toleration.get("effect")
    if effect and effect != taint.get("effect"):
        return False
    key, operator = toleration.get("key") or "", toleration.get("operator") or "Equal"
    if key and key != taint["key"]:
        return False
    if operator == "Exists":
        return True
    if not key:
        return False
    value, tainted = toleration.get("value") or "", taint.get("value") or ""
    if operator == "Equal":
        return bool(value == tainted)
    return _compares(operator, tainted, value)


def _compares(operator: str, left: str, right: str) -> bool:
    """Gt and Lt compare whole numbers; anything else never matches."""
    try:
        a, b = int(left), int(right)
    except ValueError:
        return False
    return a > b if operator == "Gt" else a < b if operator == "Lt" else False


def untolerated(pod: PodFacts, taints: Sequence[Object], effects: Sequence[str]) -> Object | None:
    """The first taint with one of these effects that the pod does not tolerate."""
    tolerations = pod.spec.get("tolerations") or ()
    return next((t for t in taints if t.get("effect") in effects and not tolerates(tolerations, t)), None)


def _expression(values: Mapping[str, str], expression: Object) -> bool:
    key, operator = expression["key"], expression["operator"]
    wanted: Sequence[str] = expression.get("values") or ()
    found = values.get(key)
    if operator == "In":
        return found is not None and found in wanted
    if operator == "NotIn":
        return found is None or found not in wanted
    if operator == "Exists":
        return found is not None
    if operator == "DoesNotExist":
        return found is None
    return found is not None and len(wanted) == 1 and _compares(operator, found, wanted[0])


def node_term_matches(term: Object, node: NodeFacts) -> bool:
    """One term of a node selector: all its expressions hold; an empty term matches nothing."""
    expressions = term.get("matchExpressions") or ()
    fields = term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    names = {"metadata.name": node.name}
    return all(_expression(node.labels, e) for e in expressions) and all(_expression(names, f) for f in fields)


def node_matches(pod: PodFacts, node: NodeFacts) -> bool:
    """The pod's nodeSelector and required node affinity."""
    selector = pod.spec.get("nodeSelector") or {}
    if any(node.labels.get(key) != value for key, value in selector.items()):
        return False
    required = objects.get(
        pod.spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", default=None
    )
    if required is None:
        return True
    return any(node_term_matches(term, node) for term in required.get("nodeSelectorTerms") or ())


def term_matches(term: Object, owner: PodFacts, other: PodFacts, namespaces: Mapping[str, Object]) -> bool:
    """True when a pod affinity term of `owner` selects `other` (topology aside)."""
    if not _in_namespaces(term, objects.namespace(owner.obj), objects.namespace(other.obj), namespaces):
        return False
    selector = term.get("labelSelector")
    if selector is None:
        return False
    extra = {key: owner.labels[key] for key in term.get("matchLabelKeys") or () if key in owner.labels}
    if any(other.labels.get(key) != value for key, value in extra.items()):
        return False
    apart = [key for key in term.get("mismatchLabelKeys") or () if key in owner.labels]
    if any(other.labels.get(key) == owner.labels[key] for key in apart):
        return False
    return from_object(selector).matches(other.labels)


def _in_namespaces(term: Object, own: str, other: str, namespaces: Mapping[str, Object]) -> bool:
    listed: Sequence[str] = term.get("namespaces") or ()
    selector: Any = term.get("namespaceSelector")
    if selector is None:
        return other in (listed or (own,))
    return other in listed or from_object(selector).matches(objects.labels(namespaces.get(other, {})))
