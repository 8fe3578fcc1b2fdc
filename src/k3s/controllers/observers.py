"""What controllers ask the server itself before they decide, because no cache can answer it."""

from __future__ import annotations

from collections import OrderedDict

from k3s.api import object as objects
from k3s.api.errors import ApiError, MethodNotAllowed, NotFound
from k3s.api.kinds import Kind, Registry
from k3s.api.object import Object
from k3s.client.client import Client
from k3s.controllers import gc
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


class Owners:
    """Looks up owners that no cache has. A uid never comes back, so what was absent once is remembered."""

    # As many as a large namespace that goes at once; the oldest are asked for again.
    _KNOWN = 2048

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._absent: OrderedDict[str, None] = OrderedDict()

    def died(self, uid: str) -> None:
        """Remembers that the object with this uid is gone."""
        self._absent[uid] = None
        if len(self._absent) > self._KNOWN:
            self._absent.popitem(last=False)

    async def look_up(self, key: str, world: World, client: Client) -> dict[str, Object | None]:
        """The owners of an object that the caches do not have, by uid; None for one that is gone. Raises ApiError."""
        kind, plain = gc.locate(self._registry, key)
        obj = world.get(kind, plain) if kind is not None and kind in world.kinds() else None
        found: dict[str, Object | None] = {}
        if kind is None or obj is None or objects.is_deleting(obj):
            return found
        for ref in objects.owner_refs(obj):
            owner, uid = gc.owner_of(self._registry, kind, obj, ref), ref["uid"]
            if owner is not None and gc.cached(world, owner, uid) is None:
                found[uid] = None if uid in self._absent else await self._ask(client, owner, uid)
        return found

    async def _ask(self, client: Client, owner: gc.Owner, uid: str) -> Object | None:
        try:
            live = await client.get(owner.kind, *objects.split_key(owner.key))
        except NotFound:
            live = {}
        if objects.uid(live) == uid:
            return live
        self.died(uid)
        return None
