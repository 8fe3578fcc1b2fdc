"""Counts that filters and scores share, made once per pod to place: topology spread and inter-pod affinity. Pure.

Sources: KEP-895 (even pods spreading), KEP-3094 (node inclusion policies), API docs of PodAffinityTerm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from k3s.api import object as objects
from k3s.api.nodeselectors import fits
from k3s.api.object import Object
from k3s.api.selectors import LabelSelector, from_object
from k3s.scheduler.affinity import term_matches, untolerated
from k3s.scheduler.snapshot import NodeFacts, PodFacts, Snapshot

_HARD = "DoNotSchedule"

Domain = tuple[str, str]  # topology key, value


@dataclass(frozen=True)
class Constraint:
    """One topology spread constraint with the matching pods counted per domain."""

    key: str
    skew: int
    hard: bool
    matches_self: bool
    min_domains: int
    counts: Mapping[str, int]

    def minimum(self) -> int:
        """The smallest count of any domain; 0 when there are fewer domains than asked for."""
        return 0 if len(self.counts) < self.min_domains else min(self.counts.values(), default=0)


@dataclass(frozen=True)
class Context:
    """What is counted once for a pod before the nodes are looked at."""

    constraints: tuple[Constraint, ...]
    affinity: tuple[tuple[Object, frozenset[Domain], bool], ...]
    forbidden: frozenset[Domain]
    repelled: frozenset[Domain]
    preferred: Mapping[Domain, int]


def context(pod: PodFacts, snapshot: Snapshot, namespaces: Mapping[str, Object]) -> Context:
    """Counts for one pod over all nodes."""
    nodes = snapshot.nodes.values()
    spreads = pod.spec.get("topologySpreadConstraints") or ()
    constraints = tuple(_constraint(pod, spread, nodes) for spread in spreads)
    affinity = tuple(_affinity(term, pod, nodes, namespaces) for term in pod.affinity("podAffinity", "required"))
    forbidden = _domains_of(pod, pod.affinity("podAntiAffinity", "required"), nodes, namespaces)
    return Context(
        constraints, affinity, forbidden, _repelled(pod, nodes, namespaces), _preferred(pod, nodes, namespaces)
    )


def _constraint(pod: PodFacts, spread: Object, nodes: Iterable[NodeFacts]) -> Constraint:
    selector = from_object(spread.get("labelSelector"))
    extra = {k: pod.labels[k] for k in spread.get("matchLabelKeys") or () if k in pod.labels}
    namespace = objects.namespace(pod.obj)
    counts: dict[str, int] = {}
    for node in nodes:
        value = node.labels.get(spread["topologyKey"])
        if value is None or not _included(pod, spread, node):
            continue
        counts[value] = counts.get(value, 0) + _matching(node, namespace, selector, extra)
    return Constraint(
        spread["topologyKey"],
        int(spread["maxSkew"]),
        spread.get("whenUnsatisfiable", _HARD) == _HARD,
        selector.matches(pod.labels),
        int(spread.get("minDomains") or 1),
        counts,
    )


def _included(pod: PodFacts, spread: Object, node: NodeFacts) -> bool:
    if spread.get("nodeAffinityPolicy", "Honor") == "Honor" and not fits(pod.spec, node.obj):
        return False
    honors = spread.get("nodeTaintsPolicy", "Ignore") == "Honor"
    return not (honors and untolerated(pod, node, ("NoSchedule", "NoExecute")))


def _matching(node: NodeFacts, namespace: str, selector: LabelSelector, extra: Mapping[str, str]) -> int:
    return sum(
        1
        for other in node.pods.values()
        if objects.namespace(other.obj) == namespace
        and not objects.is_deleting(other.obj)
        and selector.matches(other.labels)
        and extra.items() <= other.labels.items()
    )


def _domains_of(
    pod: PodFacts, terms: Iterable[Object], nodes: Iterable[NodeFacts], namespaces: Mapping[str, Object]
) -> frozenset[Domain]:
    """The domains in which a pod runs that one of the pod's terms selects."""
    found: set[Domain] = set()
    for term in terms:
        for node in nodes:
            value = node.labels.get(term["topologyKey"])
            if value is not None and any(term_matches(term, pod, o, namespaces) for o in node.pods.values()):
                found.add((term["topologyKey"], value))
    return frozenset(found)


def _affinity(
    term: Object, pod: PodFacts, nodes: Iterable[NodeFacts], namespaces: Mapping[str, Object]
) -> tuple[Object, frozenset[Domain], bool]:
    """A required term, the domains that satisfy it, and whether the pod itself would (the first of a series may)."""
    return term, _domains_of(pod, [term], nodes, namespaces), term_matches(term, pod, pod, namespaces)


def _repelled(pod: PodFacts, nodes: Iterable[NodeFacts], namespaces: Mapping[str, Object]) -> frozenset[Domain]:
    """The domains in which a running pod's required anti-affinity selects this pod."""
    found: set[Domain] = set()
    for node in nodes:
        for other in node.with_affinity:
            for term in other.affinity("podAntiAffinity", "required"):
                value = node.labels.get(term["topologyKey"])
                if value is not None and term_matches(term, other, pod, namespaces):
                    found.add((term["topologyKey"], value))
    return frozenset(found)


def _preferred(pod: PodFacts, nodes: Iterable[NodeFacts], namespaces: Mapping[str, Object]) -> Mapping[Domain, int]:
    """Weight by domain, from the pod's own preferred terms and those of running pods."""
    weights: dict[Domain, int] = {}
    own = [(1, t) for t in pod.affinity("podAffinity", "preferred")]
    own += [(-1, t) for t in pod.affinity("podAntiAffinity", "preferred")]
    for node in nodes:
        for sign, weighted in own:
            term = weighted["podAffinityTerm"]
            hits = sum(1 for other in node.pods.values() if term_matches(term, pod, other, namespaces))
            _weigh(weights, node, term, sign * weighted["weight"] * hits)
        for other in node.with_affinity:
            for sign, kind in ((1, "podAffinity"), (-1, "podAntiAffinity")):
                for weighted in other.affinity(kind, "preferred"):
                    if term_matches(weighted["podAffinityTerm"], other, pod, namespaces):
                        _weigh(weights, node, weighted["podAffinityTerm"], sign * weighted["weight"])
    return weights


def _weigh(weights: dict[Domain, int], node: NodeFacts, term: Object, weight: int) -> None:
    value = node.labels.get(term["topologyKey"])
    if value is not None and weight:
        domain = (term["topologyKey"], value)
        weights[domain] = weights.get(domain, 0) + weight
