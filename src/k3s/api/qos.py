"""The class of service of a pod, from what its containers ask for. Pure."""

from __future__ import annotations

from k3s.api import quantity
from k3s.api.object import Object

_COUNTED = ("cpu", "memory")


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
    found: dict[str, object] = {}
    for name in _COUNTED:
        if amounts and name in amounts:
            value = quantity.parse(amounts[name])
            if value.nano > 0:
                found[name] = value
    return found
