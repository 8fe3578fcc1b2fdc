"""Endpoints (v1): the older form of EndpointSlices, one object per Service, which clients still read."""

from __future__ import annotations

from collections.abc import Sequence

from k3s.api import object as objects
from k3s.api.object import Object, evolve
from k3s.controllers import pods, service_pods
from k3s.controllers.actions import NOTHING, Create, Decision, Update, delete
from k3s.controllers.known import ENDPOINTS, POD, SERVICE
from k3s.controllers.service_pods import HEADLESS
from k3s.controllers.spec import ControllerSpec, Watch, own_key
from k3s.controllers.world import World

MANAGED_BY = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MOST_ADDRESSES = 1000


def decide(key: str, world: World, now: float) -> Decision:
    """Decides a Service."""
    service, existing = world.get(SERVICE, key), world.get(ENDPOINTS, key)
    if service is None:
        ours = existing is not None and objects.labels(existing).get(MANAGED_BY) == MANAGER
        return Decision([delete(ENDPOINTS, existing)]) if ours and existing is not None else NOTHING
    if not service_pods.is_managed(service) or objects.is_deleting(service):
        return NOTHING
    subsets, cut = _subsets(service, world)
    labels = {**{k: v for k, v in objects.labels(service).items() if k != HEADLESS}, MANAGED_BY: MANAGER}
    if service_pods.is_headless(service):
        labels[HEADLESS] = ""
    if existing is None:
        meta: Object = {"name": objects.name(service), "namespace": objects.namespace(service), "labels": labels}
        if cut:
            meta["annotations"] = {OVER_CAPACITY: "truncated"}
        new: Object = {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta}
        return Decision([Create(ENDPOINTS, {**new, "subsets": subsets} if subsets else new)])
    notes = {k: v for k, v in objects.annotations(existing).items() if k != OVER_CAPACITY}
    if cut:
        notes[OVER_CAPACITY] = "truncated"
    same = objects.labels(existing) == labels and objects.annotations(existing) == notes
    if same and (existing.get("subsets") or []) == subsets:
        return NOTHING
    changed = evolve(evolve(existing, ("metadata", "labels"), labels), ("subsets",), subsets)
    return Decision([Update(ENDPOINTS, evolve(changed, ("metadata", "annotations"), notes) if notes else changed)])


def _subsets(service: Object, world: World) -> tuple[list[Object], bool]:
    """The addresses grouped by their ports, and whether some had to be left out."""
    family = (service["spec"].get("ipFamilies") or ["IPv4"])[0]
    tolerant = service["spec"].get("publishNotReadyAddresses", False)
    groups: dict[tuple[tuple[str, int, str, str], ...], tuple[list[Object], list[Object]]] = {}
    found = [
        pod
        for pod in service_pods.members(service, world)
        if service_pods.address(pod, family) and (tolerant or not objects.is_deleting(pod))
    ]
    # Ready ones are the last to be left out.
    ordered = sorted(found, key=lambda pod: not pods.is_ready(pod))[:MOST_ADDRESSES]
    for pod in ordered:
        ports = service_pods.ports(pod, service)
        if not ports and not service_pods.is_headless(service):
            continue
        ready, not_ready = groups.setdefault(ports, ([], []))
        (ready if tolerant or pods.is_ready(pod) else not_ready).append(_address(pod, family, service))
    return [_subset(ports, *groups[ports]) for ports in sorted(groups)], len(found) > MOST_ADDRESSES


def _address(pod: Object, family: str, service: Object) -> Object:
    ip: Object = {"ip": service_pods.address(pod, family)}
    if host := service_pods.hostname(pod, service):
        ip["hostname"] = host
    if node := pod["spec"].get("nodeName"):
        ip["nodeName"] = node
    return {**ip, "targetRef": service_pods.target(pod)}


def _subset(ports: Sequence[tuple[str, int, str, str]], ready: list[Object], not_ready: list[Object]) -> Object:
    subset: Object = {}
    if ready:
        subset["addresses"] = sorted(ready, key=lambda found: str(found["ip"]))
    if not_ready:
        subset["notReadyAddresses"] = sorted(not_ready, key=lambda found: str(found["ip"]))
    if ports:
        subset["ports"] = [_port(*row) for row in ports]
    return subset


def _port(name: str, number: int, protocol: str, app_protocol: str) -> Object:
    port: Object = {"name": name} if name else {}
    port |= {"port": number, "protocol": protocol}
    return {**port, "appProtocol": app_protocol} if app_protocol else port


SPECS = (
    ControllerSpec(
        name="endpoints-controller",
        decide=decide,
        kind=SERVICE,
        watches=(Watch(POD, service_pods.services_of), Watch(ENDPOINTS, own_key)),
        account="endpoint-controller",
    ),
)
