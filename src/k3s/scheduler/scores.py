"""Which of the nodes that fit is best: one small function per upstream plugin, 0 to 100 each, weighted. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from k3s.api import object as objects
from k3s.api.nodeselectors import term_fits
from k3s.api.taints import untolerated
from k3s.scheduler.snapshot import NodeFacts, PodFacts
from k3s.scheduler.spread import Context

_BEST = 100
_MIB = 1024 * 1024

Score = Callable[[PodFacts, Sequence[NodeFacts], Context], Mapping[str, float]]


def _scaled(raw: Mapping[str, float], reverse: bool = False) -> Mapping[str, float]:
    """Values brought to 0..100 by the largest; reversed, the smallest is best."""
    top = max(raw.values(), default=0)
    if top == 0:
        return dict.fromkeys(raw, _BEST if reverse else 0)
    return {name: (_BEST - value * _BEST / top) if reverse else value * _BEST / top for name, value in raw.items()}


def taint_toleration(pod: PodFacts, nodes: Sequence[NodeFacts], context: Context) -> Mapping[str, float]:
    """Fewer untolerated PreferNoSchedule taints are better."""
    tolerations = pod.spec.get("tolerations") or ()
    raw = {node.name: float(len(untolerated(node.taints, tolerations, ("PreferNoSchedule",)))) for node in nodes}
    return _scaled(raw, reverse=True)


def node_affinity(pod: PodFacts, nodes: Sequence[NodeFacts], context: Context) -> Mapping[str, float]:
    """The weights of the preferred node affinity terms that match."""
    path = ("affinity", "nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution")
    terms = objects.get(pod.spec, *path) or ()
    raw = {n.name: float(sum(t["weight"] for t in terms if term_fits(t["preference"], n.obj))) for n in nodes}
    return _scaled(raw)


def _used(pod: PodFacts, node: NodeFacts) -> list[float]:
    """The share of CPU and of memory that would be used with the pod on the node."""
    shares = []
    for position, name in enumerate(("cpu", "memory")):
        capacity = node.allocatable.get(name, 0)
        if capacity:
            shares.append(min(1.0, (node.scored[position] + pod.scored[position]) / capacity))
    return shares


def least_allocated(pod: PodFacts, nodes: Sequence[NodeFacts], context: Context) -> Mapping[str, float]:
    """More free CPU and memory is better (NodeResourcesFit, strategy LeastAllocated)."""
    return {n.name: sum((1 - u) * _BEST for u in _used(pod, n)) / max(1, len(_used(pod, n))) for n in nodes}


def balanced_allocation(pod: PodFacts, nodes: Sequence[NodeFacts], context: Context) -> Mapping[str, float]:
    """CPU and memory used to the same degree are better."""
    found = {}
    for node in nodes:
        shares = _used(pod, node)
        mean = sum(shares) / len(shares) if shares else 0
        deviation = math.sqrt(sum((s - mean) ** 2 for s in shares) / len(shares)) if shares else 0
        found[node.name] = (1 - deviation) * _BEST
    return found


def pod_topology_spread(pod: PodFacts, nodes: Sequence[NodeFacts], context: Context) -> Mapping[str, float]:
    """Fewer matching pods in the node's domains are better, for constraints that are wishes."""
    soft = [c for c in context.constraints if not c.hard]
    if not soft:
        return dict.fromkeys((n.name for n in nodes), 0)
    raw = {n.name: float(sum(c.counts.get(n.labels.get(c.key, ""), 0) for c in soft)) for n in nodes}
    return _scaled(raw, reverse=True)


def inter_pod_affinity(pod: PodFacts, nodes: Sequence[NodeFacts], context: Context) -> Mapping[str, float]:
    """The weights of preferred (anti-)affinity in the node's domains."""
    raw = (
        {n.name: sum(context.preferred.get(d, 0) for d in n.labels.items()) for n in nodes} if context.preferred else {}
    )
    low, high = min(raw.values(), default=0), max(raw.values(), default=0)
    if low == high:
        return dict.fromkeys((n.name for n in nodes), 0)
    return {name: _BEST * (value - low) / (high - low) for name, value in raw.items()}


def image_locality(pod: PodFacts, nodes: Sequence[NodeFacts], context: Context) -> Mapping[str, float]:
    """More bytes of the pod's images on the node are better, between 23 and 1000 MiB a container."""
    wanted = [c.get("image", "") for c in pod.spec.get("containers", ())]
    low, high = 23 * _MIB, 1000 * _MIB * max(1, len(wanted))
    found = {}
    for node in nodes:
        held = sum(node.images.get(image, 0) for image in wanted)
        found[node.name] = _BEST * (min(max(held, low), high) - low) / (high - low)
    return found


# Weights as upstream's default profile.
SCORES: tuple[tuple[Score, int], ...] = (
    (taint_toleration, 3),
    (node_affinity, 2),
    (least_allocated, 1),
    (pod_topology_spread, 2),
    (inter_pod_affinity, 2),
    (balanced_allocation, 1),
    (image_locality, 1),
)


def total(pod: PodFacts, nodes: Sequence[NodeFacts], context: Context) -> dict[str, float]:
    """The weighted sum of all scores by node."""
    sums = {node.name: 0.0 for node in nodes}
    for score, weight in SCORES:
        for name, value in score(pod, nodes, context).items():
            sums[name] += weight * value
    return sums
