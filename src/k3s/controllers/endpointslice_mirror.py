"""Mirrors Endpoints that users write for Services without a selector into EndpointSlices, which is what proxies read.

Source: the documentation of EndpointSlice mirroring.
"""

from __future__ import annotations

from collections.abc import Iterable

from k3s.api import object as objects
from k3s.api.object import Object
from k3s.controllers import slices
from k3s.controllers.actions import NOTHING, Decision, delete
from k3s.controllers.endpointslice import MANAGED_BY
from k3s.controllers.known import ENDPOINT_SLICE, ENDPOINTS, SERVICE
from k3s.controllers.spec import ControllerSpec, Watch, own_key
from k3s.controllers.world import SERVICE_NAME, World

MANAGER = "endpointslicemirroring-controller.k8s.io"
_SKIP = "endpointslice.kubernetes.io/skip-mirror"
# Endpoints that only hold a lock of an old client.
_LOCK = "control-plane.alpha.kubernetes.io/leader"
_MOST_ADDRESSES = 1000


def decide(key: str, world: World, now: float) -> Decision:
    """Decides the mirror of an Endpoints object."""
    endpoints, service = world.get(ENDPOINTS, key), world.get(SERVICE, key)
    existing = [piece for piece in world.slices_of(key) if objects.labels(piece).get(MANAGED_BY) == MANAGER]
    if endpoints is None or service is None or service["spec"].get("selector") or not _wanted(endpoints):
        return Decision([delete(ENDPOINT_SLICE, piece) for piece in existing]) if existing else NOTHING
    labels = {**objects.labels(endpoints), SERVICE_NAME: objects.name(endpoints), MANAGED_BY: MANAGER}
    return Decision(slices.changes(slices.Owner(endpoints, labels), mirrored(endpoints), existing))


def _wanted(endpoints: Object) -> bool:
    if objects.is_deleting(endpoints) or objects.labels(endpoints).get(_SKIP) == "true":
        return False
    return _LOCK not in objects.annotations(endpoints)


def mirrored(endpoints: Object) -> dict[slices.Group, dict[str, Object]]:
    """The endpoints by address type and ports."""
    groups: dict[slices.Group, dict[str, Object]] = {}
    for subset in endpoints.get("subsets") or ():
        rows = [
            (port.get("name", ""), port["port"], port.get("protocol", "TCP"), port.get("appProtocol", ""))
            for port in subset.get("ports") or ()
        ]
        ports = tuple(sorted(rows))
        both = [(entry, True) for entry in subset.get("addresses") or ()]
        both += [(entry, False) for entry in subset.get("notReadyAddresses") or ()]
        for entry, ready in both[:_MOST_ADDRESSES]:
            family = "IPv6" if ":" in entry["ip"] else "IPv4"
            made = _endpoint(entry, ready)
            groups.setdefault((family, ports), {})[slices.identity(made)] = made
    return groups


def _endpoint(entry: Object, ready: bool) -> Object:
    made: Object = {"addresses": [entry["ip"]], "conditions": {"ready": ready}}
    for part in ("hostname", "nodeName", "targetRef"):
        if entry.get(part):
            made[part] = entry[part]
    return made


def _of_slice(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
    found: dict[str, None] = {}
    for piece in (old, new):
        if piece is not None and objects.labels(piece).get(MANAGED_BY) == MANAGER:
            found[f"{objects.namespace(piece)}/{objects.labels(piece).get(SERVICE_NAME, '')}"] = None
    return found


SPECS = (
    ControllerSpec(
        name="endpointslice-mirroring-controller",
        decide=decide,
        kind=ENDPOINTS,
        watches=(Watch(SERVICE, own_key), Watch(ENDPOINT_SLICE, _of_slice)),
        account="endpointslicemirroring-controller",
    ),
)
