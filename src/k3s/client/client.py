"""The verbs of the API, written once, over any transport (law 7)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from k3s.api import object as objects
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.client.transport import Request, Response, Transport, WatchEvent

PATCH_TYPES = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


@dataclass(frozen=True, slots=True)
class ObjectList:
    """A page of objects and the revision at which it was true."""

    items: list[Object]
    revision: int
    next_page: str = ""


class Client:
    """One identity's access to the API. Objects that it returns are shared and must not be changed."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    async def get(self, kind: Kind, namespace: str, name: str, *, subresource: str = "") -> Object:
        """The object as it is now. Raises NotFound."""
        return await self._send("GET", kind.path(namespace, name, subresource))

    async def list(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        page: str = "",
        any_revision: bool = False,
    ) -> ObjectList:
        """The objects of a namespace (or of all); `any_revision` allows the server to answer from a cache that lags."""
        query = _query(labelSelector=labels, fieldSelector=fields, limit=str(limit or ""))
        query |= _query(**{"continue": page, "resourceVersion": "0" if any_revision else ""})
        body = await self._send("GET", kind.path(namespace), query)
        meta = body.get("metadata", {})
        return ObjectList(body.get("items") or [], int(meta.get("resourceVersion") or 0), meta.get("continue", ""))

    def watch(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        revision: int,
        labels: str = "",
        fields: str = "",
        timeout_s: int = 0,
    ) -> AsyncIterator[WatchEvent]:
        """The changes after `revision`, bookmarks included. Raises Expired when that is too long ago."""
        query = _query(labelSelector=labels, fieldSelector=fields, timeoutSeconds=str(timeout_s or ""))
        query |= {"watch": "true", "resourceVersion": str(revision), "allowWatchBookmarks": "true"}
        return self.transport.watch(Request("GET", kind.path(namespace), query))

    async def create(self, kind: Kind, obj: Object, *, subresource: str = "") -> Object:
        """Creates an object, or posts to a subresource of the object `obj` names. Raises AlreadyExists, Invalid."""
        name = objects.name(obj) if subresource else ""
        return await self._send("POST", kind.path(objects.namespace(obj), name, subresource), body=obj)

    async def update(self, kind: Kind, obj: Object, *, subresource: str = "") -> Object:
        """Replaces an object. Raises Conflict when its resourceVersion is not the newest one."""
        path = kind.path(objects.namespace(obj), objects.name(obj), subresource)
        return await self._send("PUT", path, body=obj)

    async def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch: Any,
        *,
        type: str = "merge",
        subresource: str = "",
        manager: str = "",
        force: bool = False,
    ) -> Object:
        """Changes a part of an object; `type` is json, merge, strategic or apply."""
        query = _query(fieldManager=manager, force="true" if force else "")
        request = Request("PATCH", kind.path(namespace, name, subresource), query, patch, PATCH_TYPES[type])
        return (await self.transport.send(request)).body  # type: ignore[no-any-return]

    async def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        grace_s: int | None = None,
        propagation: str = "",
        uid: str = "",
        revision: int = 0,
    ) -> Object:
        """Deletes an object; `uid` and `revision` are preconditions (Conflict). Raises NotFound."""
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        if propagation:
            options["propagationPolicy"] = propagation
        preconditions = _query(uid=uid, resourceVersion=str(revision or ""))
        if preconditions:
            options["preconditions"] = preconditions
        return await self._send("DELETE", kind.path(namespace, name), body=options)

    async def raw(self, request: Request) -> Response:
        """Any request, for paths that are not objects."""
        return await self.transport.send(request)

    async def _send(self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None) -> Object:
        answer: Object = (await self.transport.send(Request(method, path, query or {}, body))).body
        return answer


def _query(**values: str) -> dict[str, str]:
    return {k: v for k, v in values.items() if v}
