"""Follows a virtual packet through a ruleset, so that tests can say where a packet ends without sending one.

All outcomes are given, each with its probability: a rule that chooses at random splits the way.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from k3s.netfilter.ruleset import (
    Choose,
    ClearMark,
    DestinationNat,
    Dispatch,
    InSet,
    Marked,
    Masquerade,
    Match,
    Reject,
    Remember,
    Rule,
    Ruleset,
    SetMark,
    Table,
    Verdict,
)

# A longer way than this is a loop of chains, which the kernel refuses to load.
_DEEPEST = 16


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection. `from_here` is true when a process of this machine sends it."""

    source: str
    destination: str
    port: int
    protocol: str = "tcp"
    from_here: bool = False
    interface: str = "eth0"
    mark: int = 0
    masqueraded: bool = False
    translated: bool = False

    @property
    def family(self) -> str:
        """ip or ip6."""
        return "ip6" if ":" in self.destination else "ip"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One end of the way: verdict accept, drop or reject (reset for TCP), and what the packet looks like there."""

    verdict: str
    destination: str
    port: int
    masqueraded: bool
    probability: Fraction = Fraction(1)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the rules ask of the machine: its own addresses, and the clients that dynamic sets remember."""

    addresses: frozenset[str] = frozenset()
    remembered: Mapping[str, frozenset[str]] = field(default_factory=dict)


_End = tuple[Fraction, Packet, str]


def follow(ruleset: Ruleset, packet: Packet, machine: Machine) -> list[Outcome]:
    """Where the packet ends: every outcome that is possible, the probabilities adding up to one."""
    ends = [(Fraction(1), packet, "accept")]
    ends = _hook(ruleset, ends, "output" if packet.from_here else "prerouting", machine)
    routed: list[_End] = []
    for end in ends:
        local = end[1].destination in machine.addresses
        hooks = ("postrouting", "input") if packet.from_here and local else ("postrouting",)
        if not packet.from_here:
            hooks = ("input",) if local else ("forward", "postrouting")
        after = [end]
        for hook in hooks:
            after = _hook(ruleset, after, hook, machine)
        routed += after
    merged: dict[tuple[str, str, int, bool], Fraction] = {}
    for probability, at, verdict in routed:
        key = (verdict, at.destination, at.port, at.masqueraded)
        merged[key] = merged.get(key, Fraction(0)) + probability
    return [Outcome(*key, probability) for key, probability in merged.items()]


def _hook(ruleset: Ruleset, ends: list[_End], hook: str, machine: Machine) -> list[_End]:
    """Every base chain of the hook, the lowest priority number first."""
    found = [
        (chain.hook, table, name)
        for table in ruleset
        for name, chain in table.chains.items()
        if chain.hook and chain.hook.hook == hook
    ]
    for base, table, name in sorted(found, key=lambda each: each[0].priority):
        following: list[_End] = []
        for probability, packet, verdict in ends:
            wrong_family = table.family not in ("inet", packet.family)
            # The kernel asks the nat chains once a connection: the first translation stands.
            settled = base.type == "nat" and (packet.masqueraded if hook == "postrouting" else packet.translated)
            if verdict != "accept" or wrong_family or settled:
                following.append((probability, packet, verdict))
                continue
            way = _Way(table, machine)
            for share, at, end in way.chain(name, packet, 0):
                following.append((probability * share, at, "accept" if end == "return" else end))
        ends = following
    return ends


