"""Which of a machine's addresses is the node's, from what the `ip` tool tells about links and routes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from k3s.api.object import Object

# Links that this program or other container engines make: their addresses mean something only inside the machine.
_INNER = ("cni", "k3s-", "flannel", "docker", "br-", "veth", "virbr", "kube-", "cali", "cilium", "podman")


class AddressError(Exception):
    """No address of the machine can be the node's."""


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """The node's address, and the link that has it with its MTU in bytes."""

    address: str
    link: str
    mtu: int


def choose(links: Sequence[Object], routes: Iterable[Object], wanted: str = "", interface: str = "") -> NodeAddress:
    """The address `wanted` (--node-ip) or that of `interface` (--flannel-iface), else that of the default route.

    A machine without default route gives the first global address of a link that is up. IPv4 goes before IPv6. `links`
    and `routes` are the values of `ip -j address` and `ip -j route show default`. Raises AddressError.
    """
    found = [(link, each) for link in links if _is_up(link) for each in link.get("addr_info") or ()]
    if wanted:
        for link, each in found:
            if each.get("local") == wanted:
                return _result(link, each)
        raise AddressError(
            f"Cannot use --node-ip={wanted}: no interface that is up has it; use one of {_listed(found)}"
        )
    usable = [(link, each) for link, each in found if each.get("scope") == "global" and not each.get("temporary")]
    usable.sort(key=lambda item: item[1].get("family") != "inet")
    if interface:
        for link, each in usable:
            if link["ifname"] == interface:
                return _result(link, each)
        raise AddressError(f"Cannot use --flannel-iface={interface}: it is not up or has no global address")
    for route in sorted(routes, key=lambda route: route.get("metric") or 0):
        for link, each in usable:
            if link["ifname"] == route.get("dev") and route.get("prefsrc") in (None, each["local"]):
                return _result(link, each)
    for link, each in usable:
        if not link["ifname"].startswith(_INNER):
            return _result(link, each)
    raise AddressError(
        "Cannot choose the node's address: no default route, and no interface that is up has a global address; "
        "give an interface an address"
    )


def _is_up(link: Object) -> bool:
    return "UP" in (link.get("flags") or ())


def _result(link: Object, address: Object) -> NodeAddress:
    return NodeAddress(address["local"], link["ifname"], link.get("mtu") or 1500)


def _listed(found: list[tuple[Object, Object]]) -> str:
    return ", ".join(each["local"] for _, each in found if each.get("scope") == "global") or "none"
