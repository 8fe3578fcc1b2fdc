"""What no log may hold, whatever a policy says: the values of Secrets, and tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from k3s.api.object import Object, decode, encode
from k3s.apiserver.request import RequestInfo

HIDDEN = "<redacted>"
# kubectl apply keeps the whole object, values included, in this one.
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def redacted(info: RequestInfo, body: Any) -> Any:
    """A body of a request or answer without secrets; the same one when it has none."""
    if info.resource == "secrets" and not info.group:
        return _hide_secret(body)
    if info.resource == "tokenreviews":
        return _hidden(body, "spec", ("token",))
    if info.subresource == "token":
        return _hidden(body, "status", ("token",))
    return body


def redacted_note(info: RequestInfo, note: str) -> str:
    """A note that tells a patch (a JSON object with `patch`), without secrets."""
    found = decode(note.encode())
    hidden = redacted(info, found.get("patch"))
    return note if hidden == found.get("patch") else encode({**found, "patch": hidden}).decode()


def _hide_secret(body: Any) -> Any:
    if isinstance(body, list):  # a JSON patch
        return [{**step, "value": HIDDEN} if isinstance(step, dict) and "value" in step else step for step in body]
    if not isinstance(body, dict):
        return body
    if isinstance(body.get("items"), list):
        return {**body, "items": [_hide_secret(item) for item in body["items"]]}
    for part in ("data", "stringData"):
        body = _replaced(body, part, lambda values: dict.fromkeys(values, HIDDEN))
    return _replaced(body, "metadata", _without_last_applied)


def _without_last_applied(meta: Mapping[str, Any]) -> Object:
    return _replaced(
        dict(meta), "annotations", lambda notes: {k: HIDDEN if k == _LAST_APPLIED else v for k, v in notes.items()}
    )


def _hidden(body: Any, part: str, fields: tuple[str, ...]) -> Any:
    def hide(values: Mapping[str, Any]) -> Object:
        return {key: HIDDEN if key in fields else value for key, value in values.items()}

    return _replaced(body, part, hide) if isinstance(body, dict) else body


def _replaced(body: Object, part: str, change: Callable[[Mapping[str, Any]], Object]) -> Object:
    values = body.get(part)
    return {**body, part: change(values)} if isinstance(values, Mapping) else body
