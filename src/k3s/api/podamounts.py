"""What a pod asks for in all, and what it may use at most: sums over its containers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k3s.api import quantity
from k3s.api.object import Object
from k3s.api.quantity import Quantity

Amounts = Mapping[str, Quantity]
# What a pod may ask for as a whole, instead of by container.
_POD_LEVEL = ("cpu", "memory")


def parsed(amounts: Mapping[str, Any] | None) -> dict[str, Quantity]:
    """Amounts by name, read."""
    return {name: quantity.parse(text) for name, text in (amounts or {}).items()}


def amounts_of(holder: Object, field: str) -> dict[str, Quantity]:
    """`requests` or `limits` of a container, a claim or a pod."""
    return parsed((holder.get("resources") or {}).get(field))


def add(total: dict[str, Quantity], amounts: Amounts) -> None:
    """Adds amounts to a total in place."""
    for name, amount in amounts.items():
        total[name] = total.get(name, quantity.ZERO) + amount


def pod_total(spec: Object, field: str) -> dict[str, Quantity]:
    """What a pod asks for (`requests`) or is limited to (`limits`): all containers and sidecars, or the init peak.

    What the pod asks for as a whole counts instead of what its containers do. Its overhead is not in it.
    """
    total: dict[str, Quantity] = {}
    for container in spec.get("containers") or ():
        add(total, amounts_of(container, field))
    sidecars: dict[str, Quantity] = {}
    peak: dict[str, Quantity] = {}
    for container in spec.get("initContainers") or ():
        amounts = amounts_of(container, field)
        if container.get("restartPolicy") == "Always":
            add(total, amounts)
            add(sidecars, amounts)
            amounts = sidecars
        else:
            amounts = {n: amounts.get(n, quantity.ZERO) + sidecars.get(n, quantity.ZERO) for n in {*amounts, *sidecars}}
        for name, amount in amounts.items():
            peak[name] = max(peak.get(name, quantity.ZERO), amount)
    for name, amount in peak.items():
        total[name] = max(total.get(name, quantity.ZERO), amount)
    if spec.get("resources"):
        whole = amounts_of(spec, field)
        total |= {n: a for n, a in whole.items() if n in _POD_LEVEL or n.startswith("hugepages-")}
    return total
