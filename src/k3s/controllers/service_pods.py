"""Which pods stand behind a Service, at which addresses and ports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from k3s.api import object as objects
from k3s.api.object import Object
from k3s.controllers import pods
from k3s.controllers.world import World

#: Set on what belongs to a Service without a cluster address.
HEADLESS = "service.kubernetes.io/headless"


def is_headless(service: Object) -> bool:
    """Whether the Service has no cluster address by its own wish."""
    return bool(service["spec"].get("clusterIP") == "None")


def is_managed(service: Object) -> bool:
    """Whether endpoints follow from a selector; otherwise they are the user's."""
    return bool(service["spec"].get("selector")) and service["spec"].get("type") != "ExternalName"


def members(service: Object, world: World) -> list[Object]:
    """The pods that the selector matches and that have not ended, by name."""
    found = world.pods_with(objects.namespace(service), service["spec"]["selector"])
    return sorted((pod for pod in found if not pods.is_finished(pod)), key=objects.name)


def address(pod: Object, family: str) -> str:
    """The pod's address of a family (IPv4 or IPv6), empty while it has none."""
    status = pod.get("status", {})
    listed = [entry["ip"] for entry in status.get("podIPs") or ()] or [status.get("podIP", "")]
    return next((ip for ip in listed if ip and (":" in ip) == (family == "IPv6")), "")


def hostname(pod: Object, service: Object) -> str:
    """The name under which DNS knows the pod inside a headless Service, empty when it has none of its own."""
    spec = pod["spec"]
    if spec.get("hostname") and spec.get("subdomain") == objects.name(service):
        return str(spec["hostname"])
    return ""


def target(pod: Object) -> Object:
    """The reference from an endpoint to its pod."""
    meta = pod["metadata"]
    return {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}


def port_number(pod: Object, port: Object) -> int | None:
    """The number of a Service's target port in this pod; None when the pod has no port of that name."""
    wanted: Any = port.get("targetPort", port["port"])
    if isinstance(wanted, int):
        return wanted or int(port["port"])
    for container in _containers(pod):
        for offered in container.get("ports") or ():
            if offered.get("name") == wanted and offered.get("protocol", "TCP") == port.get("protocol", "TCP"):
                return int(offered["containerPort"])
    return None


def _containers(pod: Object) -> Iterable[Object]:
    yield from pod["spec"].get("containers") or ()
    for container in pod["spec"].get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            yield container


def ports(pod: Object, service: Object) -> tuple[tuple[str, int, str, str], ...]:
    """(name, number, protocol, appProtocol) of each port of the Service in this pod."""
    found = []
    for port in service["spec"].get("ports") or ():
        number = port_number(pod, port)
        if number is not None:
            found.append((port.get("name", ""), number, port.get("protocol", "TCP"), port.get("appProtocol", "")))
    return tuple(sorted(found))


def same_for_services(old: Object | None, new: Object | None) -> bool:
    """True when nothing changed that an endpoint shows: addresses, readiness, labels, node, deletion."""
    if old is None or new is None or not pods.same_for_owner(old, new):
        return False
    was, is_ = old.get("status", {}), new.get("status", {})
    return all(was.get(part) == is_.get(part) for part in ("podIP", "podIPs"))


def services_of(old: Object | None, new: Object | None, world: World) -> Sequence[str]:
    """The keys of the Services that a change of a pod concerns."""
    if same_for_services(old, new):
        return ()
    found: dict[str, None] = {}
    for pod in pods.sides(old, new):
        found |= dict.fromkeys(map(objects.key, world.services_selecting(pod)))
    return list(found)
