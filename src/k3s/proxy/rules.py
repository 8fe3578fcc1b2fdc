"""Services as packet rules: one table a family, in which verdict maps find a service in one look-up.

A packet's way: a base chain asks the map `services` (or `node-ports`) → `service-…` chooses an endpoint → `endpoint-…`
rewrites the destination. What must come back this way is marked and masqueraded when it leaves. A service without
endpoints is in the `no-endpoint-…` maps, which refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from k3s.netfilter.ruleset import (
    DROP,
    Chain,
    ClearMark,
    DestinationNat,
    Dispatch,
    Hook,
    InSet,
    Key,
    Map,
    Marked,
    Masquerade,
    Match,
    Part,
    Reject,
    Remember,
    Rule,
    Ruleset,
    Set,
    SetMark,
    Table,
    Verdict,
    choose,
    goto,
    jump,
)
from k3s.proxy.ports import Endpoint, Node, ServicePort

TABLE = "k3s"

# Bit 14, as upstream (iptables.masqueradeBit); other software that marks packets knows to leave it alone.
MASQUERADE = 0x4000

_REFUSE = "reject-packet"
_NAT_PRIORITY = -100
_SOURCE_NAT_PRIORITY = 100
_FILTER_PRIORITY = 0
_LOOPBACK = {"ip": "127.0.0.0/8", "ip6": "::1"}
_ADDRESS = {"ip": "ipv4_addr", "ip6": "ipv6_addr"}


@dataclass(frozen=True, slots=True)
class Fragment:
    """What one service adds to the table of a family."""

    chains: Mapping[str, Chain] = field(default_factory=dict)
    sets: Mapping[str, Set] = field(default_factory=dict)
    services: Mapping[Key, Verdict] = field(default_factory=dict)
    node_ports: Mapping[Key, Verdict] = field(default_factory=dict)
    refused: Mapping[Key, Verdict] = field(default_factory=dict)
    refused_ports: Mapping[Key, Verdict] = field(default_factory=dict)
    addresses: frozenset[Key] = frozenset()


def fragment(port: ServicePort, node: Node) -> Fragment:
    """The chains and map elements of one service port."""
    return _Builder(port, node).build()


class _Builder:
    def __init__(self, port: ServicePort, node: Node) -> None:
        self.port = port
        self.source = f"{port.family} saddr"
        self.cidrs = tuple(each for each in node.cluster_cidrs if (":" in each) == (port.family == "ip6"))
        self.chains: dict[str, Chain] = {}
        self.sets: dict[str, Set] = {}

    def build(self) -> Fragment:
        port = self.port
        services: dict[Key, Verdict] = {}
        refused: dict[Key, Verdict] = {}
        cluster_key = (port.cluster_ip, port.protocol, str(port.port))
        if not port.cluster:
            refused[cluster_key] = goto(_REFUSE)
        elif port.internal_local and not port.local:
            refused[cluster_key] = DROP  # there are endpoints, but not here: KEP-2086
        else:
            services[cluster_key] = goto(self._here() if port.internal_local else self._everywhere())
        node_ports: dict[Key, Verdict] = {}
        refused_ports: dict[Key, Verdict] = {}
        if port.external_ips or port.balancer_ips or port.node_port:
            outside = self._outside() if port.cluster else goto(_REFUSE)
            balanced = self._firewall(outside) if port.source_ranges and port.cluster else outside
            open_to = services if port.cluster else refused
            open_to |= {(ip, port.protocol, str(port.port)): outside for ip in port.external_ips}
            open_to |= {(ip, port.protocol, str(port.port)): balanced for ip in port.balancer_ips}
            if port.node_port:
                (node_ports if port.cluster else refused_ports)[(port.protocol, str(port.node_port))] = outside
        addresses = frozenset({(port.cluster_ip,)})
        return Fragment(self.chains, self.sets, services, node_ports, refused, refused_ports, addresses)

    def _everywhere(self) -> str:
        """The chain to all endpoints."""
        return self._balance("service", self.port.cluster, self._strangers())

    def _here(self) -> str:
        """The chain to the endpoints of this node; sources stay visible, but for strangers to the cluster address."""
        port = self.port
        strangers = self._strangers() if port.internal_local else []
        to_cluster_ip = Match(f"{port.family} daddr", (port.cluster_ip,))
        return self._balance("local", port.local, [(to_cluster_ip, *each) for each in strangers])

    def _strangers(self) -> list[Rule]:
        """Packets that do not come from pods of the cluster return through this node, whoever sent them."""
        return [(Match(self.source, self.cidrs, negate=True), SetMark(MASQUERADE))] if self.cidrs else []

    def _outside(self) -> Verdict:
        """Where packets to node ports, external addresses and load balancers go."""
        port = self.port
        everywhere = goto(self._everywhere())
        rules: list[Rule] = []
        if not port.external_local:
            rules = [(SetMark(MASQUERADE),), (everywhere,)]
        else:
            # The source stays visible for those from outside; pods and this node itself may use every endpoint.
            if self.cidrs:
                rules.append((Match(self.source, self.cidrs), everywhere))
            here = Match("fib saddr type", ("local",))
            rules += [(here, SetMark(MASQUERADE)), (here, everywhere)]
            rules.append((goto(self._here()) if port.local else DROP,))
        self.chains[f"external-{port.name}"] = Chain(tuple(rules))
        return goto(f"external-{port.name}")

    def _firewall(self, outside: Verdict) -> Verdict:
        """spec.loadBalancerSourceRanges: others are dropped."""
        name = f"firewall-{self.port.name}"
        self.chains[name] = Chain(((Match(self.source, self.port.source_ranges, negate=True), DROP), (outside,)))
        return goto(name)

    def _balance(self, kind: str, endpoints: tuple[Endpoint, ...], before: list[Rule]) -> str:
        """A chain that sends each connection to one of the endpoints."""
        port = self.port
        name = f"{kind}-{port.name}"
        rules = list(before)
        chains = tuple(self._endpoint(each) for each in endpoints)
        if port.affinity_s:
            for each, chain in zip(endpoints, chains, strict=True):
                rules.append((InSet((self.source,), self._affinity(each)), goto(chain)))
        rules.append((choose(chains),))
        self.chains[name] = Chain(tuple(rules))
        return name

    def _endpoint(self, endpoint: Endpoint) -> str:
        port = self.port
        name = f"endpoint-{port.name}__{_spelled(endpoint)}"
        if name in self.chains:
            return name
        # A pod that reaches itself through its service would get an answer from its own address (hairpin).
        rules: list[Rule] = [(Match(self.source, (endpoint.address,)), SetMark(MASQUERADE))]
        last: list[Part] = [DestinationNat(port.protocol, endpoint.address, endpoint.port)]
        if port.affinity_s:
            affinity = self._affinity(endpoint)
            self.sets[affinity] = Set((_ADDRESS[port.family],), timeout_s=port.affinity_s)
            last.insert(0, Remember(self.source, affinity))
        self.chains[name] = Chain((*rules, tuple(last)))
        return name

    def _affinity(self, endpoint: Endpoint) -> str:
        # The time is part of the name: a set cannot change its timeout.
        return f"affinity-{self.port.affinity_s}-{self.port.name}__{_spelled(endpoint)}"


def _spelled(endpoint: Endpoint) -> str:
    """An endpoint in the letters that names of chains may have."""
    return f"{endpoint.address.replace(':', '.')}/{endpoint.port}"


def table(family: str, fragments: Iterable[Fragment]) -> Table:
    """The whole table of a family."""
    fragments = list(fragments)
    chains = dict(_frame(family))
    sets: dict[str, Set] = {}
    services: dict[Key, Verdict] = {}
    node_ports: dict[Key, Verdict] = {}
    refused: dict[Key, Verdict] = {}
    refused_ports: dict[Key, Verdict] = {}
    addresses: set[Key] = set()
    for each in fragments:
        chains.update(each.chains)
        sets.update(each.sets)
        services.update(each.services)
        node_ports.update(each.node_ports)
        refused.update(each.refused)
        refused_ports.update(each.refused_ports)
        addresses |= each.addresses
    if any(len(each.services) + len(each.refused) > 1 for each in fragments):
        _keep_own(fragments, services, refused)
    address = _ADDRESS[family]
    by_address = (address, "inet_proto", "inet_service")
    by_port = ("inet_proto", "inet_service")
    sets["cluster-ips"] = Set((address,), frozenset(addresses))
    maps = {
        "services": Map(by_address, services),
        "node-ports": Map(by_port, node_ports),
        "no-endpoint-services": Map(by_address, refused),
        "no-endpoint-node-ports": Map(by_port, refused_ports),
    }
    return Table(family, TABLE, chains, sets, maps)


def _keep_own(fragments: Iterable[Fragment], services: dict[Key, Verdict], refused: dict[Key, Verdict]) -> None:
    """Gives cluster addresses back to their services: others may name them as external addresses of theirs."""
    for each in fragments:
        for mine, here, there in ((each.services, services, refused), (each.refused, refused, services)):
            for key, verdict in mine.items():
                if key[:1] in each.addresses:
                    here[key] = verdict
                    there.pop(key, None)


def _frame(family: str) -> dict[str, Chain]:
    """The chains that do not depend on services."""
    destination = f"{family} daddr"
    by_address = (destination, "meta l4proto", "th dport")
    by_port = by_address[1:]
    to_node = Match("fib daddr type", ("local",))
    not_loopback = Match(destination, (_LOOPBACK[family],), negate=True)
    new = Match("ct state", ("new",))
    service: Rule = (Dispatch(by_address, "services"),)
    port: Rule = (to_node, not_loopback, Dispatch(by_port, "node-ports"))
    # Processes of the node find node ports on localhost too; the kernel has no such thing for IPv6.
    own_port: Rule = (to_node, Dispatch(by_port, "node-ports")) if family == "ip" else port
    refuse: Rule = (new, Dispatch(by_address, "no-endpoint-services"))
    refuse_port: Rule = (new, to_node, not_loopback, Dispatch(by_port, "no-endpoint-node-ports"))
    # For localhost the kernel must accept its addresses on any link (route_localnet): nobody else may use them.
    martian: Rule = (
        new,
        Match(f"{family} saddr", (_LOOPBACK[family],), negate=True),
        Match(destination, (_LOOPBACK[family],)),
        DROP,
    )
    # What the nat chains translated has another destination by now; the rest asks a port that no service has.
    unknown: Rule = (new, InSet((destination,), "cluster-ips"), goto(_REFUSE))
    return {
        "nat-prerouting": Chain((service, port), Hook("nat", "prerouting", _NAT_PRIORITY)),
        "nat-output": Chain((service, own_port), Hook("nat", "output", _NAT_PRIORITY)),
        "nat-postrouting": Chain(
            ((Marked(MASQUERADE), jump("masquerade-marked")),), Hook("nat", "postrouting", _SOURCE_NAT_PRIORITY)
        ),
        # The mark goes, so that a packet that passes twice (a tunnel) is not masqueraded twice.
        "masquerade-marked": Chain(((ClearMark(MASQUERADE),), (Masquerade(),))),
        "filter-input": Chain((martian, refuse, refuse_port), Hook("filter", "input", _FILTER_PRIORITY)),
        "filter-forward": Chain((refuse, unknown), Hook("filter", "forward", _FILTER_PRIORITY)),
        "filter-output": Chain((refuse, refuse_port, unknown), Hook("filter", "output", _FILTER_PRIORITY)),
        _REFUSE: Chain(((Reject(reset=True),), (Reject(),))),
    }


def ruleset(ports: Iterable[ServicePort], node: Node) -> Ruleset:
    """The tables of the families that the cluster has, with all service ports."""
    found: dict[str, list[Fragment]] = {family: [] for family in families(node)}
    for port in ports:
        if port.family in found:
            found[port.family].append(fragment(port, node))
    return tuple(table(family, fragments) for family, fragments in found.items())


def families(node: Node) -> tuple[str, ...]:
    """The address families of the cluster, from its pod ranges."""
    dual = any(":" in each for each in node.cluster_cidrs)
    single = any(":" not in each for each in node.cluster_cidrs) or not dual
    return ("ip",) * single + ("ip6",) * dual
