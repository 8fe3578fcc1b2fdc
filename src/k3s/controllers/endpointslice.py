"""EndpointSlices: the addresses behind each Service with a selector, in slices of at most 100.

Source: the API documentation of discovery.k8s.io/v1, KEP-752 (slices), KEP-1672 (serving and terminating).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from k3s.api import object as objects
from k3s.api.object import Object
from k3s.controllers import pods, service_pods
from k3s.controllers.actions import NOTHING, Action, Create, Decision, Update, delete
from k3s.controllers.known import ENDPOINT_SLICE, NODE, POD, SERVICE
from k3s.controllers.service_pods import HEADLESS
from k3s.controllers.spec import ControllerSpec, Watch
from k3s.controllers.world import SERVICE_NAME, World

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
MOST_ENDPOINTS = 100
_ZONE = "topology.kubernetes.io/zone"

Ports = tuple[tuple[str, int, str, str], ...]
Group = tuple[str, Ports]


def decide(key: str, world: World, now: float) -> Decision:
    """Decides a Service. Slices of a Service that is gone are the garbage collector's."""
    service = world.get(SERVICE, key)
    if service is None or not service_pods.is_managed(service) or objects.is_deleting(service):
        return NOTHING
    existing = [piece for piece in world.slices_of(key) if objects.labels(piece).get(MANAGED_BY) == MANAGER]
    return Decision(_changes(service, desired(service, world), existing))


def desired(service: Object, world: World) -> dict[Group, dict[str, Object]]:
    """The endpoints by address type and ports, in each group by pod uid."""
    members = service_pods.members(service, world)
    groups: dict[Group, dict[str, Object]] = {}
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


def _group_of(piece: Object) -> Group:
    rows = [
        (port.get("name") or "", port.get("port") or 0, port.get("protocol") or "TCP", port.get("appProtocol") or "")
        for port in piece.get("ports") or ()
    ]
    return piece["addressType"], tuple(sorted(rows))


def _changes(service: Object, wanted: dict[Group, dict[str, Object]], existing: Sequence[Object]) -> list[Action]:
    by_group: dict[Group, list[Object]] = {}
    for piece in sorted(existing, key=objects.name):
        by_group.setdefault(_group_of(piece), []).append(piece)
    actions: list[Action] = []
    leftover = [piece for group, pieces in by_group.items() if group not in wanted for piece in pieces]
    for group, endpoints in wanted.items():
        actions += _group_changes(service, group, endpoints, by_group.get(group, []))
    # What replaces them comes first, so that no moment has no endpoints.
    return actions + [delete(ENDPOINT_SLICE, piece) for piece in leftover if not objects.is_deleting(piece)]


def _group_changes(
    service: Object, group: Group, endpoints: dict[str, Object], existing: Sequence[Object]
) -> list[Action]:
    """Keeps endpoints where they are, fills what has room, makes new slices for the rest, drops empty ones."""
    missing = dict(endpoints)
    filled: list[tuple[Object, list[Object]]] = []
    for piece in existing:
        kept = [
            new
            for old in piece.get("endpoints") or ()
            if (new := missing.pop((old.get("targetRef") or {}).get("uid", ""), None)) is not None
        ]
        filled.append((piece, kept))
    rest = list(missing.values())
    actions: list[Action] = []
    alive = 0
    for piece, kept in filled:
        room = MOST_ENDPOINTS - len(kept)
        kept += rest[:room]
        rest = rest[room:]
        if kept or (piece is filled[-1][0] and not alive and not rest):
            alive += 1
            actions += _update(service, piece, kept)
        else:
            actions.append(delete(ENDPOINT_SLICE, piece))
    chunks = [rest[at : at + MOST_ENDPOINTS] for at in range(0, len(rest), MOST_ENDPOINTS)]
    if not chunks and not alive:
        chunks = [[]]
    return actions + [Create(ENDPOINT_SLICE, _new(service, group, chunk)) for chunk in chunks]


def _labels(service: Object) -> dict[str, str]:
    own = {
        key: value for key, value in objects.labels(service).items() if key not in (SERVICE_NAME, MANAGED_BY, HEADLESS)
    }
    if service_pods.is_headless(service):
        own[HEADLESS] = ""
    return {**own, SERVICE_NAME: objects.name(service), MANAGED_BY: MANAGER}


def _update(service: Object, piece: Object, endpoints: list[Object]) -> list[Action]:
    labels = _labels(service)
    if objects.labels(piece) == labels and (piece.get("endpoints") or []) == endpoints:
        return []
    meta = {**piece["metadata"], "labels": labels}
    return [Update(ENDPOINT_SLICE, {**piece, "metadata": meta, "endpoints": endpoints})]


def _new(service: Object, group: Group, endpoints: list[Object]) -> Object:
    family, ports = group
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": f"{objects.name(service)}-",
            "namespace": objects.namespace(service),
            "labels": _labels(service),
            "ownerReferences": [objects.owner_ref(service)],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [_port(*row) for row in ports],
    }


def _port(name: str, number: int, protocol: str, app_protocol: str) -> Object:
    port: Object = {"name": name, "port": number, "protocol": protocol}
    return {**port, "appProtocol": app_protocol} if app_protocol else port


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
