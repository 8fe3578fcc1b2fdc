"""A packet filter in memory that passes the same contract tests as the kernel's; for simulation and tests."""

from __future__ import annotations

from collections.abc import Callable

from k3s.netfilter.interface import FilterError
from k3s.netfilter.ruleset import Ruleset, Table, problems

_Name = tuple[str, str]


class FakeFilter:
    """Implements `interface.PacketFilter`; `applied` counts the changes that took effect."""

    def __init__(self) -> None:
        self._tables: dict[_Name, Table] = {}
        self._subscribers: list[Callable[[str, str], None]] = []
        self.applied = 0

    @property
    def ruleset(self) -> Ruleset:
        """All tables, to follow packets through."""
        return tuple(self._tables.values())

    async def observe(self, family: str, name: str) -> Table | None:
        """See PacketFilter.observe."""
        return self._tables.get((family, name))

    async def apply(self, old: Ruleset | None, new: Ruleset) -> None:
        """See PacketFilter.apply."""
        for table in old or ():
            if self._tables.get((table.family, table.name)) != table:
                raise FilterError(f"Cannot change packet rules: table {table.family} {table.name} is not as expected")
        for table in new:
            if wrong := problems(table):
                raise FilterError(f"Cannot change packet rules: {'; '.join(wrong)}")
        if old == new:
            return
        after = {(table.family, table.name): table for table in new}
        gone = [name for name in self._tables if name in after] if old is None else []
        gone += [(table.family, table.name) for table in old or () if (table.family, table.name) not in after]
        self._tables = {name: table for name, table in self._tables.items() if name not in gone} | after
        self.applied += 1
        self._tell(gone)

    async def delete(self, family: str, name: str) -> None:
        """See PacketFilter.delete."""
        if self._tables.pop((family, name), None) is not None:
            self._tell([(family, name)])

    def subscribe(self, removed: Callable[[str, str], None]) -> Callable[[], None]:
        """See PacketFilter.subscribe."""
        self._subscribers.append(removed)
        return lambda: self._subscribers.remove(removed)

    def _tell(self, gone: list[_Name]) -> None:
        for family, name in gone:
            for each in list(self._subscribers):
                each(family, name)
