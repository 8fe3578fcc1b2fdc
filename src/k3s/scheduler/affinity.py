"""Matching of nodes and pods: taints, pod (anti-)affinity terms. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import object as objects
from k3s.api import taints
from k3s.api.object import Object
from k3s.api.selectors import from_object
from k3s.scheduler.snapshot import NodeFacts, PodFacts


def untolerated(pod: PodFacts, node: NodeFacts, effects: Sequence[str]) -> Object | None:
    """The node's first taint with one of these effects that the pod does not tolerate."""
    return next(iter(taints.untolerated(node.taints, pod.spec.get("tolerations") or (), effects)), None)


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
