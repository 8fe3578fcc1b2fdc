"""Taints and tolerations: what keeps a pod from a node (core v1 Taint, Toleration)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from k3s.api import times
from k3s.api.object import Object

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
NETWORK_UNAVAILABLE = "node.kubernetes.io/network-unavailable"
MEMORY_PRESSURE = "node.kubernetes.io/memory-pressure"
DISK_PRESSURE = "node.kubernetes.io/disk-pressure"
PID_PRESSURE = "node.kubernetes.io/pid-pressure"


def taints_of(node: Object) -> list[Object]:
    """spec.taints, empty when there are none."""
    return node.get("spec", {}).get("taints") or []


def tolerates(toleration: Object, taint: Object) -> bool:
    """Whether a toleration covers a taint."""
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    if not toleration.get("key"):
        return False
    return bool(operator == "Equal" and (toleration.get("value") or "") == (taint.get("value") or ""))


def untolerated(taints: Iterable[Object], tolerations: Sequence[Object], effects: Sequence[str]) -> list[Object]:
    """The taints with these effects that no toleration covers."""
    return [
        taint
        for taint in taints
        if taint["effect"] in effects and not any(tolerates(toleration, taint) for toleration in tolerations)
    ]


def evicted_at(pod: Object, taints: Sequence[Object], now: float) -> float | None:
    """When a pod has to leave a node with these NoExecute taints: None for never, a time that may be past else."""
    tolerations = pod["spec"].get("tolerations") or []
    moments: list[float] = []
    for taint in taints:
        covering = [toleration for toleration in tolerations if tolerates(toleration, taint)]
        if not covering:
            return now
        limits = [limit for t in covering if (limit := t.get("tolerationSeconds")) is not None]
        if limits:
            added = times.parse(taint["timeAdded"]) if taint.get("timeAdded") else now
            moments.append(added + max(min(limits), 0))
    return min(moments) if moments else None
