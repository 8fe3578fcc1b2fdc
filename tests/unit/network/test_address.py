"""Which address is the node's."""

from __future__ import annotations

from typing import Any

import pytest

from k3s.network.address import AddressError, NodeAddress, choose


def link(name: str, *addresses: str, up: bool = True, mtu: int = 1400) -> dict[str, Any]:
    """A link as the ip tool tells it."""
    info = [
        {
            "family": "inet6" if ":" in each else "inet",
            "local": each,
            "prefixlen": 24,
            "scope": "host" if each.startswith("127.") else "link" if each.startswith("fe80") else "global",
        }
        for each in addresses
    ]
    return {"ifname": name, "flags": ["UP"] if up else [], "mtu": mtu, "addr_info": info}


LINKS = [
    link("lo", "127.0.0.1"),
    link("cni0", "10.42.0.1"),
    link("eth0", "fd00::2", "192.0.2.2"),
    link("eth1", "198.51.100.2"),
]


def test_the_default_route_decides() -> None:
    """The link of the default route with the lowest metric gives the address, IPv4 first."""
    routes = [{"dst": "default", "dev": "eth0", "metric": 200}, {"dst": "default", "dev": "eth1", "metric": 100}]
    assert choose(LINKS, routes) == NodeAddress("198.51.100.2", "eth1", 1400)
    assert choose(LINKS, [{"dst": "default", "dev": "eth0"}]) == NodeAddress("192.0.2.2", "eth0", 1400)


def test_without_default_route_the_first_outer_link_decides() -> None:
    """Bridges of containers do not count: no other machine reaches them."""
    assert choose(LINKS, []).address == "192.0.2.2"


def test_what_the_user_wants_counts() -> None:
    """--node-ip and --flannel-iface win over the default route."""
    assert choose(LINKS, [], wanted="fd00::2").link == "eth0"
    assert choose(LINKS, [], interface="eth1").address == "198.51.100.2"


def test_refusals_name_the_remedy() -> None:
    """Nothing usable, or a wish that cannot be met, is an error that says what to do."""
    with pytest.raises(AddressError, match="give an interface an address"):
        choose([link("lo", "127.0.0.1"), link("eth0", "192.0.2.2", up=False)], [])
    with pytest.raises(AddressError, match=r"--node-ip=192.0.2.9.*192.0.2.2"):
        choose(LINKS, [], wanted="192.0.2.9")
    with pytest.raises(AddressError, match="--flannel-iface=eth7"):
        choose(LINKS, [], interface="eth7")
