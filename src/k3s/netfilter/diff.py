"""From the rules that are to the rules that shall be: the smallest nft script, whose cost follows the change.

The kernel takes a script whole or not at all. Within it names are made before they are used and dropped after their
last use: sets, maps and empty chains first, then elements and rules, then what nothing names any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from k3s.netfilter import text
from k3s.netfilter.ruleset import Chain, Key, Map, Ruleset, Set, Table, Verdict


def changes(old: Ruleset | None, new: Ruleset) -> str:
    """The script that turns `old` into `new`; empty when nothing differs. `None`: whatever is there goes first."""
    before = {(table.family, table.name): table for table in old or ()}
    after = {(table.family, table.name): table for table in new}
    lines: list[str] = []
    for name, table in after.items():
        known = before.get(name)
        if old is None or (known and _is_other(known, table)):
            known = None
            # "add" first, because deleting a table that is not there fails the whole script.
            lines += [f"add table {' '.join(name)}", f"delete table {' '.join(name)}"]
        if known is None:
            lines.append(f"add table {' '.join(name)}")
        lines += _table(known or Table(table.family, table.name), table)
    lines += [f"delete table {' '.join(name)}" for name in before.keys() - after.keys()]
    return "".join(f"{line}\n" for line in lines)


def _table(old: Table, new: Table) -> Iterator[str]:
    where = f"{new.family} {new.name}"
    for name in new.sets.keys() - old.sets.keys():
        yield f"add set {where} {name} {{ {'; '.join(text.set_lines(new.sets[name], elements=False))}; }}"
    for name in new.maps.keys() - old.maps.keys():
        yield f"add map {where} {name} {{ {'; '.join(text.map_lines(new.maps[name], elements=False))}; }}"
    for name, chain in new.chains.items():
        if name not in old.chains:
            yield f"add chain {where} {name}" + (f" {{ {text.hook(chain.hook)} }}" if chain.hook else "")
    yield from _elements(where, old, new)
    for name, chain in new.chains.items():
        yield from _rules(f"{where} {name}", old.chains.get(name), chain)
    gone = [name for name in old.chains if name not in new.chains]
    yield from (f"flush chain {where} {name}" for name in gone)
    yield from (f"delete set {where} {name}" for name in old.sets.keys() - new.sets.keys())
    yield from (f"delete map {where} {name}" for name in old.maps.keys() - new.maps.keys())
    yield from (f"delete chain {where} {name}" for name in gone)


def _is_other(old: Table, new: Table) -> bool:
    """Whether a type or a hook differs, which the kernel cannot change in place: a new release brings that."""
    return (
        any(
            (name in old.sets and (old.sets[name].type, old.sets[name].timeout_s) != (set.type, set.timeout_s))
            for name, set in new.sets.items()
        )
        or any((name in old.maps and old.maps[name].type != map.type) for name, map in new.maps.items())
        or any((name in old.chains and old.chains[name].hook != chain.hook) for name, chain in new.chains.items())
    )


def _rules(where: str, old: Chain | None, new: Chain) -> Iterator[str]:
    if old is not None:
        if old.rules == new.rules:
            return
        if old.rules:
            yield f"flush chain {where}"
    for rule in new.rules:
        yield f"add rule {where} {text.rule(rule)}"


def _elements(where: str, old: Table, new: Table) -> Iterator[str]:
    for name, set in new.sets.items():
        had = old.sets.get(name, Set(set.type)).elements
        yield from _listed("delete", where, name, sorted(map(text.concatenated, had - set.elements)))
        yield from _listed("add", where, name, sorted(map(text.concatenated, set.elements - had)))
    for name, map_ in new.maps.items():
        before: Mapping[Key, Verdict] = old.maps.get(name, Map(map_.type)).elements
        after = map_.elements
        if before is after:
            continue
        stale = [key for key, verdict in before.items() if after.get(key) != verdict]
        fresh = [(key, verdict) for key, verdict in after.items() if before.get(key) != verdict]
        yield from _listed("delete", where, name, [text.concatenated(key) for key in stale])
        yield from _listed("add", where, name, [text.element(*each) for each in fresh])


def _listed(verb: str, where: str, name: str, elements: list[str]) -> Iterator[str]:
    if elements:
        yield f"{verb} element {where} {name} {{ {', '.join(elements)} }}"
