"""The addresses of the API server behind the Service default/kubernetes, which has no selector.

Upstream's API server writes them itself; here `run/` gives the addresses and the runner keeps them true.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from k3s.api import object as objects
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.controllers.actions import NOTHING, Create, Decision, Update
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
    """The controllers that publish API servers at these addresses; none when only this machine reaches them."""
    reached = [address for address in addresses if not ipaddress.ip_address(address).is_loopback]
    if not reached:
        return ()
    endpoints, piece = wanted(reached, port)
    return (
        _publisher("endpoint-controller", ENDPOINTS, endpoints, ("subsets",)),
        _publisher("endpointslice-controller", ENDPOINT_SLICE, piece, ("addressType", "endpoints", "ports")),
    )


def _publisher(account: str, kind: Kind, want: Object, fields: Sequence[str]) -> ControllerSpec:
    """Keeps one object true; it borrows the account that may write such objects anyway."""
    labels = objects.labels(want)

    def decide(key: str, world: World, now: float) -> Decision:
        """Decides default/kubernetes."""
        found = world.get(kind, KEY)
        if found is None:
            return Decision([Create(kind, want)])
        if all(found.get(f) == want[f] for f in fields) and labels.items() <= objects.labels(found).items():
            return NOTHING
        meta = {**found["metadata"], "labels": {**objects.labels(found), **labels}}
        return Decision([Update(kind, {**found, **want, "metadata": meta})])

    def only(old: Object | None, new: Object | None, world: World) -> Sequence[str]:
        obj = new or old
        return (KEY,) if obj is not None and objects.key(obj) == KEY else ()

    return ControllerSpec(
        name=f"kubernetes-{kind.plural}",
        decide=decide,
        watches=(Watch(kind, only),),
        account=account,
        start_keys=(KEY,),
    )
