"""Pods that are meant for one node: how a daemon pod names it before it is bound."""

from __future__ import annotations

from k3s.api import object as objects
from k3s.api.nodeselectors import NAME_FIELD
from k3s.api.object import Object


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
