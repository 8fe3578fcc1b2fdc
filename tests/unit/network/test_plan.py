"""Routes to other nodes, the steps that lead there, and the files and rules of one node."""

from __future__ import annotations

import json
from typing import Any

from k3s.netfilter.trace import Machine, Packet, follow
from k3s.network import cni, masquerade
from k3s.network.diff import AddLink, DeleteLink, DeleteRoute, SetRoute, diff
from k3s.network.plan import Config, Link, NetState, Route, plan, pod_cidrs, unreachable

CLUSTER = ("10.42.0.0/16",)


def node(number: int) -> dict[str, Any]:
    """A node with a pod range and an address."""
    return {
        "metadata": {"name": f"node-{number}"},
        "spec": {"podCIDR": f"10.42.{number}.0/24", "podCIDRs": [f"10.42.{number}.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": f"192.0.2.{number}"}]},
    }


def test_host_gw_routes_to_every_other_node() -> None:
    """One route a node, none to itself."""
    wanted = plan([node(1), node(2), node(3)], "node-1", Config(CLUSTER, "host-gw"))
    assert wanted.routes == {Route("10.42.2.0/24", "192.0.2.2"), Route("10.42.3.0/24", "192.0.2.3")}
    assert plan([node(1)], "node-1", Config(CLUSTER)) == NetState()


def test_a_backend_that_is_not_there_is_told() -> None:
    """With vxlan another node's pods are named as out of reach, not forgotten."""
    assert unreachable([node(1), node(2)], "node-1", Config(CLUSTER, "vxlan")) == ["node-2"]
    assert unreachable([node(1), node(2)], "node-1", Config(CLUSTER, "host-gw")) == []


def test_pod_ranges_of_a_new_node() -> None:
    """A node that has no range yet has none, whichever way it says so."""
    assert pod_cidrs({"metadata": {"name": "new"}}) == ()
    assert pod_cidrs({"spec": {"podCIDR": "10.42.0.0/24"}}) == ("10.42.0.0/24",)


def test_steps_are_in_an_order_that_works() -> None:
    """Links come first and go last; a route that moves is replaced, not removed."""
    old = NetState(
        frozenset({Link("a", "bridge")}), frozenset({Route("10.42.2.0/24", "x"), Route("10.42.3.0/24", "y")})
    )
    new = NetState(frozenset({Link("b", "bridge")}), frozenset({Route("10.42.2.0/24", "z")}))
    assert diff(old, new) == [
        AddLink(Link("b", "bridge")),
        SetRoute(Route("10.42.2.0/24", "z")),
        DeleteRoute(Route("10.42.3.0/24", "y")),
        DeleteLink("a"),
    ]
    assert diff(new, new) == []


def test_cni_configuration() -> None:
    """A bridge with the node's range, hairpin, no iptables masquerade, and host ports."""
    document = json.loads(cni.conflist(("10.42.0.0/24", "fd00:42::/64"), mtu=1400))
    bridge, ports = document["plugins"]
    assert document["name"] == "cbr0"
    assert (bridge["bridge"], bridge["hairpinMode"], bridge["ipMasq"], bridge["mtu"]) == ("cni0", True, False, 1400)
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.42.0.0/24"}], [{"subnet": "fd00:42::/64"}]]
    assert ports == {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    assert "mtu" not in json.loads(cni.conflist(("10.42.0.0/24",)))["plugins"][0]


def test_pods_are_masqueraded_outside_the_cluster_only() -> None:
    """A pod keeps its address towards pods, gets the node's towards the world; others are left alone."""
    rules = masquerade.ruleset(CLUSTER)

    def masqueraded(source: str, destination: str) -> bool:
        (outcome,) = follow(rules, Packet(source, destination, 80), Machine())
        return outcome.masqueraded

    assert masqueraded("10.42.0.5", "198.51.100.1")
    assert not masqueraded("10.42.0.5", "10.42.1.6")
    assert not masqueraded("10.42.0.5", "224.0.0.251")
    assert not masqueraded("192.0.2.9", "198.51.100.1")
