"""What this node's kernel needs so that pods reach pods on other nodes: links and routes as values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from k3s.api.object import Object, get, name


@dataclass(frozen=True, slots=True)
class Config:
    """The cluster's network: pod ranges, how nodes reach each other (vxlan, host-gw, none), MTU (0: the kernel's)."""

    cluster_cidrs: tuple[str, ...]
    backend: str = "vxlan"
    mtu: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """A network interface of ours, with its addresses (with prefix length)."""

    name: str
    type: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """The way to a range of pods: through another node's address."""

    destination: str
    via: str


@dataclass(frozen=True, slots=True)
class NetState:
    """All links and routes of ours; the same shape for what is and for what shall be."""

    links: frozenset[Link] = frozenset()
    routes: frozenset[Route] = frozenset()


def plan(nodes: Iterable[Object], me: str, config: Config) -> NetState:
    """The links and routes of node `me`: with host-gw a route to each other node, alone none at all."""
    if config.backend != "host-gw":
        return NetState()
    routes = {
        Route(cidr, address)
        for node in nodes
        if name(node) != me
        for cidr in pod_cidrs(node)
        for address in node_addresses(node)
        if (":" in cidr) == (":" in address)
    }
    return NetState(routes=frozenset(routes))


def unreachable(nodes: Iterable[Object], me: str, config: Config) -> list[str]:
    """Names of nodes whose pods this node cannot reach with its backend."""
    if config.backend in ("host-gw", "none"):
        return []
    return sorted(name(node) for node in nodes if name(node) != me and pod_cidrs(node))


def pod_cidrs(node: Object) -> tuple[str, ...]:
    """The pod ranges that the cluster gave to a node; empty until it has."""
    spec = node.get("spec") or {}
    return tuple(spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else ()))


def node_addresses(node: Object) -> list[str]:
    """The first internal address of each family."""
    found: dict[bool, str] = {}
    for each in get(node, "status", "addresses", default=None) or ():
        if each.get("type") == "InternalIP":
            found.setdefault(":" in each["address"], each["address"])
    return list(found.values())
