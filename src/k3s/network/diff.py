"""From the links and routes that are to those that shall be, as operations in an order that works."""

from __future__ import annotations

from dataclasses import dataclass

from k3s.network.plan import Link, NetState, Route


@dataclass(frozen=True, slots=True)
class AddLink:
    """Makes a link, or gives one that is there its addresses, and sets it up."""

    link: Link


@dataclass(frozen=True, slots=True)
class DeleteLink:
    """Removes a link with everything on it."""

    name: str


@dataclass(frozen=True, slots=True)
class SetRoute:
    """Makes a route or replaces the one to the same destination."""

    route: Route


@dataclass(frozen=True, slots=True)
class DeleteRoute:
    """Removes a route."""

    route: Route


NetOp = AddLink | DeleteLink | SetRoute | DeleteRoute


def diff(actual: NetState, desired: NetState) -> list[NetOp]:
    """Links before the routes that need them; what goes, goes last, and a route that is replaced is not deleted."""
    names = {link.name for link in desired.links}
    destinations = {route.destination for route in desired.routes}
    operations: list[NetOp] = [AddLink(link) for link in sorted(desired.links - actual.links)]
    operations += [SetRoute(route) for route in sorted(desired.routes - actual.routes)]
    gone = sorted(actual.routes - desired.routes)
    operations += [DeleteRoute(route) for route in gone if route.destination not in destinations]
    operations += [DeleteLink(link.name) for link in sorted(actual.links - desired.links) if link.name not in names]
    return operations
