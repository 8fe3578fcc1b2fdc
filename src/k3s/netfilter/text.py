"""Rule values to nft's language and back.

`parse_table` reads what `nft -y list table` of nft 1.0.6 prints for tables that `table` wrote; anything else is a
ParseError.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from k3s.netfilter.ruleset import (
    Chain,
    Choose,
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
    Set,
    SetMark,
    Table,
    Verdict,
)

# Enough clients for one service's affinity; the kernel refuses more rather than growing without limit.
_DYNAMIC_SIZE = 65535
_ALL_BITS = 0xFFFFFFFF


class ParseError(ValueError):
    """The text is not one of our tables."""


def table(value: Table) -> str:
    """A whole table as nft prints it."""
    lines = [f"table {value.family} {value.name} {{"]
    for name, set in value.sets.items():
        lines += [f"\tset {name} {{", *(f"\t\t{line}" for line in set_lines(set)), "\t}"]
    for name, map in value.maps.items():
        lines += [f"\tmap {name} {{", *(f"\t\t{line}" for line in map_lines(map)), "\t}"]
    for name, chain in value.chains.items():
        lines.append(f"\tchain {name} {{")
        if chain.hook:
            lines.append(f"\t\t{hook(chain.hook)}")
        lines += [f"\t\t{rule(each)}" for each in chain.rules]
        lines.append("\t}")
    return "\n".join([*lines, "}", ""])


def set_lines(value: Set, elements: bool = True) -> Iterator[str]:
    """The body of a set's declaration."""
    yield f"type {concatenated(value.type)}"
    if value.timeout_s:
        yield f"size {_DYNAMIC_SIZE}"
        yield "flags dynamic,timeout"
        yield f"timeout {value.timeout_s}s"
    elif elements and value.elements:
        yield f"elements = {{ {', '.join(concatenated(each) for each in sorted(value.elements))} }}"


def map_lines(value: Map, elements: bool = True) -> Iterator[str]:
    """The body of a map's declaration."""
    yield f"type {concatenated(value.type)} : verdict"
    if elements and value.elements:
        yield f"elements = {{ {', '.join(element(*each) for each in sorted(value.elements.items(), key=_first))} }}"


def _first(item: tuple[Key, Verdict]) -> Key:
    return item[0]


def hook(value: Hook) -> str:
    """The line that makes a chain a base chain."""
    return f"type {value.type} hook {value.hook} priority {value.priority}; policy accept;"


def element(key: Key, value: Verdict) -> str:
    """One element of a verdict map."""
    return f"{concatenated(key)} : {verdict(value)}"


def concatenated(fields: Iterable[str]) -> str:
    """Several fields or values as one."""
    return " . ".join(fields)


def verdict(value: Verdict) -> str:
    """A verdict with its chain."""
    return f"{value.kind} {value.chain}" if value.chain else value.kind


def rule(parts: Rule) -> str:
    """One rule on one line."""
    return " ".join(map(_part, parts))


def _part(part: Part) -> str:  # one line a case: a table of the language
    match part:
        case Verdict():
            return verdict(part)
        case Match(field, values, negate):
            listed = values[0] if len(values) == 1 else f"{{ {', '.join(values)} }}"
            return f"{field} {'!= ' if negate else ''}{listed}"
        case InSet(fields, set, negate):
            return f"{concatenated(fields)} {'!= ' if negate else ''}@{set}"
        case Marked(bits, wanted):
            return f"meta mark & {bits:#010x} == {bits if wanted else 0:#010x}"
        case SetMark(bits):
            return f"meta mark set meta mark | {bits:#010x}"
        case ClearMark(bits):
            return f"meta mark set meta mark & {_ALL_BITS & ~bits:#010x}"
        case Dispatch(fields, map):
            return f"{concatenated(fields)} vmap @{map}"
        case Choose(chains):
            listed = ", ".join(f"{index} : goto {chain}" for index, chain in enumerate(chains))
            return f"numgen random mod {len(chains)} vmap {{ {listed} }}"
        case Remember(field, set):
            return f"update @{set} {{ {field} }}"
        case DestinationNat(protocol, address, port):
            shown = f"[{address}]" if ":" in address else address
            return f"meta l4proto {protocol} dnat to {shown}:{port}"
        case Masquerade():
            return "masquerade fully-random"
        case Reject(reset):
            return "meta l4proto tcp reject with tcp reset" if reset else "reject"


_TABLE = re.compile(r"\s*table (\w+) (\S+) \{")
_OBJECT = re.compile(r"(set|map|chain) (\S+) \{")
_HOOK = re.compile(r"type (\w+) hook (\w+) priority (-?\d+); policy accept;")
_WORDS = re.compile(r"\{|\}|,|[^\s{},]+")


def parse_table(text: str) -> Table:
    """The table in a listing of nft. Raises ParseError."""
    lines = iter(text.splitlines())
    first = _TABLE.match(next(lines, ""))
    if not first:
        raise ParseError("Cannot read the table: the first line is not one of a table")
    chains: dict[str, Chain] = {}
    sets: dict[str, Set] = {}
    maps: dict[str, Map] = {}
    for line in lines:
        found = _OBJECT.match(line.strip())
        if not found:
            continue
        kind, name = found.groups()
        body = list(_body(lines))
        if kind == "chain":
            chains[name] = _parse_chain(body)
        elif kind == "set":
            sets[name] = _parse_set(body)
        else:
            maps[name] = _parse_map(body)
    return Table(first[1], first[2], chains, sets, maps)


