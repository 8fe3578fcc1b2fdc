"""Follows APIServices: makes those of this server's own group versions, checks the others, and knows the way to them.

A check happens when an APIService, its Service or that one's endpoints change, and every half minute for as long as
there is an APIService of another server: without one nothing ever wakes up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from k3s.api.errors import ApiError
from k3s.api.kinds import Registry
from k3s.api.object import Object
from k3s.apiserver.aggregation import services as rules
from k3s.apiserver.aggregation.remote import Backend, Dial, NoAnswer, Remote
from k3s.apiserver.aggregation.services import API_SERVICE, Found, Groups
from k3s.apiserver.cache import Cache, Change
from k3s.apiserver.crud import Crud
from k3s.apiserver.definitions import DEFINITION
from k3s.apiserver.request import Target
from k3s.apiserver.services import SERVICE, SLICE, service_of
from k3s.base.aio import Tasks
from k3s.base.clock import Clock
from k3s.base.duplex import connect
from k3s.client.tls import Credentials
from k3s.client.transport import Request

if TYPE_CHECKING:
    from k3s.apiserver.server import Local

log = logging.getLogger(__name__)

RECHECK_S = 30.0
_FIRST_RETRY_S = 1.0


class Others(NamedTuple):
    """`front_proxy` is the certificate that other servers know us by; `backends` are those in this process, by
    namespace and name of the Service that stands for them."""

    front_proxy: Credentials = Credentials()
    backends: Mapping[tuple[str, str], Backend] = {}


ALONE = Others()


class Aggregator:
    """The APIServices of one server."""

    def __init__(
        self,
        registry: Registry,
        cache: Cache,
        crud: Crud,
        clock: Clock,
        others: Others,
        dial: Dial = connect,
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._crud = crud
        self._clock = clock
        self._others = others
        self._dial = dial
        self._itself: Local | None = None
        #: The other servers by (group, version); asked for every request, so mostly empty and quick.
        self.remotes: dict[tuple[str, str], Remote] = {}
        #: Changes whenever what the others serve does: for what is derived from it.
        self.generation = 0
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._tasks = Tasks("aggregation")
        self._managed = -1

    def groups(self) -> Groups:
        """Each group of this and the other servers with its versions, in the order of discovery."""
        return rules.groups(self._registry.groups(), {key: remote.spec for key, remote in self.remotes.items()})

    async def start(self, itself: Local) -> None:
        """Makes the APIServices that are missing, and follows all from here on."""
        self._itself = itself
        for obj in self._cache.list(API_SERVICE):
            self._route(obj)
            if "service" not in obj["spec"]:
                self._tell_soon(obj)
        self._cache.listen(API_SERVICE, self._changed)
        self._cache.listen(DEFINITION, self._definitions_changed)
        self._cache.listen(SERVICE, lambda change: self._concerns(change, change.item.name))
        self._cache.listen(SLICE, self._slice_changed)
        built_in = [
            rules.own(group, version, rules.ON_START)
            for group, version in self._registry.group_versions()
            if group in self._registry.builtin_groups and group != rules.WITHOUT
        ]
        missing = [obj for obj in built_in if self._cache.get(API_SERVICE, "", obj["metadata"]["name"]) is None]
        async with asyncio.TaskGroup() as group_of_tasks:
            for obj in missing:
                group_of_tasks.create_task(self._create(obj))
        self._manage()

    async def stop(self) -> None:
        """Ends what is under way."""
        await self._tasks.close()

    def find(self, target: Target) -> Remote | None:
        """Who answers a request, None when this server does."""
        info = target.info
        if info.is_resource:
            remote = self.remotes.get((info.group, info.version))
        else:
            parts = target.path.split("/")
            document = parts[1:4] == ["openapi", "v3", "apis"]
            parts = parts[4:] if document else parts[2:] if parts[1:2] == ["apis"] else []
            remote = self.remotes.get((parts[0], parts[1])) if len(parts) >= 2 and not any(parts[2:]) else None
            if document and remote is not None and not remote.third:
                return None
        if remote is not None and not {".", ".."}.isdisjoint(target.path.split("/")):
            return None  # the other server might take it for a path that is not of this group
        return remote

    # --- what changes

    def _changed(self, change: Change) -> None:
        obj = change.item.obj
        if change.deleted:
            self._forget(obj["metadata"]["name"])
            if rules.managed(obj) == rules.ALWAYS:
                self._managed = -1
                self._manage()
            return
        self._route(obj)
        if "service" not in obj["spec"]:
            self._tell_soon(obj)

    def _route(self, obj: Object) -> None:
        name, spec = obj["metadata"]["name"], obj["spec"]
        known = self._known(name)
        if known is not None and known.spec == spec:
            return
        self._forget(name)
        reference = spec.get("service")
        if reference is None:
            return
        backend = self._others.backends.get((reference.get("namespace", ""), reference.get("name", "")))
        remote = Remote(obj, self._cache, self._others.front_proxy, self._dial, backend)
        remote.available = rules.available(obj)
        self.remotes[remote.group, remote.version] = remote
        self.generation += 1
        self._followers[name] = self._tasks.spawn(self._follow(remote), name)

    def _known(self, name: str) -> Remote | None:
        version, _, group = name.partition(".")
        return self.remotes.get((group, version))

    def _forget(self, name: str) -> None:
        task = self._followers.pop(name, None)
        if task is not None:
            task.cancel()
            version, _, group = name.partition(".")
            del self.remotes[group, version]
            self.generation += 1

    def _slice_changed(self, change: Change) -> None:
        if self.remotes:
            self._concerns(change, service_of(change.item.obj))

    def _concerns(self, change: Change, service: str) -> None:
        place = (change.item.namespace, service)
        for remote in self.remotes.values():
            if (remote.reference.get("namespace"), remote.reference.get("name")) == place:
                remote.wake.set()

    def _definitions_changed(self, change: Change) -> None:
        self._manage()

    def _manage(self) -> None:
        """Makes and removes the APIServices of custom kinds, when the table of kinds has changed."""
        if self._managed == self._registry.generation:
            return
        self._managed = self._registry.generation
        built_in = self._registry.builtin_groups
        wanted = {
            rules.name_of(group, version): (group, version)
            for group, version in self._registry.group_versions()
            if group not in built_in
        }
        for obj in self._cache.list(API_SERVICE):
            name = obj["metadata"]["name"]
            if wanted.pop(name, None) is None and rules.managed(obj) == rules.ALWAYS:
                self._tasks.spawn(self._delete(name), f"delete {name}")
        for name, (group, version) in wanted.items():
            self._tasks.spawn(self._create(rules.own(group, version, rules.ALWAYS)), f"create {name}")

    # --- what is written

    async def _create(self, obj: Object) -> None:
        await self._quietly(self._handle("POST", API_SERVICE.path(), obj))

    async def _delete(self, name: str) -> None:
        await self._quietly(self._handle("DELETE", API_SERVICE.path(name=name), None))

    async def _handle(self, method: str, path: str, body: Object | None) -> None:
        assert self._itself is not None, "started"
        await self._itself.handle(Request(method, path, {}, body))

    def _tell_soon(self, obj: Object) -> None:
        if rules.told(obj, rules.LOCAL, 0) is not obj:
            name = obj["metadata"]["name"]
            self._tasks.spawn(self._tell(name, rules.LOCAL), f"tell {name}")

    async def _tell(self, name: str, found: Found) -> None:
        def mutate(old: Object | None) -> Object | None:
            return old if old is None else rules.told(old, found, self._clock.now())

        await self._quietly(self._crud.commit(API_SERVICE, "", name, mutate))

    async def _quietly(self, write: Awaitable[object]) -> None:
        """What is written here is looked at again with the next change or check."""
        try:
            await write
        except ApiError as error:
            if error.reason not in ("AlreadyExists", "NotFound"):
                log.warning("Cannot write an APIService: %s", error)

    # --- the checks

    async def _follow(self, remote: Remote) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            remote.wake.clear()
            well = await self._check(remote)
            if remote.backend is not None and well:
                return  # a server in this process does not fail by itself
            wait_s, retry_s = (RECHECK_S, _FIRST_RETRY_S) if well else (retry_s, min(retry_s * 2, RECHECK_S))
            try:
                async with asyncio.timeout(wait_s):
                    await remote.wake.wait()
            except TimeoutError:
                continue

    async def _check(self, remote: Remote) -> bool:
        """Asks the other server, and tells what was found; whether it is well."""
        found = None if remote.backend is not None else rules.problem(remote.reference, self._cache)
        if found is None:
            found = rules.PASSED
            try:
                if await remote.ask():
                    self.generation += 1
            except NoAnswer as error:
                found = ("False", "FailedDiscoveryCheck", str(error))
        well = found[0] == "True"
        if well != remote.available:
            log.info("APIService %s is %s: %s", remote.name, "available" if well else "not available", found[2])
            remote.available = well
            self.generation += 1
        await self._tell(remote.name, found)
        return well
