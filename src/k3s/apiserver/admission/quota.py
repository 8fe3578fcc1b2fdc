"""ResourceQuota: nothing is created beyond what a namespace's quotas allow.

What a write uses is charged to the quotas' status before the write takes place, by compare-and-swap, so that two
writers never share the last bit. Those that wait for the same namespace are charged together, in one write of each
quota. A charge whose write fails in the end is found and taken back by the quota controller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING

from k3s.api import limited, quota
from k3s.api.errors import InternalError, conflict
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver.admission.chain import CREATE, UPDATE, Plugin, refuse
from k3s.apiserver.admits import AdmissionRequest, Commit
from k3s.base.clock import Clock

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

RESOURCE_QUOTA = builtin("v1", "ResourceQuota")
# How often quotas that others write meanwhile are looked at again.
_ATTEMPTS = 8


class _Moved(Exception):
    """A quota was written by somebody else since it was read."""


class _Waiting:
    """A write that is to be charged, and what came of it: None while undecided."""

    __slots__ = ("done", "error", "request", "write")

    def __init__(self, request: AdmissionRequest, write: quota.Write) -> None:
        self.request = request
        self.write = write
        self.done = False
        self.error: Exception | None = None


class ResourceQuota(Plugin):
    """Charges what a write uses; refuses what does not fit. Costs a look-up where a namespace has no quota."""

    name = "ResourceQuota"
    resources = frozenset({"*"})
    validates = frozenset({CREATE, UPDATE})

    def __init__(self, reader: Reader, clock: Clock, limited: Sequence[Object] = ()) -> None:
        self._reader = reader
        #: What may only be used where a quota covers it.
        self._limited = limited
        self._clock = clock
        self._commit: Commit | None = None
        self._queues: dict[str, list[_Waiting]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def attach(self, commit: Commit) -> None:
        self._commit = commit

    def validate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        kind, namespace = request.kind, request.namespace
        if request.obj is None or not namespace or not quota.handles(kind, request.operation, request.subresource):
            return None
        if not self._limited and not self._reader.list(RESOURCE_QUOTA, namespace):
            return None
        write = quota.Write(kind, request.subresource, request.old, request.obj, self._clock.now())
        quotas = self._quotas(namespace)
        try:
            changed = quota.charged(quotas, write)
        except quota.Exceeded as error:
            raise refuse(request, str(error)) from None
        if self._limited:
            self._check_covered(request, quotas, write)
        if request.dry_run or all(new is old for new, old in zip(changed, quotas, strict=True)):
            return None
        if request.operation == CREATE and self._reader.get(kind, namespace, request.name) is not None:
            return None  # it exists already, which the write itself is about to say
        return self._charge(_Waiting(request, write))

    def _check_covered(self, request: AdmissionRequest, quotas: list[Object], write: quota.Write) -> None:
        """Raises Forbidden, InternalError (as upstream does) for what is limited and covered by no quota."""
        names = limited.uncovered_resources(self._limited, quotas, write)
        if names:
            raise refuse(request, f"insufficient quota to consume: {','.join(names)}")
        scopes = limited.uncovered_scopes(self._limited, quotas, write)
        if scopes:
            raise InternalError(f"insufficient quota to match these scopes: {scopes}")

    def _quotas(self, namespace: str) -> list[Object]:
        return self._reader.list(RESOURCE_QUOTA, namespace)

    async def _charge(self, own: _Waiting) -> None:
        """Waits for its turn, then charges everybody who waits; raises Forbidden, Conflict."""
        namespace = own.request.namespace
        queue = self._queues.setdefault(namespace, [])
        queue.append(own)
        lock = self._locks.setdefault(namespace, asyncio.Lock())
        try:
            async with lock:
                if not own.done:
                    batch = list(queue)
                    await self._charge_all(namespace, batch)
                    queue[:] = [waiting for waiting in queue if not waiting.done]
        finally:
            if own in queue:
                queue.remove(own)
            if not queue and not lock.locked():
                self._queues.pop(namespace, None)
                self._locks.pop(namespace, None)
        if own.error is not None:
            raise own.error

    async def _charge_all(self, namespace: str, batch: Sequence[_Waiting]) -> None:
        open_quotas: set[str] | None = None
        for _ in range(_ATTEMPTS):
            before = [q for q in self._quotas(namespace) if open_quotas is None or q["metadata"]["name"] in open_quotas]
            after = before
            for waiting in batch:
                if waiting.error is None:
                    try:
                        after = quota.charged(after, waiting.write)
                    except quota.Exceeded as error:
                        waiting.error = refuse(waiting.request, str(error))
            open_quotas = set()
            for old, new in zip(before, after, strict=True):
                if new is not old and not await self._written(old, new):
                    open_quotas.add(old["metadata"]["name"])
            if not open_quotas:
                break
        for waiting in batch:
            waiting.done = True
            if open_quotas and waiting.error is None:
                why = "its resource quota is being written by others; try again"
                waiting.error = conflict(waiting.request.kind.group, waiting.request.kind.plural, "", why)

    async def _written(self, old: Object, new: Object) -> bool:
        """Whether a quota's new status was stored; not when the quota has changed since `old`."""
        assert self._commit is not None, "the write path is attached before the first request"
        meta = old["metadata"]

        def mutate(now: Object | None) -> Object | None:
            if now is None:
                return None  # a quota that went limits nothing
            if now["metadata"]["resourceVersion"] != meta["resourceVersion"]:
                raise _Moved
            return new

        try:
            await self._commit(RESOURCE_QUOTA, meta["namespace"], meta["name"], mutate)
        except _Moved:
            return False
        return True
