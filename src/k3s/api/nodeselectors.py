"""Which nodes a pod may be on by its own wish: node selector and required node affinity (core v1 NodeSelector)."""

from __future__ import annotations

from collections.abc import Mapping

from k3s.api import object as objects
from k3s.api.object import Object
from k3s.api.taints import compares

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
    return required is None or any(term_fits(term, node) for term in required.get("nodeSelectorTerms") or ())


def term_fits(term: Object, node: Object) -> bool:
    """Whether all of a term's expressions hold for the node; an empty term fits none."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    labels, named = objects.labels(node), {NAME_FIELD: objects.name(node)}
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
            return value is not None and len(values) == 1 and compares(operator, value, values[0])
    return False
