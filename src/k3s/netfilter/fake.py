"""A packet filter in memory that passes the same contract tests as the kernel's; for simulation and tests."""

from __future__ import annotations

from k3s.netfilter.interface import FilterError
from k3s.netfilter.ruleset import Ruleset, Table, problems

_Name = tuple[str, str]


class FakeFilter:
    """Implements `interface.PacketFilter`; `applied` counts the changes that took effect."""

    def __init__(self) -> None:
        self._tables: dict[_Name, Table] = {}
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
        for table in old or ():
            del self._tables[(table.family, table.name)]
        self._tables |= {(table.family, table.name): table for table in new}
        self.applied += 1

    async def delete(self, family: str, name: str) -> None:
        """See PacketFilter.delete."""
        self._tables.pop((family, name), None)
