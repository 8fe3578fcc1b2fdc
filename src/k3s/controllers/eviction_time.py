"""When a pod has to leave a node that has NoExecute taints (core v1 Toleration, tolerationSeconds)."""

from __future__ import annotations

from collections.abc import Sequence

from k3s.api import times
from k3s.api.object import Object
from k3s.api.taints import tolerates


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
