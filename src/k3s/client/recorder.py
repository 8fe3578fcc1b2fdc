"""Telling people what happens: Event objects, counted up instead of repeated, written in the background.

The rule is upstream's: same source, object, type, reason and message within an hour (how long the API server keeps
events) are one event whose count grows.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from typing import NamedTuple

from k3s.api import times
from k3s.api.errors import ApiError, NotFound, OutcomeUnknown
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.base.aio import Mailbox
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.client.client import Client

log = logging.getLogger(__name__)

EVENT = builtin("v1", "Event")

# The API server forgets events after an hour: a patch of an older one would only be refused.
KEPT_S = 3600.0
# Distinct events that are counted up; older ones start over.
_KNOWN = 1024
# Events wait here while the API server is slow; the oldest is lost first, as events are best effort.
_WAITING = 1024
# Events on their way at the same time: the datastore commits them together.
_TOGETHER = 64
_MESSAGE_LENGTH = 1024


class Told(NamedTuple):
    """Something that happened: to what (an object reference), Normal or Warning, why in a word, and in a sentence."""

    about: Object
    type: str
    reason: str
    message: str
    at: float


class Seen(NamedTuple):
    """An event that was sent before."""

    namespace: str
    name: str
    times: int
    at: float


def reference(obj: Object, field_path: str = "") -> Object:
    """The reference by which an event names an object; `field_path` names a part of it, such as a container."""
    meta = obj["metadata"]
    found = {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "namespace": meta.get("namespace"),
        "name": meta["name"],
        "uid": meta.get("uid"),
        "resourceVersion": meta.get("resourceVersion"),
        "fieldPath": field_path,
    }
    return {key: value for key, value in found.items() if value}


def identity(told: Told) -> tuple[str, ...]:
    """What makes two events of one source the same."""
    about = told.about
    who = about.get("uid") or f"{about.get('namespace', '')}/{about['name']}"
    return who, about.get("fieldPath", ""), told.type, told.reason, told.message


def counted(seen: Seen | None, now: float) -> Seen | None:
    """The earlier event with its count grown; None when there is none, or it is forgotten by now."""
    if seen is None or now - seen.at >= KEPT_S:
        return None
    return seen._replace(times=seen.times + 1, at=now)


def event(told: Told, source: str, host: str, suffix: str) -> Object:
    """A new Event; `suffix` makes its name unique, events of cluster-scoped objects live in `default`."""
    at = times.format(told.at)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{told.about['name']}.{suffix}",
            "namespace": told.about.get("namespace") or "default",
        },
        "involvedObject": told.about,
        "reason": told.reason,
        "message": told.message[:_MESSAGE_LENGTH],
        "source": {"component": source, "host": host} if host else {"component": source},
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
        "type": told.type,
        "eventTime": None,
        "reportingComponent": source,
        "reportingInstance": host,
    }


class Recorder:
    """Sends the events of one component, a few at a time, and never makes the component wait."""

    def __init__(self, client: Client, source: str, clock: Clock, entropy: Entropy, host: str = "") -> None:
        self._client = client
        self._source = source
        self._host = host
        self._clock = clock
        self._entropy = entropy
        self._seen: OrderedDict[tuple[str, ...], Seen] = OrderedDict()
        self._waiting: deque[Told] = deque(maxlen=_WAITING)
        self._wake: Mailbox[str] = Mailbox()

    def tell(self, about: Object, type: str, reason: str, message: str) -> None:
        """Queues an event; `about` is a reference (see `reference`)."""
        self._waiting.append(Told(about, type, reason, message, self._clock.now()))
        self._wake.put("")

    async def run(self) -> None:
        """Sends what was told, until cancelled. An event that is refused is logged and lost."""
        while True:
            await self._wake.take()
            while self._waiting:
                await asyncio.gather(*(self._send(told) for told in self._next()))

    def _next(self) -> list[Told]:
        """The next events to send together: different ones, because what is the same is counted one after the other."""
        found: dict[tuple[str, ...], Told] = {}
        while self._waiting and len(found) < _TOGETHER and identity(self._waiting[0]) not in found:
            told = self._waiting.popleft()
            found[identity(told)] = told
        return list(found.values())

    async def _send(self, told: Told) -> None:
        key = identity(told)
        seen = counted(self._seen.pop(key, None), told.at)
        try:
            if seen is not None:
                patch = {"count": seen.times, "lastTimestamp": times.format(told.at)}
                await self._client.patch(EVENT, seen.namespace, seen.name, patch)
            else:
                made = event(told, self._source, self._host, self._entropy.uid().replace("-", "")[:16])
                await self._client.create(EVENT, made)
                seen = Seen(made["metadata"]["namespace"], made["metadata"]["name"], 1, told.at)
        except NotFound:
            # Either the event was deleted by someone, and the next one starts over, or its namespace is gone.
            return
        except (ApiError, OutcomeUnknown) as error:
            log.info("Event lost", extra={"object": told.about["name"], "reason": told.reason, "error": str(error)})
            return
        self._seen[key] = seen
        if len(self._seen) > _KNOWN:
            self._seen.popitem(last=False)
