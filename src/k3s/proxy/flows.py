"""Which connections the kernel must forget after the endpoints of a UDP service changed.

Translation is decided once a connection. For UDP a connection lives as long as packets come, so an old decision would
send a client to an address that serves no more, for ever. Only UDP: clients of TCP notice and connect again.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from k3s.proxy.ports import ServicePort


@dataclass(frozen=True, slots=True, order=True)
class Flow:
    """UDP connections to an address and port that are answered by `served_by` (the same address: not translated)."""

    family: str
    destination: str
    port: int
    served_by: str


_LINE = re.compile(r"src=\S+ dst=(\S+) sport=\d+ dport=(\d+) .*?src=(\S+) dst=")


def parse(family: str, listing: str) -> set[Flow]:
    """The flows in what `conntrack -L -p udp` prints."""
    return {Flow(family, found[1], int(found[2]), found[3]) for found in _LINE.finditer(listing)}


def without_endpoints(ports: Iterable[ServicePort]) -> list[ServicePort]:
    """Service ports that are gone, as ports that nobody serves: every flow to them is stale."""
    return [replace(port, cluster=(), local=()) for port in ports]


def stale(flows: Iterable[Flow], ports: Iterable[ServicePort], cluster_cidrs: Iterable[str]) -> set[Flow]:
    """The flows to services that go where no endpoint of the service is."""
    by_address: dict[tuple[str, int], frozenset[str]] = {}
    by_port: dict[tuple[str, int], frozenset[str]] = {}
    for port in ports:
        if port.protocol != "udp":
            continue
        allowed = frozenset(each.address for each in (*port.cluster, *port.local))
        for address, number in port.destinations:
            if address:
                by_address[(address, number)] = allowed
            else:
                by_port[(port.family, number)] = allowed
    pods = [ipaddress.ip_network(each) for each in cluster_cidrs]
    return {flow for flow in flows if _is_stale(flow, by_address, by_port, pods)}


_Allowed = dict[tuple[str, int], frozenset[str]]
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _is_stale(flow: Flow, by_address: _Allowed, by_port: _Allowed, pods: list[_Network]) -> bool:
    allowed = by_address.get((flow.destination, flow.port))
    if allowed is not None:
        # Without endpoints an untranslated flow is right: it is refused.
        return flow.served_by not in allowed and (bool(allowed) or flow.served_by != flow.destination)
    allowed = by_port.get((flow.family, flow.port))
    if allowed is None or flow.served_by in allowed:
        return False
    # The same port number somewhere else in the world is not ours: only what goes to a pod was translated here.
    served_by = ipaddress.ip_address(flow.served_by)
    return flow.served_by != flow.destination and any(served_by in network for network in pods)
