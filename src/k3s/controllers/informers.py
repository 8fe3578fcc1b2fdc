"""One informer per kind for everything in this process that reads the cluster's state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from k3s.api import object as objects
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.base.aio import Tasks
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.client.client import Client
from k3s.client.informer import Informer
from k3s.controllers.world import World, indexes


class Informers:
    """Makes, indexes and runs informers; each kind has at most one.

    `of` may be called before and while `run` runs. A kind that is asked for later is started at once.
    """

    def __init__(self, client: Client, clock: Clock, entropy: Entropy) -> None:
        self.client = client
        self._clock = clock
        self._entropy = entropy
        self._sources: dict[Kind, Informer] = {}
        self._synced: dict[Kind, asyncio.Event] = {}
        self._started: dict[Kind, asyncio.Task[None]] = {}
        self._leaving: dict[Kind, dict[tuple[str, str], asyncio.Future[None]]] = {}
        self._tasks: Tasks | None = None
        self._failure: asyncio.Future[None] | None = None

    def of(self, kind: Kind) -> Informer:
        """The informer of a kind, made when this is the first call for it."""
        informer = self._sources.get(kind)
        if informer is None:
            informer = Informer(self.client, kind, clock=self._clock, entropy=self._entropy)
            for name, function in indexes(kind).items():
                informer.add_index(name, function)
            self._sources[kind] = informer
            self._synced[kind] = asyncio.Event()
            self._start(kind)
        return informer

    def forget(self, kind: Kind) -> None:
        """Stops the informer of a kind that is no longer served; whoever waits for something of it goes on."""
        informer, synced = self._sources.pop(kind, None), self._synced.pop(kind, None)
        if informer is not None:
            informer.release()
        if synced is not None:
            synced.set()
        for future in self._leaving.pop(kind, {}).values():
            if not future.done():
                future.set_result(None)
        task = self._started.pop(kind, None)
        if task is not None:
            task.cancel()

    def __contains__(self, kind: Kind) -> bool:
        return kind in self._sources

    def world(self, **extra: Any) -> World:
        """A view on all informers, for one decision."""
        return World(self._sources, **extra)

    async def synced(self, kind: Kind) -> None:
        """Waits until the informer of a kind holds what the server had when it was started, or is forgotten."""
        event = self._synced.get(kind)
        if event is not None:
            await event.wait()

    async def gone(self, kind: Kind, key: str, uid: str) -> None:
        """Waits until the object with this uid is gone or being deleted in the cache."""
        informer = self.of(kind)
        if _left(informer.get(key), uid):
            return
        waiting = self._leaving.get(kind)
        if waiting is None:
            waiting = self._leaving[kind] = {}
            informer.subscribe(lambda key, old, new: self._changed(kind, key, old, new))
        future = waiting.get((key, uid))
        if future is None:
            future = waiting[key, uid] = asyncio.get_running_loop().create_future()
        await asyncio.shield(future)

    def _changed(self, kind: Kind, key: str, old: Object | None, new: Object | None) -> None:
        waiting = self._leaving.get(kind)
        if not waiting or old is None:
            return
        uid = objects.uid(old)
        if _left(new, uid):
            future = waiting.pop((key, uid), None)
            if future is not None and not future.done():
                future.set_result(None)

    async def run(self, ready: Callable[[], None]) -> None:
        """Runs all informers; `ready` is called when those known at the start are synced.

        Raises what an informer raises: without its informers no controller may go on.
        """
        self._failure = asyncio.get_running_loop().create_future()
        self._tasks = Tasks("informer", self._failed)
        try:
            for kind in list(self._sources):
                self._start(kind)
            self._tasks.spawn(self._all_synced(list(self._sources), ready), "synced")
            await self._failure
        finally:
            await self._tasks.close()
            self._tasks = None

    async def _all_synced(self, kinds: list[Kind], ready: Callable[[], None]) -> None:
        for kind in kinds:
            await self.synced(kind)
        ready()

    def _start(self, kind: Kind) -> None:
        if self._tasks is None or kind in self._started:
            return
        run = self._sources[kind].run(self._synced[kind].set)
        self._started[kind] = self._tasks.spawn(run, kind.qualified)

    def _failed(self, name: str, error: BaseException) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)


def _left(obj: Object | None, uid: str) -> bool:
    return obj is None or objects.uid(obj) != uid or objects.is_deleting(obj)
