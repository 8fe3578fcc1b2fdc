"""Which pods of lower priority would have to go for a pod, on the node where that hurts least. Pure.

Rule and order of choice: upstream's DefaultPreemption plugin (facts: scheduler, preemption.pickOrder).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from k3s.api import object as objects
from k3s.api.object import Object
from k3s.scheduler import filters
from k3s.scheduler.snapshot import NodeFacts, PodFacts, Snapshot
from k3s.scheduler.spread import context


@dataclass(frozen=True, slots=True)
class Victims:
    """The pods to evict from a node, most important first."""

    node: str
    pods: tuple[PodFacts, ...]


def find_victims(
    pod: PodFacts, snapshot: Snapshot, namespaces: Mapping[str, Object], candidates: Sequence[str]
) -> Victims | None:
    """The cheapest node among the candidates, or None when evicting helps on none."""
    found = [v for name in candidates if (v := _victims(pod, snapshot, namespaces, snapshot.nodes[name])) is not None]
    return min(found, key=_cost, default=None)


def _victims(pod: PodFacts, snapshot: Snapshot, namespaces: Mapping[str, Object], node: NodeFacts) -> Victims | None:
    lower = [other for other in node.pods.values() if other.priority < pod.priority]
    if not lower or any(objects.is_deleting(other.obj) for other in lower):
        # Pods that are on their way out already may make the room: wait for them.
        return None
    left = node.without([other.key for other in lower])
    if not _fits(pod, snapshot, namespaces, left):
        return None
    evicted: list[PodFacts] = []
    for other in sorted(lower, key=lambda p: (-p.priority, _started(p))):
        kept = left.with_pod(other)
        if _fits(pod, snapshot, namespaces, kept):
            left = kept
        else:
            evicted.append(other)
    return Victims(node.name, tuple(evicted)) if evicted else None


def _fits(pod: PodFacts, snapshot: Snapshot, namespaces: Mapping[str, Object], node: NodeFacts) -> bool:
    changed = replace(snapshot, nodes={**snapshot.nodes, node.name: node})
    check, _ = filters.refusal(pod, node, context(pod, changed, namespaces))
    return check is None


def _started(pod: PodFacts) -> str:
    return str(pod.obj.get("status", {}).get("startTime") or pod.obj["metadata"].get("creationTimestamp", ""))


def _cost(victims: Victims) -> tuple[int, int, int, str]:
    priorities = [p.priority for p in victims.pods]
    youngest = max((_started(p) for p in victims.pods if p.priority == max(priorities)), default="")
    # A later start is better to evict: invert the text so that the larger sorts first.
    return max(priorities), sum(priorities), len(priorities), "".join(chr(255 - ord(c)) for c in youngest)
