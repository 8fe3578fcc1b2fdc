"""Packet rules as frozen values: tables with chains, sets and verdict maps, in the terms of nftables.

A rule is a tuple of parts that are read from left to right; a match that fails ends the rule. Field names are those of
nft ("ip saddr", "meta l4proto", "th dport"), so that a value reads like the text that the kernel gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens next: `kind` is accept, drop, return, goto or jump; the last two name a chain."""

    kind: str
    chain: str = ""


ACCEPT = Verdict("accept")
DROP = Verdict("drop")
RETURN = Verdict("return")


def goto(chain: str) -> Verdict:
    """Continue in `chain` and do not come back."""
    return Verdict("goto", chain)


def jump(chain: str) -> Verdict:
    """Continue in `chain` and come back when it ends."""
    return Verdict("jump", chain)


@dataclass(frozen=True, slots=True)
class Match:
    """The field has (or with `negate` has not) one of the values; a value may be a prefix such as 10.42.0.0/16."""

    field: str
    values: tuple[str, ...]
    negate: bool = False


@dataclass(frozen=True, slots=True)
class InSet:
    """The fields together are (or are not) an element of a named set."""

    fields: Key
    set: str
    negate: bool = False


@dataclass(frozen=True, slots=True)
class Marked:
    """All of the mark's `bits` are set, or with `wanted=False` none is."""

    bits: int
    wanted: bool = True


@dataclass(frozen=True, slots=True)
class SetMark:
    """Sets `bits` in the packet's mark."""

    bits: int


@dataclass(frozen=True, slots=True)
class ClearMark:
    """Clears `bits` in the packet's mark."""

    bits: int


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Follows the verdict that a named map has for the fields; without one the next rule is read."""

    fields: Key
    map: str


@dataclass(frozen=True, slots=True)
class Choose:
    """Goes to one of at least two chains, each with the same probability; `choose` makes it."""

    chains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Remember:
    """Adds the field's value to a dynamic set, or starts its time again."""

    field: str
    set: str


@dataclass(frozen=True, slots=True)
class DestinationNat:
    """Sends the connection to another address and port (only for the protocol, which ports need)."""

    protocol: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Masquerade:
    """Gives the connection the address of the interface it leaves by, and a random source port."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Refuses with an ICMP error, or with `reset` a TCP packet (and only such) with a reset."""

    reset: bool = False


Part = (
    Match
    | InSet
    | Marked
    | SetMark
    | ClearMark
    | Dispatch
    | Choose
    | Remember
    | DestinationNat
    | Masquerade
    | Reject
    | Verdict
)
Rule = tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Hook:
    """Where the kernel calls a chain: type nat or filter, a hook such as prerouting, and a priority (low is early)."""

    type: str
    hook: str
    priority: int


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in order; with a hook the kernel enters here (its policy is accept), otherwise only rules do."""

    rules: tuple[Rule, ...] = ()
    hook: Hook | None = None


@dataclass(frozen=True, slots=True)
class Set:
    """Elements of one type (several fields: a concatenation).

    With `timeout_s` the set is dynamic: rules add to it, so its elements are the kernel's and not part of the value.
    """

    type: Key
    elements: frozenset[Key] = frozenset()
    timeout_s: int = 0


@dataclass(frozen=True, slots=True)
class Map:
    """A verdict for each element."""

    type: Key
    elements: Mapping[Key, Verdict] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """One table of one family (ip, ip6 or inet); the mappings are never changed."""

    family: str
    name: str
    chains: Mapping[str, Chain] = field(default_factory=dict)
    sets: Mapping[str, Set] = field(default_factory=dict)
    maps: Mapping[str, Map] = field(default_factory=dict)


Ruleset = tuple[Table, ...]


def choose(chains: tuple[str, ...]) -> Choose | Verdict:
    """The part that goes to one of the chains by chance, for any number of them but zero."""
    return Choose(chains) if len(chains) > 1 else goto(chains[0])


def referenced(chain: Chain) -> set[str]:
    """The names of chains that this one leads to directly (maps aside)."""
    found: set[str] = set()
    for rule in chain.rules:
        for part in rule:
            if isinstance(part, Verdict) and part.chain:
                found.add(part.chain)
            elif isinstance(part, Choose):
                found.update(part.chains)
    return found


def problems(table: Table) -> list[str]:
    """What the kernel would refuse: chains, sets and maps that are named but not there."""
    found = []
    for name, chain in table.chains.items():
        found += [f"chain {name}: there is no chain {other}" for other in referenced(chain) - table.chains.keys()]
        for part in (part for rule in chain.rules for part in rule):
            if isinstance(part, InSet | Remember) and part.set not in table.sets:
                found.append(f"chain {name}: there is no set {part.set}")
            if isinstance(part, Dispatch) and part.map not in table.maps:
                found.append(f"chain {name}: there is no map {part.map}")
    for name, map in table.maps.items():
        for key, verdict in map.elements.items():
            if verdict.chain and verdict.chain not in table.chains:
                found.append(f"map {name}: element {' . '.join(key)}: there is no chain {verdict.chain}")
    return found
