"""The addresses of the API server behind the Service default/kubernetes, which has no selector.

Upstream's API server writes them itself; here `run/` gives the addresses and the runner keeps them true.
"""

from __future__ import annotations

from collections.abc import Sequence

from k3s.api import object as objects
from k3s.api.object import Object
from k3s.controllers.actions import Action, Create, Decision, Update
from k3s.controllers.known import ENDPOINT_SLICE, ENDPOINTS
from k3s.controllers.spec import ControllerSpec, Watch
from k3s.controllers.world import SERVICE_NAME, World

KEY = "default/kubernetes"
_SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"


def wanted(addresses: Sequence[str], port: int) -> tuple[Object, Object]:
    """The Endpoints and the EndpointSlice for API servers at these addresses (one family) and port."""
    meta = {"name": "kubernetes", "namespace": "default"}
    family = "IPv6" if ":" in addresses[0] else "IPv4"
    ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    endpoints = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {**meta, "labels": {_SKIP_MIRROR: "true"}},
        "subsets": [{"addresses": [{"ip": ip} for ip in addresses], "ports": ports}],
    }
    piece = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**meta, "labels": {SERVICE_NAME: "kubernetes"}},
        "addressType": family,
        "endpoints": [{"addresses": [ip], "conditions": {"ready": True}} for ip in addresses],
        "ports": ports,
    }
    return endpoints, piece


def specs(addresses: Sequence[str], port: int) -> tuple[ControllerSpec, ...]:
    """The controller that publishes API servers at these addresses; its account may write endpoints anywhere."""
    endpoints, piece = wanted(addresses, port)

    def decide(key: str, world: World, now: float) -> Decision:
        """Decides default/kubernetes."""
        actions: list[Action] = []
        for kind, want, fields in (
            (ENDPOINTS, endpoints, ("subsets",)),
            (ENDPOINT_SLICE, piece, ("addressType", "endpoints", "ports")),
        ):
            found = world.get(kind, KEY)
            labels = objects.labels(want)
            if found is None:
                actions.append(Create(kind, want))
            elif any(found.get(f) != want[f] for f in fields) or not labels.items() <= objects.labels(found).items():
                meta = {**found["metadata"], "labels": {**objects.labels(found), **labels}}
                actions.append(Update(kind, {**found, **want, "metadata": meta}))
        return Decision(actions)

    def only(old: Object | None, new: Object | None, world: World) -> Sequence[str]:
        obj = new or old
        return (KEY,) if obj is not None and objects.key(obj) == KEY else ()

    return (
        ControllerSpec(
            name="kubernetes-endpoints",
            decide=decide,
            watches=(Watch(ENDPOINTS, only), Watch(ENDPOINT_SLICE, only)),
            start_keys=(KEY,),
        ),
    )
