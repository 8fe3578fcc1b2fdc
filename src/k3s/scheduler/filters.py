"""Which nodes a pod fits on: one small function per upstream plugin, each answering the reasons why not. Pure."""

from __future__ import annotations

from collections.abc import Callable

from k3s.api.nodeselectors import fits
from k3s.api.taints import UNSCHEDULABLE
from k3s.api.taints import untolerated as not_tolerated
from k3s.scheduler.affinity import untolerated
from k3s.scheduler.snapshot import NodeFacts, PodFacts, Port
from k3s.scheduler.spread import Context

#: Reasons that evicting other pods cannot change (upstream: UnschedulableAndUnresolvable).
Filter = Callable[[PodFacts, NodeFacts, Context], list[str]]

_UNSCHEDULABLE_TAINT = {"key": UNSCHEDULABLE, "effect": "NoSchedule"}


def node_unschedulable(pod: PodFacts, node: NodeFacts, context: Context) -> list[str]:
    """A cordoned node takes only pods that tolerate it."""
    if node.unschedulable and not_tolerated([_UNSCHEDULABLE_TAINT], pod.spec.get("tolerations") or (), ("NoSchedule",)):
        return ["node(s) were unschedulable"]
    return []


def taint_toleration(pod: PodFacts, node: NodeFacts, context: Context) -> list[str]:
    """Every NoSchedule and NoExecute taint must be tolerated."""
    taint = untolerated(pod, node, ("NoSchedule", "NoExecute"))
    return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value') or ''}}}"] if taint else []


def node_affinity(pod: PodFacts, node: NodeFacts, context: Context) -> list[str]:
    """nodeSelector and required node affinity."""
    return [] if fits(pod.spec, node.obj) else ["node(s) didn't match Pod's node affinity/selector"]


def _clash(a: Port, b: Port) -> bool:
    return a[1:] == b[1:] and (a[0] == b[0] or "0.0.0.0" in (a[0], b[0]))


def node_ports(pod: PodFacts, node: NodeFacts, context: Context) -> list[str]:
    """No two pods share a host port."""
    taken = pod.ports and any(_clash(mine, other) for mine in pod.ports for other in node.ports)
    return ["node(s) didn't have free ports for the requested pod ports"] if taken else []


def node_resources_fit(pod: PodFacts, node: NodeFacts, context: Context) -> list[str]:
    """Requests of all pods together stay within what the node allots."""
    reasons = []
    if len(node.pods) + 1 > node.allocatable.get("pods", 0):
        reasons.append("Too many pods")
    for name, amount in pod.requests.items():
        if amount and amount > node.allocatable.get(name, 0) - node.requested.get(name, 0):
            reasons.append(f"Insufficient {name}")
    return reasons


def pod_topology_spread(pod: PodFacts, node: NodeFacts, context: Context) -> list[str]:
    """Hard spread constraints keep the skew between domains."""
    for constraint in context.constraints:
        if not constraint.hard:
            continue
        value = node.labels.get(constraint.key)
        if value is None:
            return ["node(s) didn't match pod topology spread constraints (missing required label)"]
        after = constraint.counts.get(value, 0) + (1 if constraint.matches_self else 0)
        if after - constraint.minimum() > constraint.skew:
            return ["node(s) didn't match pod topology spread constraints"]
    return []


def inter_pod_affinity(pod: PodFacts, node: NodeFacts, context: Context) -> list[str]:
    """Required affinity and anti-affinity, the pod's own and that of pods which run already."""
    domains = set(node.labels.items())
    first = all(not found and matches_self for _, found, matches_self in context.affinity)
    for term, found, _ in context.affinity:
        key = term["topologyKey"]
        if key not in node.labels or not (first or (key, node.labels[key]) in found):
            return ["node(s) didn't match pod affinity rules"]
    if context.forbidden & domains:
        return ["node(s) didn't match pod anti-affinity rules"]
    if context.repelled & domains:
        return ["node(s) didn't satisfy existing pods anti-affinity rules"]
    return []


# In upstream's order; the first filter that refuses a node gives its reasons.
FILTERS: tuple[Filter, ...] = (
    node_unschedulable,
    taint_toleration,
    node_affinity,
    node_ports,
    node_resources_fit,
    pod_topology_spread,
    inter_pod_affinity,
)

# What evicting pods cannot help against.
UNRESOLVABLE: frozenset[Filter] = frozenset((node_unschedulable, taint_toleration, node_affinity))


def refusal(pod: PodFacts, node: NodeFacts, context: Context) -> tuple[Filter | None, list[str]]:
    """The first filter that refuses the node, with its reasons; (None, []) when the pod fits."""
    for check in FILTERS:
        reasons = check(pod, node, context)
        if reasons:
            return check, reasons
    return None, []
