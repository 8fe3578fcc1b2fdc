"""EndpointSlices: the addresses behind each Service with a selector, in slices of at most 100.

Source: the API documentation of discovery.k8s.io/v1, KEP-752 (slices), KEP-1672 (serving and terminating).
"""

from __future__ import annotations

from collections.abc import Iterable

from k3s.api import object as objects
from k3s.api.object import Object
from k3s.controllers import pods, service_pods, slices
from k3s.controllers.actions import NOTHING, Decision
from k3s.controllers.known import ENDPOINT_SLICE, NODE, POD, SERVICE
from k3s.controllers.service_pods import HEADLESS
from k3s.controllers.spec import ControllerSpec, Watch
from k3s.controllers.world import SERVICE_NAME, World

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
_ZONE = "topology.kubernetes.io/zone"


def decide(key: str, world: World, now: float) -> Decision:
    """Decides a Service. Slices of a Service that is gone are the garbage collector's."""
    service = world.get(SERVICE, key)
    if service is None or not service_pods.is_managed(service) or objects.is_deleting(service):
        return NOTHING
    existing = [piece for piece in world.slices_of(key) if objects.labels(piece).get(MANAGED_BY) == MANAGER]
    return Decision(slices.changes(_owner(service), desired(service, world), existing))


def desired(service: Object, world: World) -> dict[slices.Group, dict[str, Object]]:
    """The endpoints by address type and ports, in each group by pod uid."""
    members = service_pods.members(service, world)
    groups: dict[slices.Group, dict[str, Object]] = {}
    for family in service["spec"].get("ipFamilies") or ["IPv4"]:
        empty = True
        for pod in members:
            ip = service_pods.address(pod, family)
            if ip:
                group = (family, service_pods.ports(pod, service))
                groups.setdefault(group, {})[objects.uid(pod)] = endpoint(pod, ip, service, world)
                empty = False
        if empty:
            # Consumers take one empty slice for "nothing is behind it", and none for "not known yet".
            groups[family, ()] = {}
    return groups


def endpoint(pod: Object, ip: str, service: Object, world: World) -> Object:
    """One address with its conditions."""
    serving, terminating = pods.is_ready(pod), objects.is_deleting(pod)
    ready = service["spec"].get("publishNotReadyAddresses", False) or (serving and not terminating)
    found: Object = {
        "addresses": [ip],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
    }
    if host := service_pods.hostname(pod, service):
        found["hostname"] = host
    if node_name := pod["spec"].get("nodeName"):
        found["nodeName"] = node_name
        node = world.get(NODE, node_name)
        zone = objects.labels(node).get(_ZONE) if node is not None else None
        if zone:
            found["zone"] = zone
    found["targetRef"] = service_pods.target(pod)
    return found


def _owner(service: Object) -> slices.Owner:
    reserved = (SERVICE_NAME, MANAGED_BY, HEADLESS)
    own = {key: value for key, value in objects.labels(service).items() if key not in reserved}
    if service_pods.is_headless(service):
        own[HEADLESS] = ""
    return slices.Owner(service, {**own, SERVICE_NAME: objects.name(service), MANAGED_BY: MANAGER})


def _service_of_slice(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
    found: dict[str, None] = {}
    for piece in (old, new):
        if piece is not None and (name := objects.labels(piece).get(SERVICE_NAME)):
            found[f"{objects.namespace(piece)}/{name}"] = None
    return found


SPECS = (
    ControllerSpec(
        name="endpointslice-controller",
        decide=decide,
        kind=SERVICE,
        watches=(Watch(POD, service_pods.services_of), Watch(ENDPOINT_SLICE, _service_of_slice)),
        reads=(NODE,),
        account="endpointslice-controller",
    ),
)
