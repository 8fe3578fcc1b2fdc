"""The kernel's UDP flows in memory, for simulation and tests."""

from __future__ import annotations

from collections.abc import Iterable

from k3s.proxy.flows import Flow


class FakeConnections:
    """Implements `conntrack.Connections`; `flows` may be set, `listed` counts the looks."""

    def __init__(self) -> None:
        self.flows: set[Flow] = set()
        self.listed = 0

    async def udp(self, family: str) -> set[Flow]:
        """See Connections.udp."""
        self.listed += 1
        return {each for each in self.flows if each.family == family}

    async def forget(self, flows: Iterable[Flow]) -> None:
        """See Connections.forget."""
        self.flows -= set(flows)
