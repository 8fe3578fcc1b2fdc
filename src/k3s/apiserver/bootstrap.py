"""What exists from the first start: namespaces, priority classes, flow control, roles, the way to this server.

Source: upstream's start hooks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from k3s.api.errors import ApiError
from k3s.api.kinds import builtin
from k3s.api.object import Object, decode, encode
from k3s.apiserver import rbac_bootstrap
from k3s.client.transport import Request

if TYPE_CHECKING:
    from k3s.apiserver.server import ApiServer

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_TOGETHER = 128
_FLOW_CONTROL = Path(__file__).with_name("data") / "flowcontrol.json"
_CLASSES = (
    (
        "system-cluster-critical",
        2000000000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2000001000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
)


def namespaces() -> list[Object]:
    """The namespaces of every cluster."""
    return [{"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}} for name in NAMESPACES]


def priority_classes() -> list[Object]:
    """The two classes of the system."""
    kind = {"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1"}
    return [{**kind, "metadata": {"name": n}, "value": value, "description": text} for n, value, text in _CLASSES]


def flow_control() -> list[Object]:
    """The priority levels and flow schemas of every cluster, kept by the server unless an admin takes them over."""
    meta = {"annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}}
    return [
        {
            "kind": kind,
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
            "metadata": {"name": name, **meta},
            "spec": spec,
        }
        for kind, name, spec in decode(_FLOW_CONTROL.read_bytes())
    ]


def way_in(address: str, port: int, service_cidr: str) -> list[Object]:
    """The kubernetes Service with its endpoints: how pods reach this server at `address`:`port`."""
    meta = {"name": "kubernetes", "namespace": "default"}
    network = ip_network(service_cidr)
    labels = {"component": "apiserver", "provider": "kubernetes"}
    cluster_ip = str(network.network_address + 1)
    service = {
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {**meta, "labels": labels},
        "spec": {
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
            "type": "ClusterIP",
        },
    }
    ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    endpoints = {
        "kind": "Endpoints",
        "apiVersion": "v1",
        "metadata": {**meta, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": ports}],
    }
    piece = {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {**meta, "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv6" if ":" in address else "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": ports,
    }
    # A server that only this machine reaches (its address is a loopback one) has no endpoint to offer to pods.
    return [service] if ip_address(address).is_loopback else [service, endpoints, piece]


def trust(client_ca: str, front_proxy_ca: str, front_proxy_names: Sequence[str]) -> dict[str, str]:
    """What servers of other group versions read to know whom to believe: authorities as PEM, and names."""
    return {
        "client-ca-file": client_ca,
        "requestheader-allowed-names": _list(front_proxy_names),
        "requestheader-client-ca-file": front_proxy_ca,
        "requestheader-extra-headers-prefix": _list(["X-Remote-Extra-"]),
        "requestheader-group-headers": _list(["X-Remote-Group"]),
        "requestheader-username-headers": _list(["X-Remote-User"]),
    }


def _list(values: Sequence[str]) -> str:
    return encode(list(values)).decode()


async def ensure(server: ApiServer, address: str, port: int, service_cidr: str, trusted: Mapping[str, str]) -> None:
    """Creates what is not there; brings roles, the server's own endpoints and what others trust up to date."""
    await _create(server, namespaces())
    await _roles(server)
    own = way_in(address, port, service_cidr)
    cidr = {
        "kind": "ServiceCIDR",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [service_cidr]},
    }
    refreshed = own[1:]
    if trusted:
        meta = {"name": "extension-apiserver-authentication", "namespace": "kube-system"}
        refreshed.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": dict(trusted)})
    await _create(server, [*priority_classes(), *flow_control(), cidr, *own[:1], *refreshed])
    for obj in refreshed:
        await _refresh(server, obj)


async def _roles(server: ApiServer) -> None:
    """Roles and bindings of the system, with at least the rules that this version needs."""
    local = server.itself()
    changes = rbac_bootstrap.changes(server.cache)

    async def one(change: rbac_bootstrap.Change) -> None:
        kind, obj = change.kind, change.obj
        space, name = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
        if change.action == "replace":
            await local.handle(Request("DELETE", kind.path(space, name)))
        if change.action == "update":
            await local.handle(Request("PUT", kind.path(space, name), {}, obj))
        else:
            await local.handle(Request("POST", kind.path(space), {}, obj))

    for start in range(0, len(changes), _TOGETHER):
        async with asyncio.TaskGroup() as group:
            for change in changes[start : start + _TOGETHER]:
                group.create_task(one(change))


async def _create(server: ApiServer, objects: Sequence[Object]) -> None:
    local = server.itself()
    missing = []
    for obj in objects:
        kind = builtin(obj["apiVersion"], obj["kind"])
        meta = obj["metadata"]
        if server.cache.bucket(kind).get(meta.get("namespace", ""), meta["name"]) is None:
            missing.append(Request("POST", kind.path(meta.get("namespace", "")), {}, obj))

    async def one(request: Request) -> None:
        try:
            await local.handle(request)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    for start in range(0, len(missing), _TOGETHER):
        async with asyncio.TaskGroup() as group:
            for request in missing[start : start + _TOGETHER]:
                group.create_task(one(request))


async def _refresh(server: ApiServer, wanted: Object) -> None:
    """Writes an object again when anything but its metadata differs: the address may have changed since."""
    kind = builtin(wanted["apiVersion"], wanted["kind"])
    meta = wanted["metadata"]
    now = server.cache.get(kind, meta["namespace"], meta["name"])
    if now is None or all(now.get(key) == value for key, value in wanted.items() if key != "metadata"):
        return
    changed = {**now, **{key: value for key, value in wanted.items() if key != "metadata"}}
    await server.itself().handle(Request("PUT", kind.path(meta["namespace"], meta["name"]), {}, changed))