def _body(lines: Iterator[str]) -> Iterator[str]:
    """The lines of one object, long element lists joined to one line."""
    pending = ""
    for raw in lines:
        line = f"{pending} {raw.strip()}".strip()
        if line == "}":
            return
        if line.count("{") > line.count("}"):
            pending = line
            continue
        pending = ""
        yield line


def _parse_chain(body: list[str]) -> Chain:
    hooked = _HOOK.fullmatch(body[0]) if body else None
    rules = body[1:] if hooked else body
    return Chain(tuple(map(parse_rule, rules)), Hook(hooked[1], hooked[2], int(hooked[3])) if hooked else None)


def _parse_set(body: list[str]) -> Set:
    values = _properties(body)
    timeout = values.get("timeout", "")
    if timeout:  # the elements of a dynamic set come and go with the traffic
        return Set(_split(values["type"]), timeout_s=_seconds(timeout))
    return Set(_split(values["type"]), frozenset(_split(each) for each in _elements(values)))


def _parse_map(body: list[str]) -> Map:
    values = _properties(body)
    elements = {}
    for each in _elements(values):
        key, _, target = each.partition(" : ")
        elements[_split(key)] = _parse_verdict(target.split())
    return Map(_split(values["type"].removesuffix(" : verdict")), elements)


def _properties(body: list[str]) -> dict[str, str]:
    found = {}
    for line in body:
        name, _, value = line.partition(" ")
        found[name] = value.strip()
    if "type" not in found:
        raise ParseError("Cannot read a set or map: it has no type")
    return found


def _elements(values: dict[str, str]) -> list[str]:
    listed = values.get("elements", "").removeprefix("=").strip()
    return [each.strip() for each in listed.strip("{} ").split(",") if each.strip()]


def _split(text: str) -> Key:
    return tuple(each.strip() for each in text.split(" . "))


_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def _seconds(text: str) -> int:
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([dhms])", text))


def _parse_verdict(words: list[str]) -> Verdict:
    if len(words) == 2 and words[0] in ("goto", "jump"):
        return Verdict(*words)
    if len(words) == 1 and words[0] in ("accept", "drop", "return"):
        return Verdict(words[0])
    raise ParseError(f"Cannot read the verdict {' '.join(words)!r}")


def parse_rule(text: str) -> Rule:
    """The parts of a rule as nft lists it. Raises ParseError."""
    words = _WORDS.findall(text)
    parts: list[Part] = []
    while words:
        part, used = _parse_part(words)
        parts.append(part)
        words = words[used:]
    return tuple(parts)


def _parse_part(words: list[str]) -> tuple[Part, int]:
    """The first part of the words, and how many words it takes."""
    match words:
        case ["accept" | "drop" | "return", *_]:
            return Verdict(words[0]), 1
        case ["goto" | "jump", chain, *_]:
            return Verdict(words[0], chain), 2
        case ["masquerade", "fully-random", *_]:
            return Masquerade(), 2
        case ["meta", "l4proto", "tcp", "reject", "with", "tcp", "reset", *_]:
            return Reject(reset=True), 7
        case ["reject", "with", "tcp", "reset", *_]:
            return Reject(reset=True), 4
        case ["reject", *_]:
            return Reject(), 1
        case ["meta", "mark", "&", bits, "==", value, *_]:
            return Marked(int(bits, 16), int(value, 16) != 0), 6
        case ["meta", "mark", "set", "meta", "mark", "|", bits, *_]:
            return SetMark(int(bits, 16)), 7
        case ["meta", "mark", "set", "meta", "mark", "&", bits, *_]:
            return ClearMark(_ALL_BITS & ~int(bits, 16)), 7
        case ["meta", "l4proto", protocol, "dnat", "to", target, *_]:
            address, _, port = target.rpartition(":")
            return DestinationNat(protocol, address.strip("[]"), int(port)), 6
        case ["numgen", "random", "mod", _, "vmap", "{", *rest]:
            end = rest.index("}")
            return Choose(tuple(rest[at + 1] for at in range(end) if rest[at] == "goto")), 7 + end
        case ["update", set, "{", *rest]:
            end = rest.index("}")
            return Remember(" ".join(rest[:end]), set.removeprefix("@")), 4 + end
    return _parse_match(words)


_FIELD_WORDS = {
    "ip": 2,
    "ip6": 2,
    "meta": 2,
    "th": 2,
    "ct": 2,
    "tcp": 2,
    "udp": 2,
    "fib": 3,
    "iifname": 1,
    "oifname": 1,
}


def _parse_match(words: list[str]) -> tuple[Part, int]:
    """A comparison, a look-up in a set, or one in a map."""
    fields: list[str] = []
    at = 0
    while True:
        size = _FIELD_WORDS.get(words[at]) if at < len(words) else None
        if size is None:
            raise ParseError(f"Cannot read the rule at {' '.join(words)!r}")
        fields.append(" ".join(words[at : at + size]))
        at += size
        if at < len(words) and words[at] == ".":
            at += 1
            continue
        break
    if words[at : at + 1] == ["vmap"]:
        return Dispatch(tuple(fields), words[at + 1].removeprefix("@")), at + 2
    negate = words[at : at + 1] == ["!="]
    at += negate
    if at >= len(words):
        raise ParseError(f"Cannot read the rule at {' '.join(words)!r}")
    if words[at].startswith("@"):
        return InSet(tuple(fields), words[at].removeprefix("@"), negate), at + 1
    if words[at] == "{":
        end = words.index("}", at)
        values = tuple(word for word in words[at + 1 : end] if word != ",")
        return Match(fields[0], values, negate), end + 1
    return Match(fields[0], (words[at].strip('"'),), negate), at + 1
