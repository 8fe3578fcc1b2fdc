"""The seam to the kernel's packet filter: values in, values out. `kernel` and `fake` implement it alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from k3s.netfilter.ruleset import Ruleset, Table


class FilterError(Exception):
    """The kernel refused the rules, or its tool is missing; nothing was changed."""


class PacketFilter(Protocol):
    """Tables of ours in a packet filter. Every change happens whole or not at all."""

    async def observe(self, family: str, name: str) -> Table | None:
        """The table as it is, `None` when there is none. Raises FilterError, also when the table is not ours."""

    async def apply(self, old: Ruleset | None, new: Ruleset) -> None:
        """Turns the tables that are as in `old` into `new`; with `None` the tables named in `new` are replaced.

        A table of `old` that `new` does not have is deleted. Raises FilterError, for instance when `old` is not true.
        """

    async def delete(self, family: str, name: str) -> None:
        """Deletes a whole table; nothing happens when it is not there."""

    def subscribe(self, removed: Callable[[str, str], None]) -> Callable[[], None]:
        """Calls `removed(family, name)` after any table was deleted, by us or by others; the result ends that.

        When too much happened at once to be told, it calls with empty strings: look at everything.
        """
