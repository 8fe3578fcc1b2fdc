"""One event of the audit log as an object of audit.k8s.io/v1, and as the line of the old text format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k3s.api.object import Object
from k3s.apiserver.request import RequestInfo


def reference(info: RequestInfo, body: Any) -> Object | None:
    """What a request is about; the body tells of a new object's name. None for what is no object."""
    if not info.is_resource:
        return None
    found: Object = {"resource": info.resource}
    meta = body.get("metadata") if isinstance(body, Mapping) else None
    meta = meta if isinstance(meta, Mapping) else {}
    parts = {
        "namespace": info.namespace,
        "name": info.name or meta.get("name"),
        "uid": meta.get("uid"),
        "apiGroup": info.group,
        "apiVersion": info.version,
        "resourceVersion": meta.get("resourceVersion"),
        "subresource": info.subresource,
    }
    return {**found, **{key: value for key, value in parts.items() if value}}


def sources(headers: Mapping[str, str], peer: str) -> list[str]:
    """The addresses that a request came through, the client's own first (X-Forwarded-For, X-Real-Ip)."""
    given = [part.strip() for part in headers.get("x-forwarded-for", "").split(",") if part.strip()]
    real = headers.get("x-real-ip", "").strip()
    if not given and real:
        given = [real]
    return [*given, peer] if peer and (not given or given[-1] != peer) else given


def status_of(code: int, body: Object | None) -> Object:
    """The outcome; of a refusal also why."""
    found: Object = {"metadata": {}}
    if body is not None and body.get("kind") == "Status":
        found.update({key: body[key] for key in ("status", "message", "reason", "details") if body.get(key)})
    return {**found, "code": code}


def legacy(event: Object, stage_at: str) -> str:
    """An event in the text format of before there were objects."""
    acting = event.get("impersonatedUser") or {}
    user = event.get("user") or {}
    values: dict[str, Any] = {
        "id": event["auditID"],
        "stage": event["stage"],
        "ip": (event.get("sourceIPs") or ["<unknown>"])[0],
        "method": event["verb"],
        "user": user.get("username", "<none>"),
        "groups": _groups(user) if user else "<none>",
        "as": acting.get("username", "<self>"),
        "asgroups": _groups(acting) if acting else "<lookup>",
        "user-agent": event.get("userAgent", ""),
        "namespace": (event.get("objectRef") or {}).get("namespace", "<none>"),
        "uri": event["requestURI"],
        "response": str((event.get("responseStatus") or {}).get("code", "<deferred>")),
    }
    return f"{stage_at} AUDIT: " + " ".join(f"{key}={_quoted(key, value)}" for key, value in values.items())


def _quoted(key: str, value: str) -> str:
    if key in ("groups", "asgroups") and value.startswith('"'):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _groups(user: Object) -> str:
    return ",".join(f'"{group}"' for group in user.get("groups") or ()) or "<none>"
