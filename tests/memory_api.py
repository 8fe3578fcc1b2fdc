"""A small API server in memory for tests of the node: objects in a dict, watches, and how pods are deleted.

It is a `Transport`, so that the real `Client` and `Informer` are used. It checks nothing: defaults, validation and
permissions are tests of the API server itself.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

from k3s.api import errors, times
from k3s.api.kinds import REGISTRY, Kind
from k3s.api.object import Object
from k3s.api.patch import merge_patch
from k3s.client.transport import Request, Response, WatchEvent

Key = tuple[str, str, str]


class MemoryApi:
    """Holds objects; `requests` lists what was asked, as (method, path)."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._revision = 1
        self._uids = itertools.count(1)
        self.objects: dict[Key, Object] = {}
        self.requests: list[tuple[str, str]] = []
        self._watchers: list[tuple[Kind, str, dict[str, str], asyncio.Queue[WatchEvent]]] = []
        self._changed = asyncio.Event()
        self._log: list[tuple[int, Kind, str, Object]] = []

    # ── what tests use ──

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        """An object as it is."""
        return self.objects.get((plural, namespace, name))

    def all(self, plural: str) -> list[Object]:
        """Every object of a resource."""
        return [obj for (kind, _ns, _name), obj in self.objects.items() if kind == plural]

    async def until(self, condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
        """Waits until `condition()` is true after some write; answers its value."""
        async with asyncio.timeout(timeout_s):
            while not (value := condition()):
                self._changed.clear()
                await self._changed.wait()
            return value

    # ── Transport ──

    async def send(self, request: Request) -> Response:
        """Answers one request."""
        self.requests.append((request.method, request.path))
        kind, space, name, sub = _parse(request.path)
        key = (kind.plural, space, name)
        match request.method:
            case "GET" if name:
                return Response(200, self._must(kind, key))
            case "GET":
                return Response(200, self._list(kind, space, request.query))
            case "POST" if sub == "token":
                return Response(201, self._token(request.body))
            case "POST":
                return Response(201, self._create(kind, space, request.body))
            case "PATCH":
                old = self._must(kind, key)
                wanted = (request.body.get("metadata") or {}).get("uid")
                if wanted and wanted != old["metadata"]["uid"]:
                    raise errors.conflict(kind.group, kind.plural, name, "uid differs")
                return Response(200, self._store(kind, key, merge_patch(old, request.body), "MODIFIED"))
            case "PUT":
                return Response(200, self._store(kind, key, request.body, "MODIFIED"))
            case "DELETE":
                return Response(200, self._delete(kind, key, request.body or {}))
        raise errors.BadRequest(request.method)

    async def watch(self, request: Request) -> AsyncIterator[WatchEvent]:
        """Events from the revision on, for ever."""
        kind, space, _name, _sub = _parse(request.path)
        fields = _fields(request.query)
        queue: asyncio.Queue[WatchEvent] = asyncio.Queue()
        entry = (kind, space, fields, queue)
        since = int(request.query["resourceVersion"])
        for revision, changed, event, obj in self._log:
            if revision > since and changed.plural == kind.plural and _matches(obj, space, fields):
                queue.put_nowait(WatchEvent(event, obj))
        self._watchers.append(entry)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(entry)

    async def close(self) -> None:
        """Nothing to do."""

    # ── the state ──

    def _must(self, kind: Kind, key: Key) -> Object:
        if key not in self.objects:
            raise errors.not_found(kind.group, kind.plural, key[2])
        return self.objects[key]

    def _list(self, kind: Kind, space: str, query: Any) -> Object:
        fields = _fields(query)
        items = [o for o in self.all(kind.plural) if _matches(o, space, fields)]
        return {"items": items, "metadata": {"resourceVersion": str(self._revision)}}

    def _create(self, kind: Kind, space: str, obj: Object) -> Object:
        name = obj["metadata"]["name"]
        key = (kind.plural, space, name)
        if key in self.objects:
            raise errors.already_exists(kind.group, kind.plural, name)
        meta = {
            "uid": f"00000000-0000-4000-8000-{next(self._uids):012d}",
            "creationTimestamp": times.format(self._now()),
            "generation": 1,
            **obj["metadata"],
        }
        if kind.namespaced:
            meta["namespace"] = space
        return self._store(kind, key, {**obj, "metadata": meta}, "ADDED")

    def _store(self, kind: Kind, key: Key, obj: Object, event: str) -> Object:
        old = self.objects.get(key)
        plain = {**obj, "metadata": {**obj["metadata"], "resourceVersion": ""}}
        if old is not None and {**old, "metadata": {**old["metadata"], "resourceVersion": ""}} == plain:
            return old
        self._revision += 1
        made = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._revision)}}
        self.objects[key] = made
        self._tell(kind, event, made)
        return made

    def _delete(self, kind: Kind, key: Key, options: Object) -> Object:
        old = self._must(kind, key)
        wanted = (options.get("preconditions") or {}).get("uid")
        if wanted and wanted != old["metadata"]["uid"]:
            raise errors.conflict(kind.group, kind.plural, key[2], "uid differs")
        grace = options.get("gracePeriodSeconds")
        if grace is None and kind.plural == "pods":
            grace = old["spec"].get("terminationGracePeriodSeconds", 30)
        if kind.plural == "pods" and grace and old["spec"].get("nodeName"):
            meta = {
                **old["metadata"],
                "deletionTimestamp": times.format(self._now() + grace),
                "deletionGracePeriodSeconds": grace,
            }
            return self._store(kind, key, {**old, "metadata": meta}, "MODIFIED")
        del self.objects[key]
        self._revision += 1
        gone = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self._revision)}}
        self._tell(kind, "DELETED", gone)
        return gone

    def _tell(self, kind: Kind, event: str, obj: Object) -> None:
        self._log.append((self._revision, kind, event, obj))
        for watched, space, fields, queue in self._watchers:
            if watched.plural == kind.plural and _matches(obj, space, fields):
                queue.put_nowait(WatchEvent(event, obj))
        self._changed.set()

    def _token(self, request: Object) -> Object:
        expires = times.format(self._now() + request["spec"]["expirationSeconds"])
        return {**request, "status": {"token": "a-token", "expirationTimestamp": expires}}


def _parse(path: str) -> tuple[Kind, str, str, str]:
    parts = path.strip("/").split("/")
    group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
    space = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        space, rest = rest[1], rest[2:]
    kind = REGISTRY.by_resource(group, version, rest[0])
    assert kind is not None, path
    return kind, space, rest[1] if len(rest) > 1 else "", rest[2] if len(rest) > 2 else ""


def _fields(query: Any) -> dict[str, str]:
    return dict(part.split("=", 1) for part in (query.get("fieldSelector") or "").split(",") if part)


def _matches(obj: Object, space: str, fields: dict[str, str]) -> bool:
    if space and obj["metadata"].get("namespace") != space:
        return False
    for path, wanted in fields.items():
        value: Any = obj
        for step in path.split("."):
            value = (value or {}).get(step)
        if value != wanted:
            return False
    return True
