"""What controllers ask the server itself before they decide, because no cache can answer it."""

from __future__ import annotations

from collections import OrderedDict

from k3s.api import object as objects
from k3s.api.errors import ApiError, MethodNotAllowed, NotFound
from k3s.api.kinds import Kind, Registry
from k3s.api.object import Object
from k3s.client.client import Client
from k3s.controllers import gc
from k3s.controllers.known import API_SERVICE, NAMESPACE
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
                failures.append(str(error))
                continue
            if items:
                found[kind] = items
        return Contents(found, tuple(failures), tuple(await _unavailable(client)))

    return observe


async def _unavailable(client: Client) -> list[str]:
    """The group versions of extension API servers that do not answer: nobody knows what the namespace has of them."""
    found = []
    for service in (await client.list(API_SERVICE)).items:
        spec = service["spec"]
        if spec.get("service") and "False" in (
            condition["status"]
            for condition in service.get("status", {}).get("conditions") or ()
            if condition["type"] == "Available"
        ):
            found.append(f"{spec['group']}/{spec['version']}")
    return found


class Owners:
    """Looks up owners that no cache has. A uid never comes back, so what was absent once is remembered."""

    # As many as a large namespace that goes at once; the oldest are asked for again.
    _KNOWN = 2048

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        # By uid, and the place where it was looked for; no place when it is gone from everywhere.
        self._absent: OrderedDict[tuple[str, str], None] = OrderedDict()

    def died(self, uid: str, place: str = "") -> None:
        """Remembers that the object with this uid is gone, or is not at `place`."""
        self._absent[uid, place] = None
        if len(self._absent) > self._KNOWN:
            self._absent.popitem(last=False)

    async def look_up(self, key: str, world: World, client: Client) -> dict[str, Object | None]:
        """The owners of an object that the caches do not have, by uid; None for one that is gone, `gc.ELSEWHERE` for
        one in a namespace where the reference does not reach. Raises ApiError."""
        kind, plain = gc.locate(self._registry, key)
        obj = world.get(kind, plain) if kind is not None and kind in world.kinds() else None
        found: dict[str, Object | None] = {}
        if kind is None or obj is None or objects.is_deleting(obj):
            return found
        for ref in objects.owner_refs(obj):
            owner, uid = gc.owner_of(self._registry, kind, obj, ref), ref["uid"]
            if owner is None:
                named = gc.owner_kind(self._registry, ref)
                if named is not None and _somewhere(world, named, uid):
                    found[uid] = gc.ELSEWHERE
            elif gc.cached(world, owner, uid) is None:
                found[uid] = await self._find(world, client, owner, uid)
        return found

    async def _find(self, world: World, client: Client, owner: gc.Owner, uid: str) -> Object | None:
        if (uid, "") in self._absent or (uid, owner.key) in self._absent:
            return None
        try:
            live = await client.get(owner.kind, *objects.split_key(owner.key))
        except NotFound:
            live = {}
        if objects.uid(live) == uid:
            return live
        if _somewhere(world, owner.kind, uid):
            return gc.ELSEWHERE
        self.died(uid, owner.key)
        return None


def _somewhere(world: World, kind: Kind, uid: str) -> bool:
    """Whether the cache has an object with this uid in any namespace."""
    return kind in world.kinds() and any(objects.uid(obj) == uid for obj in world.list(kind))
