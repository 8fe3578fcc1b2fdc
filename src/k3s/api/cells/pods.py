"""Cells of pods: the status that `kubectl get pods` shows is worked out from container states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k3s.api.cells.text import NONE, Age, created, is_true
from k3s.api.object import Object

State = Mapping[str, Any]


class _Counts:
    """Restarts and the time of the last one, of some containers of a pod."""

    __slots__ = ("last", "restarts")

    def __init__(self) -> None:
        self.restarts = 0
        self.last = ""

    def add(self, status: State) -> None:
        self.restarts += status.get("restartCount", 0)
        terminated = (status.get("lastState") or {}).get("terminated")
        if terminated:
            self.last = max(self.last, terminated.get("finishedAt") or "")

    def text(self, age: Age) -> str:
        if self.restarts and self.last:
            return f"{self.restarts} ({age(self.last)} ago)"
        return str(self.restarts)


def pod(obj: Object, age: Age) -> list[Any]:
    """name, ready, status, restarts, age, address, node, nominated node, readiness gates."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    sidecars = {c.get("name") for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    total = len(spec.get("containers") or ()) + len(sidecars)
    reason = status.get("reason") or status.get("phase") or ""
    for found in status.get("conditions") or ():
        if found.get("type") == "PodScheduled" and found.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    counts, sidecar_counts = _Counts(), _Counts()
    ready, initializing = 0, ""
    for position, state in enumerate(status.get("initContainerStatuses") or ()):
        counts.add(state)
        sidecar = state.get("name") in sidecars
        if sidecar:
            sidecar_counts.add(state)
        ready += bool(sidecar and state.get("started") and state.get("ready"))
        initializing = _init_reason(state, sidecar, position, len(spec.get("initContainers") or ()))
        if initializing:
            reason = initializing
            break
    if not initializing or is_true(obj, "Initialized"):
        counts = sidecar_counts
        more, reason = _containers(obj, counts, reason)
        ready += more
    reason = _deleting(obj, reason)
    ips = status.get("podIPs") or ()
    return [
        obj["metadata"].get("name", ""),
        f"{ready}/{total}",
        reason,
        counts.text(age),
        age(created(obj)),
        ips[0].get("ip", "") if ips else status.get("podIP") or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        _gates(spec, status),
    ]


def _init_reason(status: State, sidecar: bool, position: int, total: int) -> str:
    """Why this init container holds the pod up, empty when it does not."""
    state = status.get("state") or {}
    terminated, waiting = state.get("terminated"), state.get("waiting")
    if terminated is not None and not terminated.get("exitCode", 0):
        return ""
    if sidecar and status.get("started"):
        return ""
    if terminated is not None:
        return f"Init:{_exit(terminated)}"
    if waiting and waiting.get("reason") and waiting["reason"] != "PodInitializing":
        return f"Init:{waiting['reason']}"
    return f"Init:{position}/{total}"


def _exit(terminated: State) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _containers(obj: Object, counts: _Counts, reason: str) -> tuple[int, str]:
    """How many containers are ready, and the reason that the first one of note gives."""
    ready, running, failed = 0, False, ""
    for status in reversed(obj["status"].get("containerStatuses") or () if obj.get("status") else ()):
        counts.add(status)
        state = status.get("state") or {}
        waiting, terminated = state.get("waiting"), state.get("terminated")
        if waiting and waiting.get("reason"):
            reason = waiting["reason"]
        elif terminated is not None:
            reason = _exit(terminated)
            failed = reason if terminated.get("exitCode") else failed
        elif status.get("ready") and state.get("running") is not None:
            running = True
            ready += 1
    if reason != "Completed":
        return ready, reason
    if running and is_true(obj, "Ready"):
        return ready, "Running"
    return ready, failed or ("NotReady" if running else reason)


def _deleting(obj: Object, reason: str) -> str:
    status = obj.get("status") or {}
    if not obj["metadata"].get("deletionTimestamp"):
        return reason
    if status.get("reason") == "NodeLost":
        return "Unknown"
    return reason if status.get("phase") in ("Succeeded", "Failed") else "Terminating"


def _gates(spec: State, status: State) -> str:
    gates = spec.get("readinessGates")
    if not gates:
        return NONE
    true = {c.get("type") for c in status.get("conditions") or () if c.get("status") == "True"}
    return f"{sum(g.get('conditionType') in true for g in gates)}/{len(gates)}"


def conditions(obj: Object) -> list[dict[str, str]]:
    """The row conditions of a pod: one that ended is marked as completed."""
    phase = (obj.get("status") or {}).get("phase")
    if phase not in _ENDED:
        return []
    return [{"type": "Completed", "status": "True", "reason": phase, "message": _ENDED[phase]}]


_ENDED = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}
