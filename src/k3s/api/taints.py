"""Taints and tolerations: what keeps a pod from a node (core v1 Taint, Toleration)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from k3s.api.object import Object

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
NETWORK_UNAVAILABLE = "node.kubernetes.io/network-unavailable"
MEMORY_PRESSURE = "node.kubernetes.io/memory-pressure"
DISK_PRESSURE = "node.kubernetes.io/disk-pressure"
PID_PRESSURE = "node.kubernetes.io/pid-pressure"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


def taints_of(node: Object) -> list[Object]:
    """spec.taints, empty when there are none."""
    return node.get("spec", {}).get("taints") or []


def tolerates(toleration: Object, taint: Object) -> bool:
    """Whether a toleration covers a taint."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    if not toleration.get("key"):
        return False
    wanted, found = toleration.get("value") or "", taint.get("value") or ""
    return bool(wanted == found) if operator == "Equal" else compares(operator, found, wanted)


def compares(operator: str, left: str, right: str) -> bool:
    """Gt and Lt of two texts that hold whole numbers; anything else never holds."""
    try:
        a, b = int(left), int(right)
    except ValueError:
        return False
    return a > b if operator == "Gt" else a < b if operator == "Lt" else False


def untolerated(taints: Iterable[Object], tolerations: Sequence[Object], effects: Sequence[str]) -> list[Object]:
    """The taints with these effects that no toleration covers."""
    return [
        taint
        for taint in taints
        if taint.get("effect") in effects and not any(tolerates(toleration, taint) for toleration in tolerations)
    ]
