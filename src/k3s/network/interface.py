"""The seam to the machine's network: what is observed and applied. `host` and `fake` implement it alike."""

from __future__ import annotations

from typing import Protocol

from k3s.network.diff import NetOp
from k3s.network.plan import NetState


class HostError(Exception):
    """The kernel or one of its tools refused."""


class Machine(Protocol):
    """The node's kernel, as far as links, routes and settings go."""

    async def prepare(self, ipv6: bool = False) -> list[str]:
        """Turns on forwarding and rules for bridged packets; answers what could not be done, for people to read."""

    async def ensure_address(self, link: str, wanted: str) -> None:
        """Makes a link that carries exactly this address (alone, or with prefix length). Raises HostError."""

    async def remove_link(self, link: str) -> None:
        """Removes a link of ours; nothing happens when it is not there."""

    async def observe(self) -> NetState:
        """The routes that are ours. Raises HostError."""

    async def apply(self, operations: list[NetOp]) -> None:
        """Does the operations in order. Raises HostError at the first that is refused."""
