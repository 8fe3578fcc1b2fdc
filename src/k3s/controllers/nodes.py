"""Which nodes a pod may be on by its own wish: node selector and required node affinity (core v1 NodeSelector)."""

from __future__ import annotations

from collections.abc import Mapping

from k3s.api import object as objects
from k3s.api.object import Object

NAME_FIELD = "metadata.name"


def fits(spec: Object, node: Object) -> bool:
    """Whether a pod with this spec wants to be on the node, taints aside."""
    if spec.get("nodeName") and spec["nodeName"] != objects.name(node):
        return False
    labels = objects.labels(node)
    selector = spec.get("nodeSelector")
    if selector and not selector.items() <= labels.items():
        return False
    required = objects.get(spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(_term_fits(term, node, labels) for term in required.get("nodeSelectorTerms") or ())


def _term_fits(term: Object, node: Object, labels: Mapping[str, str]) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    named = {NAME_FIELD: objects.name(node)}
    return all(_holds(e, labels) for e in expressions) and all(_holds(f, named) for f in fields)


def _holds(requirement: Object, labels: Mapping[str, str]) -> bool:
    operator, values = requirement["operator"], requirement.get("values") or []
    value = labels.get(requirement["key"])
    match operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            return value is not None and _compares(value, values, greater=operator == "Gt")
    return False


def _compares(value: str, values: list[str], *, greater: bool) -> bool:
    try:
        left, right = int(value), int(values[0])
    except (ValueError, IndexError):
        return False
    return left > right if greater else left < right


def bound_to(spec: Object, node: str) -> Object:
    """The spec with its required node affinity narrowed to one node (as daemon pods have it)."""
    required = objects.get(spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution") or {}
    fields = [{"key": NAME_FIELD, "operator": "In", "values": [node]}]
    terms = [{**term, "matchFields": fields} for term in required.get("nodeSelectorTerms") or [{}]]
    path = ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
    return objects.evolve(spec, path, terms)


def meant_for(pod: Object) -> str:
    """The node that a daemon pod is on, or is narrowed to while it waits; empty when it is neither."""
    spec = pod["spec"]
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    path = ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
    for term in objects.get(spec, *path) or ():
        for field in term.get("matchFields") or ():
            if field["key"] == NAME_FIELD and field["operator"] == "In" and len(field["values"]) == 1:
                return str(field["values"][0])
    return ""
