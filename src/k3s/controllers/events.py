"""Events about objects: the pure rule of when one is new and when an older one is counted up, and who sends them.

The rule is upstream's: same source, object, type, reason and message within an hour (how long events are kept) are one
event whose count grows.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import NamedTuple

from k3s.api import object as objects
from k3s.api import times
from k3s.api.errors import ApiError, NotFound, OutcomeUnknown
from k3s.api.object import Object
from k3s.base.aio import Mailbox
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.client.client import Client
from k3s.controllers.actions import Create, Emit, Patch
from k3s.controllers.known import EVENT

log = logging.getLogger(__name__)

# The API server forgets events after an hour: a patch of an older one would only be refused.
_KEPT_S = 3600.0
# Distinct events that are counted up; older ones start over.
_KNOWN = 1024
# Events wait here while the API server is slow; the oldest is lost first, as events are best effort.
_WAITING = 1024
_MESSAGE_LENGTH = 1024


class Seen(NamedTuple):
    """An event that was sent before."""

    namespace: str
    name: str
    times: int
    at: float


def involved(obj: Object) -> Object:
    """The reference by which an event names the object that it is about."""
    meta = obj["metadata"]
    found = {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "namespace": meta.get("namespace"),
        "name": meta["name"],
        "uid": meta.get("uid"),
        "resourceVersion": meta.get("resourceVersion"),
    }
    return {key: value for key, value in found.items() if value}


def identity(emit: Emit, source: str) -> str:
    """What makes two events the same one."""
    return "\0".join((source, objects.uid(emit.about) or objects.key(emit.about), emit.type, emit.reason, emit.message))


def event(emit: Emit, source: str, now: float, suffix: str) -> Object:
    """A new Event; `suffix` makes its name unique, events of cluster-scoped objects live in `default`."""
    at = times.format(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{objects.name(emit.about)}.{suffix}",
            "namespace": objects.namespace(emit.about) or "default",
        },
        "involvedObject": involved(emit.about),
        "reason": emit.reason,
        "message": emit.message[:_MESSAGE_LENGTH],
        "source": {"component": source},
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
        "type": emit.type,
        "eventTime": None,
        "reportingComponent": source,
        "reportingInstance": "",
    }


def record(seen: Seen | None, emit: Emit, source: str, now: float, suffix: str) -> tuple[Create | Patch, Seen]:
    """The write that tells this event, and what to know about it the next time."""
    if seen is not None and now - seen.at < _KEPT_S:
        count = seen.times + 1
        patch = {"count": count, "lastTimestamp": times.format(now)}
        return Patch(EVENT, seen.namespace, seen.name, patch), seen._replace(times=count, at=now)
    new = event(emit, source, now, suffix)
    return Create(EVENT, new), Seen(new["metadata"]["namespace"], new["metadata"]["name"], 1, now)


class Recorder:
    """Sends the events of one component, one after the other, and never makes the component wait."""

    def __init__(self, client: Client, source: str, clock: Clock, entropy: Entropy) -> None:
        self._client = client
        self._source = source
        self._clock = clock
        self._entropy = entropy
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._waiting: OrderedDict[int, Emit] = OrderedDict()
        self._number = 0
        self._queue: Mailbox[int] = Mailbox()

    def tell(self, emit: Emit) -> None:
        """Queues an event."""
        self._number += 1
        self._waiting[self._number] = emit
        if len(self._waiting) > _WAITING:
            self._waiting.popitem(last=False)
        self._queue.put(self._number)

    async def run(self) -> None:
        """Sends what was told, until cancelled. An event that is refused is logged and lost."""
        while True:
            emit = self._waiting.pop(await self._queue.take(), None)
            if emit is not None:
                await self._send(emit)

    async def _send(self, emit: Emit) -> None:
        key, now = identity(emit, self._source), self._clock.now()
        suffix = self._entropy.uid().replace("-", "")[:16]
        write, seen = record(self._seen.pop(key, None), emit, self._source, now, suffix)
        try:
            if isinstance(write, Patch):
                await self._client.patch(EVENT, write.namespace, write.name, write.patch)
            else:
                await self._client.create(EVENT, write.obj)
        except NotFound:
            # Either the event was deleted by someone, and the next one starts over, or its namespace is gone.
            return
        except (ApiError, OutcomeUnknown) as error:
            log.info(
                "Event lost", extra={"object": objects.key(emit.about), "reason": emit.reason, "error": str(error)}
            )
            return
        self._seen[key] = seen
        if len(self._seen) > _KNOWN:
            self._seen.popitem(last=False)