@dataclass(frozen=True, slots=True)
class _Way:
    table: Table
    machine: Machine

    def chain(self, name: str, packet: Packet, depth: int) -> Iterator[_End]:
        """The ends of a packet that enters a chain; the end "return" goes on after the caller's jump."""
        assert depth <= _DEEPEST, f"chain {name} is part of a loop"
        yield from self._rules(self.table.chains[name].rules, 0, packet, depth)

    def _rules(self, rules: tuple[Rule, ...], at: int, packet: Packet, depth: int) -> Iterator[_End]:
        if at == len(rules):
            yield Fraction(1), packet, "return"
            return
        for share, after, end in self._rule(rules[at], packet, depth):
            if end == "next":
                for rest, last, verdict in self._rules(rules, at + 1, after, depth):
                    yield share * rest, last, verdict
            else:
                yield share, after, end

    def _rule(self, rule: Rule, packet: Packet, depth: int) -> Iterator[_End]:
        """The ends of one rule; "next" when the next rule is to be read."""
        for part in rule:
            match part:
                case Match() | InSet() | Marked():
                    if not self._matches(part, packet):
                        yield Fraction(1), packet, "next"
                        return
                case SetMark(bits):
                    packet = replace(packet, mark=packet.mark | bits)
                case ClearMark(bits):
                    packet = replace(packet, mark=packet.mark & ~bits)
                case Remember():
                    pass
                case _:
                    yield from self._last(part, packet, depth)
                    return
        yield Fraction(1), packet, "next"

    def _last(
        self,
        part: Verdict | Dispatch | Choose | DestinationNat | Masquerade | Reject,
        packet: Packet,
        depth: int,
    ) -> Iterator[_End]:
        match part:
            case Verdict():
                yield from self._verdict(part, packet, depth)
            case Dispatch(fields, name):
                verdict = self.table.maps[name].elements.get(tuple(_value(each, packet) for each in fields))
                yield from self._verdict(verdict or Verdict("next"), packet, depth)
            case Choose(chains):
                for chain in chains:
                    for share, at, end in self.chain(chain, packet, depth + 1):
                        yield share / len(chains), at, end
            case DestinationNat(protocol, address, port):
                if packet.protocol == protocol:
                    yield Fraction(1), replace(packet, destination=address, port=port, translated=True), "accept"
                else:
                    yield Fraction(1), packet, "next"
            case Masquerade():
                yield Fraction(1), replace(packet, masqueraded=True), "accept"
            case Reject(reset):
                yield Fraction(1), packet, "next" if reset and packet.protocol != "tcp" else "reject"

    def _verdict(self, verdict: Verdict, packet: Packet, depth: int) -> Iterator[_End]:
        if not verdict.chain:
            yield Fraction(1), packet, verdict.kind
            return
        for share, at, end in self.chain(verdict.chain, packet, depth + 1):
            yield share, at, "next" if end == "return" and verdict.kind == "jump" else end

    def _matches(self, part: Match | InSet | Marked, packet: Packet) -> bool:
        match part:
            case Marked(bits, wanted):
                return (packet.mark & bits == bits) if wanted else (packet.mark & bits == 0)
            case InSet(fields, name, negate):
                values = tuple(_value(each, packet) for each in fields)
                static = values in self.table.sets[name].elements
                return (static or values[0] in self.machine.remembered.get(name, frozenset())) != negate
            case Match(name, values, negate):
                return self._compare(name, values, packet) != negate

    def _compare(self, name: str, values: tuple[str, ...], packet: Packet) -> bool:
        if name.startswith("fib"):
            address = packet.source if name == "fib saddr type" else packet.destination
            return (address in self.machine.addresses) == ("local" in values)
        actual = _value(name, packet)
        return any(_equal(actual, value) for value in values)


def _equal(actual: str, wanted: str) -> bool:
    if "/" not in wanted:
        return actual == wanted
    return ipaddress.ip_address(actual) in ipaddress.ip_network(wanted)


def _value(name: str, packet: Packet) -> str:
    match name.split():
        case [_, "saddr"]:
            return packet.source
        case [_, "daddr"]:
            return packet.destination
        case ["th", "dport"]:
            return str(packet.port)
        case ["meta", "l4proto"]:
            return packet.protocol
        case ["ct", "state"]:
            return "new"
        case ["iifname"]:
            return packet.interface
    raise NotImplementedError(f"a virtual packet has no field {name!r}")
