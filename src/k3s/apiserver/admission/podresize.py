"""PodResizeValidator: a running pod is not resized to more than its node has.

Source: KEP-1287 (in-place update of pod resources); texts as upstream's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3s.api import quantity
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.api.podamounts import add, pod_total
from k3s.apiserver.admission.chain import UPDATE, Plugin, refuse
from k3s.apiserver.admits import AdmissionRequest

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

NODE = builtin("v1", "Node")
#: Resource -> nanounits of what it is counted in: thousandths of a processor, and bytes.
_COUNTED = {"cpu": 10**6, "memory": quantity.NANO}


class PodResizeValidator(Plugin):
    """Looks at the node of a pod whose resources are changed."""

    name = "PodResizeValidator"
    resources = frozenset({"pods"})
    validates = frozenset({UPDATE})

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def validate(self, request: AdmissionRequest) -> None:
        pod, old = request.obj, request.old
        if request.subresource != "resize" or pod is None or old is None or pod["spec"] == old["spec"]:
            return
        name = pod["spec"].get("nodeName")
        if not name:
            return
        node = self._reader.get(NODE, "", name)
        if node is None:
            raise refuse(request, f'node "{name}" not found')
        short = list(_short(pod["spec"], (node.get("status") or {}).get("allocatable") or {}))
        if short:
            raise refuse(request, f"Node didn't have enough allocatable resources: {'; '.join(short)}")


def _short(spec: Object, allocatable: Object) -> list[str]:
    """What a pod wants more of than there is."""
    wanted = pod_total(spec, "requests")
    add(wanted, {name: quantity.parse(amount) for name, amount in (spec.get("overhead") or {}).items()})
    found = []
    for resource, unit in _COUNTED.items():
        asked, there = (
            -(-amount.nano // unit)
            for amount in (
                wanted.get(resource, quantity.ZERO),
                quantity.parse(allocatable[resource]) if resource in allocatable else quantity.ZERO,
            )
        )
        if asked > there:
            found.append(f"{resource}, requested: {asked}, allocatable: {there}")
    return found
