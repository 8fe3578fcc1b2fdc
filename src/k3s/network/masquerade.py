"""The rule that lets pods speak to the world: outside the cluster they appear with the node's address."""

from __future__ import annotations

from k3s.netfilter.ruleset import Chain, Hook, Masquerade, Match, Ruleset, Table

TABLE = "k3s-pods"

_PRIORITY = 100
_MULTICAST = {"ip": "224.0.0.0/4", "ip6": "ff00::/8"}


def ruleset(cluster_cidrs: tuple[str, ...]) -> Ruleset:
    """One table a family: packets from pods to addresses that are no pods."""
    found = []
    for family in ("ip", "ip6"):
        cidrs = tuple(each for each in cluster_cidrs if (":" in each) == (family == "ip6"))
        if not cidrs:
            continue
        leaving = (
            Match(f"{family} saddr", cidrs),
            Match(f"{family} daddr", (*cidrs, _MULTICAST[family]), negate=True),
            Masquerade(),
        )
        chain = Chain((leaving,), Hook("nat", "postrouting", _PRIORITY))
        found.append(Table(family, TABLE, {"nat-postrouting": chain}))
    return tuple(found)
