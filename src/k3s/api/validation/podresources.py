"""Rules for the resources that the containers of a pod share. Source: KEP-2837 and the Pod API documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k3s.api import quantity
from k3s.api.validation import resources
from k3s.api.validation.causes import Causes, forbidden, invalid

Spec = Mapping[str, Any]


def check(field: str, spec: Spec) -> Causes:
    """The resources of a pod as a whole, against those of its containers."""
    whole = spec["resources"]
    if (spec.get("os") or {}).get("name") == "windows":
        yield forbidden(field, "may not be set for a windows pod")
        return
    if whole.get("claims") is not None:
        yield forbidden(f"{field}.claims", "claims may not be set for Resources at pod-level")
    yield from resources.requirements(field, whole, (), resources.pod_name)
    requests, limits = whole.get("requests") or {}, whole.get("limits") or {}
    for name, total in sorted(aggregate(spec, "requests").items()):
        if name in requests and quantity.compare(total, requests[name]) > 0:
            why = f"must be greater than or equal to aggregate container requests of {total}"
            yield invalid(f"{field}.requests[{name}]", requests[name], why)
    for name, total in sorted(aggregate(spec, "limits").items()):
        if resources.is_huge_page(name) and name in limits and quantity.compare(total, limits[name]) > 0:
            why = f"must be greater than or equal to aggregate container limits of {total}"
            yield invalid(f"{field}.limits[{name}]", limits[name], why)
    for i, container in enumerate(spec.get("containers") or ()):
        for name, text in ((container.get("resources") or {}).get("limits") or {}).items():
            if name in limits and quantity.compare(text, limits[name]) > 0:
                at = f"{field}.containers[{i}][{name}].limits"
                yield invalid(at, text, f"must be less than or equal to pod limits of {limits[name]}")


def aggregate(spec: Spec, side: str) -> dict[str, str]:
    """What the containers need at the same time: all of them, or one that runs before them with its sidecars."""
    total: dict[str, str] = {}
    for container in spec.get("containers") or ():
        _add(total, _amounts(container, side))
    beside: dict[str, str] = {}
    peak: dict[str, str] = {}
    for container in spec.get("initContainers") or ():
        amounts = _amounts(container, side)
        if container.get("restartPolicy") == "Always":
            _add(total, amounts)
            _add(beside, amounts)
            amounts = dict(beside)
        else:
            amounts = dict(amounts)
            _add(amounts, beside)
        for name, text in amounts.items():
            if name not in peak or quantity.compare(text, peak[name]) > 0:
                peak[name] = text
    for name, text in peak.items():
        if name not in total or quantity.compare(text, total[name]) > 0:
            total[name] = text
    return total


def _amounts(container: Spec, side: str) -> Mapping[str, str]:
    found: Mapping[str, str] = (container.get("resources") or {}).get(side) or {}
    return found


def _add(total: dict[str, str], amounts: Mapping[str, str]) -> None:
    for name, text in amounts.items():
        total[name] = quantity.add(total[name], text) if name in total else text
