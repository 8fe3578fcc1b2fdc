"""Gives each node its part of the cluster's pod network (spec.podCIDR, spec.podCIDRs)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from k3s.api import object as objects
from k3s.api.object import Object
from k3s.controllers.actions import Action, Decision, Emit, Patch
from k3s.controllers.known import NODE
from k3s.controllers.spec import ControllerSpec, Watch
from k3s.controllers.world import World

# All nodes are decided together, so that no part is given twice.
_KEY = "all"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def allocate(cluster: Network, mask: int, used: Iterable[Network]) -> Network | None:
    """The first part of `cluster` with this prefix length that overlaps no used one; None when all are used."""
    size = 1 << (cluster.max_prefixlen - mask)
    taken: set[int] = set()
    for network in used:
        if network.version == cluster.version and network.overlaps(cluster):
            first = (int(network.network_address) - int(cluster.network_address)) // size
            last = (int(network.broadcast_address) - int(cluster.network_address)) // size
            taken.update(range(max(first, 0), last + 1))
    number = next((n for n in range(1 << (mask - cluster.prefixlen)) if n not in taken), None)
    if number is None:
        return None
    address = type(cluster.network_address)(int(cluster.network_address) + number * size)
    return ipaddress.ip_network(f"{address}/{mask}")


def specs(cidrs: Sequence[str], mask_v4: int, mask_v6: int) -> tuple[ControllerSpec, ...]:
    """The controller for these networks (one for each address family)."""
    clusters = [ipaddress.ip_network(cidr) for cidr in cidrs]
    masks = {4: mask_v4, 6: mask_v6}

    def decide(key: str, world: World, now: float) -> Decision:
        """Decides all nodes."""
        nodes = sorted(world.list(NODE), key=objects.name)
        used = [ipaddress.ip_network(cidr) for node in nodes for cidr in node.get("spec", {}).get("podCIDRs") or ()]
        actions: list[Action] = []
        for node in nodes:
            if node.get("spec", {}).get("podCIDR") or objects.is_deleting(node):
                continue
            parts = [allocate(cluster, masks[cluster.version], used) for cluster in clusters]
            given = [part for part in parts if part is not None]
            if len(given) < len(parts):
                text = f"Node {objects.name(node)} status is now: CIDRNotAvailable"
                actions.append(Emit(node, "Normal", "CIDRNotAvailable", text))
                continue
            used += given
            texts = [str(part) for part in given]
            patch = {"metadata": {"uid": objects.uid(node)}, "spec": {"podCIDR": texts[0], "podCIDRs": texts}}
            actions.append(Patch(NODE, "", objects.name(node), patch))
        return Decision(actions)

    def changed(old: Object | None, new: Object | None, world: World) -> Sequence[str]:
        """A node came, or one went whose part is free now."""
        if old is not None and new is not None:
            return ()
        return (_KEY,)

    return (
        ControllerSpec(
            name="node-ipam-controller",
            decide=decide,
            watches=(Watch(NODE, changed),),
            account="node-controller",
        ),
    )
