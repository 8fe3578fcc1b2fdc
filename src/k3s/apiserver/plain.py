"""Paths that are no objects: health, version, metrics, discovery, OpenAPI, debugging."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from k3s.api.errors import Forbidden, MethodNotAllowed
from k3s.api.object import Object, encode
from k3s.apiserver.identity import MASTERS, User
from k3s.apiserver.request import Target
from k3s.base.message import TEXT, Answer, Request, Response

#: A check answers None when all is well, otherwise the reason why not; it may have to ask somebody for that.
Check = Callable[[], "str | Awaitable[str | None] | None"]
Debug = Callable[[Mapping[str, str]], "str | bytes | Awaitable[str | bytes]"]
_NOT_ALLOWED = MethodNotAllowed("the server does not allow this method on the requested resource", {})
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
        path = target.path
        if not path.startswith("/"):
            return None
        first = path.split("/", 2)[1]
        if first in ("livez", "readyz", "healthz"):
            return self._health(path, first, target)
        if path.rstrip("/") == "/version":
            return self._read(request, Response(200, self._version))
        if path == "/metrics":
            return Response(200, self._metrics().encode(), _METRICS)
        if first == "debug":
            return self._debugged(path, target, user)
        if path in self._published:
            content_type, document = self._published[path]
            headers = (("Cache-Control", "public, max-age=3600"),)
            return self._read(request, Response(200, encode(document), content_type, headers))
        if first == "api" and request.method != "GET":
            raise _NOT_ALLOWED
        if first in ("api", "apis", "openapi") or path in ("/", "/index.html"):
            return self._document(request, target, path)
        return None

    def _read(self, request: Request, response: Response) -> Response:
        if request.method != "GET":
            raise _NOT_ALLOWED
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

    def _health(self, path: str, kind: str, target: Target) -> Answer | Awaitable[Answer]:
        names = [name for name in self._checks if kind == "readyz" or name in self._live]
        single = path[len(kind) + 2 :]
        if path != f"/{kind}" and single not in names:
            return Response(404, b"404 page not found\n", TEXT)
        excluded = {value for key, value in target.pairs if key == "exclude"} - {single}
        found = {name: self._checks[name]() for name in ([single] if single else names) if name not in excluded}

        def answer(why: Mapping[str, str | None]) -> Answer:
            return _checked(why[single]) if single else _all_checked(kind, names, why, "verbose" in target.query)

        slow = [name for name, why in found.items() if isinstance(why, Awaitable)]
        return _once_known(found, slow, answer) if slow else answer(found)  # type: ignore[arg-type]

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


async def _once_known(
    found: Mapping[str, Any], slow: Sequence[str], answer: Callable[[Mapping[str, str | None]], Answer]
) -> Answer:
    return answer({**found, **{name: await found[name] for name in slow}})


def _checked(why: str | None) -> Response:
    return Response(200, b"ok", TEXT) if why is None else _failed(f"internal server error: {why}\n")


def _all_checked(kind: str, names: Sequence[str], found: Mapping[str, str | None], verbose: bool) -> Response:
    """What several checks answer together; those that were not asked are excluded."""
    lines = []
    for name in names:
        if name not in found:
            lines.append(f"[+]{name} excluded: ok\n")
        else:
            why = found[name]
            lines.append(f"[+]{name} ok\n" if why is None else f"[-]{name} failed: {why}\n")
    text = "".join(lines)
    if any(why is not None for why in found.values()):
        return _failed(f"{text}{kind} check failed\n")
    return Response(200, f"{text}{kind} check passed\n".encode() if verbose else b"ok", TEXT)
