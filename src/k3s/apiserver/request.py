"""What a request is about, from its method and target alone: pure, and remembered for targets that come again.

Rules: the "API concepts" page of the Kubernetes documentation (verbs, resource URIs, `watch` prefix). A path is taken
as it is: upstream neither joins double slashes nor resolves `..`; only slashes at both ends do not count here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
# Subresources of a namespace; any other word after `namespaces/<name>/` is a namespaced resource.
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})
_REACHES_IN = frozenset({"exec", "attach", "portforward", "run"})
_MEMO_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """A request in the terms of the API.

    `parts` counts the path segments after the version that were understood as resource, name and subresource;
    `rest` is what follows a subresource (as in `/proxy/<rest>`). `strange` is a path that asks for a resource but is
    none of the API's: it has an empty segment or begins with two slashes.
    """

    verb: str
    path: str
    is_resource: bool = False
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    rest: str = ""
    strange: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """A request line, understood: `query` has the first value of each parameter, `pairs` all of them in order."""

    method: str
    path: str
    query: Mapping[str, str]
    pairs: tuple[tuple[str, str], ...]
    info: RequestInfo
    raw_query: str = ""


def reaches_in(info: RequestInfo) -> bool:
    """Whether a request runs a command or opens a connection in a pod, by the pod or by its node's kubelet.

    That is no reading, though a WebSocket begins with GET.
    """
    if info.resource == "pods":
        return info.subresource in _REACHES_IN
    first = info.rest.lstrip("/").partition("/")[0]
    return info.resource == "nodes" and info.subresource == "proxy" and first.lower() in _REACHES_IN


def truth(text: str | None) -> bool:
    """A boolean query parameter: false when it is absent, `false` or `0`, true whatever else it says, if anything."""
    return text is not None and text != "0" and text.lower() != "false"


def parse(method: str, target: str) -> Target:
    """Understands a request line."""
    raw_path, _, raw_query = target.partition("?")
    if not raw_path.startswith("/") and "://" in raw_path:  # as it is sent to a forward proxy
        raw_path = "/" + raw_path.partition("://")[2].partition("/")[2]
    path = unquote(raw_path) if "%" in raw_path else raw_path
    pairs = tuple(parse_qsl(raw_query, keep_blank_values=True)) if raw_query else ()
    query: dict[str, str] = {}
    for name, value in pairs:
        query.setdefault(name, value)
    return Target(method, path, query, pairs, _info(method, path, query), raw_query)


def _info(method: str, path: str, query: Mapping[str, str]) -> RequestInfo:
    other = RequestInfo(method.lower(), path)
    parts = path.strip("/").split("/")
    if len(parts) < 3 or parts[0] not in ("api", "apis"):
        return other
    if parts[0] == "api":
        group, version, parts = "", parts[1], parts[2:]
    else:
        group, version, parts = parts[1], parts[2], parts[3:]
    if not parts:
        return other
    verb = _VERBS.get(method, method.lower())
    watching = False
    if parts[0] == "watch" and method in ("GET", "HEAD") and len(parts) > 1:
        watching, parts = True, parts[1:]
    namespace, resource, name, subresource, below = _split(parts)
    strange = path.startswith("//") or "" in parts[: len(parts) - len(below)]
    rest = "/".join(below) + ("/" if below and path.endswith("/") else "")
    if watching or (verb == "get" and not name and truth(query.get("watch"))):
        verb = "watch"
    elif not name and verb == "get":
        verb = "list"
    elif not name and verb == "delete":
        verb = "deletecollection"
    if not name and verb in ("list", "watch", "deletecollection"):
        name = _named_by_selector(query.get("fieldSelector", ""))
    return RequestInfo(verb, path, True, group, version, resource, subresource, namespace, name, rest, strange)


def _split(parts: list[str]) -> tuple[str, str, str, str, list[str]]:
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]
        if len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
            parts = parts[2:]
    resource = parts[0]
    name = parts[1] if len(parts) > 1 else ""
    subresource = parts[2] if len(parts) > 2 else ""
    return namespace, resource, name, subresource, parts[3:]


def _named_by_selector(fields: str) -> str:
    """The name that a field selector asks for: it counts for authorization like a name in the path."""
    if "metadata.name" not in fields:
        return ""
    for part in fields.split(","):
        key, _, value = part.partition("=")
        if key == "metadata.name":
            return value.removeprefix("=")
    return ""


class Targets:
    """Parsed request lines by (method, target): most connections ask the same few things again and again."""

    def __init__(self) -> None:
        self._memo: dict[tuple[str, str], Target] = {}

    def get(self, method: str, target: str) -> Target:
        """The parsed form, made at most once while it stays remembered."""
        known = self._memo.get((method, target))
        if known is None:
            if len(self._memo) >= _MEMO_LIMIT:
                self._memo.clear()
            known = self._memo[(method, target)] = parse(method, target)
        return known
