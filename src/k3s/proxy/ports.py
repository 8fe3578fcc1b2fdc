"""What a Service and its EndpointSlices mean on this node: one value a port, with the endpoints that may get traffic.

Source of the rules: the Service and EndpointSlice API docs, KEP-1669 (terminating endpoints), KEP-2086 (internal
traffic policy), KEP-1860 (load balancer ipMode).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from k3s.api.object import Object, get, labels, name, namespace

FAMILIES = {"IPv4": "ip", "IPv6": "ip6"}

# Services with these labels are somebody else's to serve.
_NOT_OURS = ("service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless")
_AFFINITY_S = 10800  # default of spec.sessionAffinityConfig.clientIP.timeoutSeconds


@dataclass(frozen=True, slots=True)
class Node:
    """What the rules must know of this node.

    `skip` are service addresses that something on this node answers itself (the cluster DNS).
    """

    name: str
    cluster_cidrs: tuple[str, ...]
    skip: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """An address and port that serves."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of one service in one address family.

    `cluster` are the endpoints for traffic that may go to any node, `local` those of this node. `affinity_s` is 0 when
    a client may be sent elsewhere each time.
    """

    name: str
    family: str
    protocol: str
    cluster_ip: str
    port: int
    node_port: int = 0
    external_ips: tuple[str, ...] = ()
    balancer_ips: tuple[str, ...] = ()
    source_ranges: tuple[str, ...] = ()
    affinity_s: int = 0
    internal_local: bool = False
    external_local: bool = False
    cluster: tuple[Endpoint, ...] = ()
    local: tuple[Endpoint, ...] = ()

    @property
    def destinations(self) -> Iterator[tuple[str, int]]:
        """Each address (empty: any of the node's) and port that clients use."""
        for address in (self.cluster_ip, *self.external_ips, *self.balancer_ips):
            yield address, self.port
        if self.node_port:
            yield "", self.node_port


def is_served(service: Object) -> bool:
    """Whether packets to the service are ours to deliver: not for headless and external-name services."""
    if any(each in labels(service) for each in _NOT_OURS):
        return False
    spec = service.get("spec", {})
    return spec.get("type") != "ExternalName" and spec.get("clusterIP") not in (None, "", "None")


def service_ports(service: Object, slices: Iterable[Object], node: Node) -> tuple[ServicePort, ...]:
    """All ports of a service, in every address family that it has."""
    if not is_served(service):
        return ()
    spec = service["spec"]
    found = []
    members = list(slices)
    for address in spec.get("clusterIPs") or [spec["clusterIP"]]:
        if address in node.skip:
            continue
        family = "IPv6" if ":" in address else "IPv4"
        same = [each for each in members if each.get("addressType") == family]
        found += [_service_port(service, port, address, same, node) for port in spec.get("ports") or ()]
    return tuple(found)


def _service_port(service: Object, port: Object, address: str, slices: list[Object], node: Node) -> ServicePort:
    spec = service["spec"]
    family = FAMILIES["IPv6" if ":" in address else "IPv4"]
    protocol = port.get("protocol", "TCP").lower()
    port_name = port.get("name", "")
    balanced = spec.get("type") == "LoadBalancer"
    exposed = balanced or spec.get("type") == "NodePort"
    affine = spec.get("sessionAffinity") == "ClientIP"
    usable = list(_endpoints(slices, port_name, protocol))
    return ServicePort(
        # The port's number stands in for its name where it has none: such a service has only this port.
        name=f"{namespace(service)}/{name(service)}/{protocol}/{port_name or port['port']}",
        family=family,
        protocol=protocol,
        cluster_ip=address,
        port=port["port"],
        node_port=port.get("nodePort", 0) if exposed else 0,
        external_ips=_of_family(spec.get("externalIPs") or (), family),
        balancer_ips=_of_family(_ingress(service), family) if balanced else (),
        source_ranges=_of_family(spec.get("loadBalancerSourceRanges") or (), family) if balanced else (),
        affinity_s=get(spec, "sessionAffinityConfig", "clientIP", "timeoutSeconds", default=_AFFINITY_S)
        if affine
        else 0,
        internal_local=spec.get("internalTrafficPolicy") == "Local",
        external_local=spec.get("externalTrafficPolicy") == "Local" and (exposed or bool(spec.get("externalIPs"))),
        cluster=_choose(usable),
        local=_choose([each for each in usable if each.node == node.name]),
    )


def _of_family(texts: Iterable[str], family: str) -> tuple[str, ...]:
    """The addresses or ranges of one family, in the kernel's spelling, the same one only once."""
    found: dict[str, None] = {}
    for text in texts:
        try:
            network = ipaddress.ip_network(text.strip(), strict=False)
        except ValueError:
            continue  # the API server accepted it before our time; a rule cannot be made of it
        if network.version == (6 if family == "ip6" else 4):
            single = network.prefixlen == network.max_prefixlen
            found[str(network.network_address) if single else str(network)] = None
    return tuple(found)


def _ingress(service: Object) -> Iterator[str]:
    for each in get(service, "status", "loadBalancer", "ingress", default=None) or ():
        # With mode Proxy the balancer is to be visited, for what it adds to a connection (KEP-1860).
        if each.get("ip") and each.get("ipMode", "VIP") == "VIP":
            yield each["ip"]


@dataclass(frozen=True, slots=True)
class _Candidate:
    endpoint: Endpoint
    node: str
    ready: bool
    serving: bool


def _endpoints(slices: list[Object], port_name: str, protocol: str) -> Iterator[_Candidate]:
    for each in slices:
        numbers = [
            port["port"]
            for port in each.get("ports") or ()
            # The API takes any number here; the kernel would refuse all rules for the sake of one that is no port.
            if 0 < (port.get("port") or 0) < 65536
            and (port.get("name") or "") == port_name
            and port.get("protocol", "TCP").lower() == protocol
        ]
        if not numbers:
            continue
        for endpoint in each.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            ready = conditions.get("ready") is not False  # absent means ready (EndpointSlice API)
            serving = conditions.get("serving", ready) is not False
            if not (ready or (serving and conditions.get("terminating"))):
                continue
            address = str(ipaddress.ip_address(endpoint["addresses"][0]))
            for number in numbers:
                yield _Candidate(Endpoint(address, number), endpoint.get("nodeName") or "", ready, serving)


def _choose(candidates: list[_Candidate]) -> tuple[Endpoint, ...]:
    """The ready endpoints; without any, those that still serve while they terminate (KEP-1669)."""
    ready = {each.endpoint for each in candidates if each.ready}
    return tuple(sorted(ready or {each.endpoint for each in candidates}))
