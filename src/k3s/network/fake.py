"""A machine's network in memory: takes the same operations as `host.Host` and refuses what the kernel would."""

from __future__ import annotations

from dataclasses import replace

from k3s.network.diff import AddLink, DeleteLink, DeleteRoute, NetOp, SetRoute
from k3s.network.interface import HostError
from k3s.network.plan import Link, NetState


class FakeHost:
    """Implements `interface.Machine`."""

    def __init__(self) -> None:
        self.state = NetState()

    async def prepare(self, ipv6: bool = False) -> list[str]:
        """See Machine.prepare: nothing is in the way."""
        return []

    async def ensure_address(self, link: str, wanted: str) -> None:
        """See Machine.ensure_address."""
        await self.apply([AddLink(Link(link, "bridge", (wanted,)))])

    async def remove_link(self, link: str) -> None:
        """See Machine.remove_link."""
        if any(each.name == link for each in self.state.links):
            await self.apply([DeleteLink(link)])

    async def observe(self) -> NetState:
        """See Machine.observe: routes only."""
        return replace(self.state, links=frozenset())

    async def apply(self, operations: list[NetOp]) -> None:
        """See Machine.apply."""
        for operation in operations:
            links, routes = set(self.state.links), set(self.state.routes)
            match operation:
                case AddLink(link):
                    links = {each for each in links if each.name != link.name} | {link}
                case DeleteLink(name):
                    links = {each for each in links if each.name != name}
                    if len(links) == len(self.state.links):
                        raise HostError(f"Cannot delete link {name}: it is not there")
                case SetRoute(route):
                    routes = {each for each in routes if each.destination != route.destination} | {route}
                case DeleteRoute(route):
                    if route not in routes:
                        raise HostError(f"Cannot delete the route to {route.destination}: it is not there")
                    routes.discard(route)
            self.state = NetState(frozenset(links), frozenset(routes))
