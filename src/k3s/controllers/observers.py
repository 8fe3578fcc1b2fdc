"""What controllers ask the server itself before they decide, because no cache can answer it."""

from __future__ import annotations

from k3s.api import object as objects
from k3s.api.errors import ApiError, MethodNotAllowed, NotFound
from k3s.api.kinds import Kind, Registry
from k3s.api.object import Object
from k3s.client.client import Client
from k3s.controllers.known import NAMESPACE
from k3s.controllers.namespace import Contents
from k3s.controllers.spec import Observe
from k3s.controllers.world import World


def contents(registry: Registry) -> Observe:
    """Looks into a namespace that is being deleted, at the server itself: what caches lack would be left behind."""

    async def observe(key: str, world: World, client: Client) -> Contents | None:
        space = world.get(NAMESPACE, key)
        if space is None or not objects.is_deleting(space):
            return None
        found: dict[Kind, list[Object]] = {}
        failures: list[str] = []
        for kind in registry.stored():
            if not kind.namespaced or not {"list", "deletecollection"} <= set(kind.verbs):
                continue
            try:
                items = (await client.list(kind, key)).items
            except (NotFound, MethodNotAllowed):
                continue
            except ApiError as error:
                failures.append(f"{kind.qualified}: {error}")
                continue
            if items:
                found[kind] = items
        return Contents(found, tuple(failures))

    return observe
