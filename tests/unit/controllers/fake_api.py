"""A small API server in memory for controller tests: objects, revisions, watches; faults on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from k3s.api import object as objects
from k3s.api import times
from k3s.api.errors import AlreadyExists, ApiError, Conflict, Forbidden, NotFound, OutcomeUnknown
from k3s.api.kinds import REGISTRY, Kind
from k3s.api.object import Object
from k3s.base.entropy import SeededEntropy
from k3s.client.transport import Request, Response, WatchEvent
from k3s.controllers.known import NAMESPACE


def merge(target: Any, patch: Any) -> Any:
    """JSON merge patch."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


class FakeApi:
    """A Transport that is its own server. `refuse` is the share of requests that fail, `lose` of replies lost."""

    def __init__(self, seed: int = 0, lag_s: float = 0.0, refuse: float = 0.0, lose: float = 0.0) -> None:
        self.revision = 0
        self.objects: dict[tuple[Kind, str], Object] = {}
        self.log: list[tuple[int, Kind, WatchEvent]] = []
        self.changed = asyncio.Event()
        self.entropy = SeededEntropy(seed)
        self.lag_s, self.refuse, self.lose = lag_s, refuse, lose
        self.requests: list[str] = []
        self.closed: set[str] = set()
        self.created: list[tuple[Kind, str]] = []

    def all(self, kind: Kind) -> list[Object]:
        """Every object of a kind."""
        return [obj for (k, _), obj in self.objects.items() if k is kind]

    def put(self, kind: Kind, obj: Object) -> Object:
        """Writes an object as it is, with a new revision."""
        self.revision += 1
        key = objects.key(obj)
        meta = {**obj["metadata"], "resourceVersion": str(self.revision)}
        new = {**obj, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta}
        held = meta.get("finalizers") or new.get("spec", {}).get("finalizers") or meta.get("deletionGracePeriodSeconds")
        done = objects.is_deleting(new) and not held
        old = self.objects.get((kind, key))
        if done:
            self.objects.pop((kind, key), None)
            if kind is NAMESPACE:
                self.closed.add(key)
            self._tell(kind, WatchEvent("DELETED", new))
        else:
            self.objects[kind, key] = new
            self._tell(kind, WatchEvent("MODIFIED" if old else "ADDED", new))
        return new

    def remove(self, kind: Kind, key: str) -> None:
        """Deletes an object at once."""
        obj = self.objects[kind, key]
        self.put(
            kind,
            {
                **obj,
                "metadata": {
                    **obj["metadata"],
                    "finalizers": [],
                    "deletionGracePeriodSeconds": 0,
                    "deletionTimestamp": "2026-01-01T00:00:00Z",
                },
            },
        )

    def _tell(self, kind: Kind, event: WatchEvent) -> None:
        self.log.append((self.revision, kind, event))
        self.changed.set()
        self.changed = asyncio.Event()

    async def send(self, request: Request) -> Response:
        """Answers, after some virtual milliseconds."""
        self.requests.append(f"{request.method} {request.path}")
        await asyncio.sleep(self.entropy.fraction() * 0.01)
        if self.entropy.fraction() < self.refuse:
            raise ApiError("refused by the test", code=503, reason="ServiceUnavailable")
        body = self._handle(request)
        await asyncio.sleep(self.entropy.fraction() * 0.01)
        if request.method != "GET" and self.entropy.fraction() < self.lose:
            raise OutcomeUnknown("lost by the test")
        return Response(200, body)

    def _route(self, path: str) -> tuple[Kind, str, str, str]:
        parts = path.strip("/").split("/")
        group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
        space = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("finalize", "status"):
            space, rest = rest[1], rest[2:]
        kind = REGISTRY.by_resource(group, version, rest[0])
        assert kind is not None, path
        return kind, space, rest[1] if len(rest) > 1 else "", rest[2] if len(rest) > 2 else ""

    def _handle(self, request: Request) -> Any:
        kind, space, name, subresource = self._route(request.path)
        key = f"{space}/{name}" if space else name
        old = self.objects.get((kind, key))
        if request.method == "POST":
            return self._create(kind, request.body)
        if not name:
            found = [obj for obj in self.all(kind) if not space or objects.namespace(obj) == space]
            if request.method == "DELETE":
                for obj in found:
                    self._delete(kind, obj, {})
                return {"kind": "Status"}
            return {"metadata": {"resourceVersion": str(self.revision)}, "items": found}
        if old is None:
            raise NotFound(f"{key} not found")
        if request.method == "GET":
            return old
        if request.method == "DELETE":
            return self._delete(kind, old, request.body or {})
        new = request.body if request.method == "PUT" else merge(old, request.body)
        if new["metadata"].get("resourceVersion") != old["metadata"]["resourceVersion"]:
            raise Conflict(f"{key} has changed")
        if subresource == "status":
            return self.put(kind, {**old, "status": new.get("status", {})})
        if subresource == "finalize":
            return self.put(kind, {**old, "spec": new["spec"]})
        grown = old.get("spec") != new.get("spec")
        generation = old["metadata"].get("generation", 1) + grown
        meta = {**new["metadata"], "generation": generation}
        return self.put(kind, {**new, "metadata": meta, "status": old.get("status", {})})

    def _create(self, kind: Kind, obj: Object) -> Object:
        meta = dict(obj["metadata"])
        name = meta.get("name") or meta["generateName"] + self.entropy.suffix()
        key = f"{meta['namespace']}/{name}" if meta.get("namespace") else name
        space = self.objects.get((NAMESPACE, meta.get("namespace", "")))
        if meta.get("namespace") in self.closed or (space is not None and objects.is_deleting(space)):
            raise Forbidden("the namespace is being terminated")
        if (kind, key) in self.objects:
            raise AlreadyExists(f"{key} exists")
        now = times.format(asyncio.get_running_loop().time())
        meta |= {"name": name, "uid": self.entropy.uid(), "creationTimestamp": now, "generation": 1}
        self.created.append((kind, key))
        return self.put(kind, {**obj, "metadata": meta})

    def _delete(self, kind: Kind, obj: Object, options: Object) -> Any:
        uid = options.get("preconditions", {}).get("uid")
        if uid and uid != objects.uid(obj):
            raise Conflict("another uid")
        revision = options.get("preconditions", {}).get("resourceVersion")
        if revision and revision != obj["metadata"]["resourceVersion"]:
            raise Conflict("another revision")
        policy = options.get("propagationPolicy", "Background")
        finalizer = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(policy)
        meta = {**obj["metadata"], "deletionTimestamp": times.format(asyncio.get_running_loop().time())}
        if kind.kind == "Pod" and obj["spec"].get("nodeName") and options.get("gracePeriodSeconds") != 0:
            meta["deletionGracePeriodSeconds"] = 30
        else:
            meta["deletionGracePeriodSeconds"] = 0
        if finalizer and finalizer not in (meta.get("finalizers") or []):
            meta["finalizers"] = [*(meta.get("finalizers") or []), finalizer]
        return self.put(kind, {**obj, "metadata": meta})

    async def watch(self, request: Request) -> AsyncIterator[WatchEvent]:
        """The events after a revision, each delayed by up to `lag_s`, with a bookmark when others wrote."""
        kind, _, _, _ = self._route(request.path)
        at = 0
        revision = int(request.query["resourceVersion"])
        while True:
            waiting = self.changed
            fresh = self.log[at:]
            at = len(self.log)
            for number, changed, event in fresh:
                if number <= revision:
                    continue
                if self.lag_s:
                    await asyncio.sleep(self.entropy.fraction() * self.lag_s)
                if changed is kind:
                    yield event
                else:
                    yield WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": str(number)}})
            if at == len(self.log):
                await waiting.wait()

    async def close(self) -> None:
        """Nothing to close."""
