"""Paths that are no objects: health, version, metrics, discovery, OpenAPI, debugging."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from k3s.api.errors import Forbidden, MethodNotAllowed
from k3s.api.object import Object, encode
from k3s.apiserver.identity import MASTERS, User
from k3s.apiserver.request import Target
from k3s.base.message import TEXT, Answer, Request, Response

#: A check answers None when all is well, otherwise the reason why not.
Check = Callable[[], "str | None"]
Debug = Callable[[Mapping[str, str]], "str | bytes | Awaitable[str | bytes]"]
_METRICS = "text/plain; version=0.0.4; charset=utf-8"


class Documents(Protocol):
    """Discovery and OpenAPI."""

    def answer(self, path: str, accept: str, query: Mapping[str, str]) -> Any:
        """(status, content type, body, headers) of a path; None when it has none."""


class Plain:
    """The answers, by path."""

    def __init__(
        self,
        version: Mapping[str, str],
        checks: Mapping[str, Check],
        live: frozenset[str],
        metrics: Callable[[], str],
        documents: Callable[[], Documents],
        debug: Mapping[str, Debug],
        published: Mapping[str, tuple[str, Object]],
    ) -> None:
        self._version = encode(dict(version)) + b"\n"
        self._checks = checks
        self._live = live
        self._metrics = metrics
        self._documents = documents
        self._debug = debug
        self._published = published

    def __call__(self, request: Request, target: Target, user: User) -> Answer | Awaitable[Answer] | None:
        """The answer of a path; None when there is nothing."""
        path = target.path.rstrip("/") or "/"
        first = path.split("/", 2)[1]
        if first in ("livez", "readyz", "healthz"):
            return self._health(path, first, target)
        if path == "/version":
            return self._read(request, Response(200, self._version))
        if path == "/metrics":
            return Response(200, self._metrics().encode(), _METRICS)
        if first == "debug":
            return self._debugged(path, target, user)
        if path in self._published:
            content_type, document = self._published[path]
            headers = (("Cache-Control", "public, max-age=3600"),)
            return self._read(request, Response(200, encode(document), content_type, headers))
        if first in ("api", "apis", "openapi", "") and not target.path.startswith("//"):
            return self._document(request, target, path)
        return None

    def _read(self, request: Request, response: Response) -> Response:
        if request.method != "GET":
            raise MethodNotAllowed("the server does not allow this method on the requested resource", {})
        return response

    def _document(self, request: Request, target: Target, path: str) -> Answer | None:
        found = self._documents().answer(path, request.headers.get("accept", ""), target.query)
        if found is None:
            return None
        status, content_type, body, *headers = found
        more = headers[0] if headers else {}
        pairs = tuple(more.items()) if isinstance(more, dict) else tuple(more)
        tag = dict(pairs).get("ETag")
        given = request.headers.get("if-none-match")
        if tag and given and (known(given, tag) if path.startswith("/openapi") else given == tag):
            return Response(304, b"", "", pairs)
        return Response(status, body, content_type, pairs)

    def _health(self, path: str, kind: str, target: Target) -> Response:
        names = [name for name in self._checks if kind == "readyz" or name in self._live]
        single = path[len(kind) + 2 :]
        if single:
            if single not in names:
                return Response(404, b"404 page not found\n", TEXT)
            why = self._checks[single]()
            return Response(200, b"ok", TEXT) if why is None else _failed(f"internal server error: {why}\n")
        excluded = {value for key, value in target.pairs if key == "exclude"}
        lines, bad = [], []
        for name in names:
            why = None if name in excluded else self._checks[name]()
            if name in excluded:
                lines.append(f"[+]{name} excluded: ok\n")
            elif why is None:
                lines.append(f"[+]{name} ok\n")
            else:
                bad.append(name)
                lines.append(f"[-]{name} failed: {why}\n")
        text = "".join(lines)
        if bad:
            return _failed(f"{text}{kind} check failed\n")
        if "verbose" in target.query:
            return Response(200, f"{text}{kind} check passed\n".encode(), TEXT)
        return Response(200, b"ok", TEXT)

    def _debugged(self, path: str, target: Target, user: User) -> Answer | Awaitable[Answer] | None:
        handler = self._debug.get(path)
        if handler is None:
            return None
        if MASTERS not in user.groups:
            raise Forbidden(f'forbidden: User "{user.name}" cannot get path "{path}"', {})
        found = handler(target.query)
        if isinstance(found, (str, bytes)):
            return _text(found)
        return _wait(found)


def known(given: str, tag: str) -> bool:
    """Whether an If-None-Match header names a tag: RFC 9110, 13.1.2, as Go's http.ServeContent reads it, which serves
    OpenAPI upstream. Discovery upstream compares the whole header."""
    return any(one.strip().removeprefix("W/") in ("*", tag.removeprefix("W/")) for one in given.split(","))


async def _wait(work: Awaitable[str | bytes]) -> Answer:
    return _text(await work)


def _text(found: str | bytes) -> Response:
    return Response(200, found.encode() if isinstance(found, str) else found, TEXT)


def _failed(text: str) -> Response:
    return Response(500, text.encode(), TEXT)
