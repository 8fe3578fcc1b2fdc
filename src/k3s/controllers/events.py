"""Events about objects: the rule of when one is new and when an older one is counted up.

The rule is upstream's: same source, object, type, reason and message within an hour (how long events are kept) are one
event whose count grows.
"""

from __future__ import annotations

from typing import NamedTuple

from k3s.api import object as objects
from k3s.api import times
from k3s.api.object import Object
from k3s.controllers.actions import Create, Emit, Patch
from k3s.controllers.known import EVENT

# The API server forgets events after an hour: a patch of an older one would only be refused.
_KEPT_S = 3600.0
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
