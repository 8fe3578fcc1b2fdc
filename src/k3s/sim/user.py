"""Someone who uses the cluster: does what was asked for again until it is known to be done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from k3s.api import object as objects
from k3s.api.errors import AlreadyExists, ApiError, Conflict, NotFound, OutcomeUnknown
from k3s.api.kinds import REGISTRY, builtin
from k3s.api.object import Object
from k3s.base.entropy import Entropy
from k3s.client.client import Client

T = TypeVar("T")
NAMESPACE = builtin("v1", "Namespace")
_AGAIN_S = 0.5
_TRANSIENT = (409, 429, 500, 503, 504)


class User:
    """Verbs that survive bad weather."""

    def __init__(self, client: Client, entropy: Entropy, tell: Callable[[str, str], None]) -> None:
        self.client = client
        self.entropy = entropy
        self._tell = tell
        self.unknown = 0

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except (AlreadyExists, NotFound):
                raise
            except OutcomeUnknown:
                self.unknown += 1
            except ApiError as error:
                # A namespace that is being deleted refuses what is to be made in it, until it is gone.
                if error.code not in _TRANSIENT and "being terminated" not in error.message:
                    raise
            await asyncio.sleep(_AGAIN_S * (1 + self.entropy.fraction()))

    async def create(self, obj: Object) -> None:
        """Creates an object; one that is there already is taken as made by an earlier try."""
        kind = REGISTRY.of(obj)
        assert kind is not None, obj
        self._tell(objects.key(obj), f"user creates {obj['kind']}")
        try:
            await self._insist(lambda: self.client.create(kind, obj))
        except AlreadyExists:
            return

    async def patch(self, api_version: str, kind: str, key: str, patch: Object) -> None:
        """Changes an object by a merge patch; nothing happens when it is gone."""
        space, name = objects.split_key(key)
        self._tell(key, f"user patches {kind} {patch}")
        try:
            await self._insist(lambda: self.client.patch(builtin(api_version, kind), space, name, patch))
        except NotFound:
            return

    async def delete(self, api_version: str, kind: str, key: str, propagation: str = "") -> None:
        """Deletes an object, once."""
        space, name = objects.split_key(key)
        self._tell(key, f"user deletes {kind}")
        row = builtin(api_version, kind)
        try:
            uid = objects.uid(await self._insist(lambda: self.client.get(row, space, name)))
            await self._insist_on_deletion(
                lambda: self.client.delete(row, space, name, uid=uid, propagation=propagation)
            )
        except NotFound:
            return

    async def _insist_on_deletion(self, call: Callable[[], Awaitable[Object]]) -> None:
        async def once() -> None:
            try:
                await call()
            except Conflict as conflict:
                # Another object of that name: ours is gone.
                raise NotFound(str(conflict)) from conflict

        await self._insist(once)

    async def pods(self, namespace: str) -> list[Object]:
        """The pods of a namespace."""
        return (await self._insist(lambda: self.client.list(builtin("v1", "Pod"), namespace))).items

    async def pause(self, least_s: float, most_s: float) -> None:
        """Does nothing for a while."""
        await asyncio.sleep(least_s + (most_s - least_s) * self.entropy.fraction())

    async def exists(self, api_version: str, kind: str, key: str) -> bool:
        """Whether an object is there and not being deleted."""
        space, name = objects.split_key(key)
        try:
            obj = await self._insist(lambda: self.client.get(builtin(api_version, kind), space, name))
        except NotFound:
            return False
        return not objects.is_deleting(obj)
