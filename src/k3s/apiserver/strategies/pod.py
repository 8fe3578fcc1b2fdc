"""Pods: phase and class of service at their creation, grace at their end."""

from __future__ import annotations

from k3s.api import quantity
from k3s.api.object import Object
from k3s.apiserver.strategy import Context, Strategy

_COUNTED = ("cpu", "memory")


class PodStrategy(Strategy):
    """Rules of pods."""

    def prepare_create(self, context: Context, obj: Object) -> Object:
        return {**obj, "status": {"phase": "Pending", "qosClass": qos_class(obj)}}

    def grace(self, context: Context, obj: Object, asked: int | None) -> int | None:
        """What the client asked for or the pod says; nothing for a pod that runs nowhere or is over."""
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
            return 0
        period = asked if asked is not None else spec.get("terminationGracePeriodSeconds", 30)
        return 1 if period < 0 else int(period)

    def prepare_update(self, context: Context, old: Object, new: Object) -> Object:
        """The class of service is decided once."""
        was = (old.get("status") or {}).get("qosClass")
        status = new.get("status") or {}
        if was and status.get("qosClass") != was:
            return {**new, "status": {**status, "qosClass": was}}
        return new


def qos_class(pod: Object) -> str:
    """Guaranteed, Burstable or BestEffort, as "Pod Quality of Service Classes" defines them."""
    spec = pod.get("spec") or {}
    overall = spec.get("resources")
    if overall and any(overall.get(part) for part in ("requests", "limits")):
        parts = [overall]
    else:
        parts = [c.get("resources") or {} for c in (*spec.get("containers", ()), *spec.get("initContainers", ()))]
    some = False
    guaranteed = True
    for part in parts:
        requests, limits = _positive(part.get("requests")), _positive(part.get("limits"))
        some = some or bool(requests) or bool(limits)
        if len(limits) < len(_COUNTED) or any(requests.get(name, limits[name]) != limits[name] for name in limits):
            guaranteed = False
    if not some:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _positive(amounts: Object | None) -> dict[str, object]:
    found = {}
    for name in _COUNTED:
        if amounts and name in amounts:
            value = quantity.parse(str(amounts[name]))
            if value > 0:
                found[name] = value
    return found
