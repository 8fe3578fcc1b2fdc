"""Passes one request on to a backend over a connection of its own, and its answer, or the raw connection, back.

Bytes are passed on, not understood. Rules that keep this safe (each was a CVE once): a failed upgrade closes both
connections; redirects are handed to the client, never followed; credentials of the client stay here.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import httptools

from k3s.base.duplex import Duplex, splice, status_of
from k3s.base.message import TEXT, Answer, Chunks, Header, Request, Upgrade

# Headers that belong to one connection (RFC 9110, 7.6.1) or to the client's identity: they do not go further.
_HOP_BY_HOP = "connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade"
_NOT_FORWARDED = frozenset((*_HOP_BY_HOP.split(), "host", "content-length", "authorization", "expect"))
_NOT_FORWARDED_PREFIXES = ("impersonate-", "x-remote-")
_NOT_RETURNED = frozenset(("connection", "keep-alive", "transfer-encoding", "content-length", "upgrade", "date"))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request goes on to; `path` includes the query."""

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None = None


class Dialer(Protocol):
    """How a connection to a node is made: directly, or through the node's tunnel."""

    async def __call__(self, host: str, port: int, tls: ssl.SSLContext | None) -> Duplex:
        """A connection. Raises OSError."""


#: What becomes of a refusal before it is passed on: may raise another error.
Refused = Callable[["Body", int], Awaitable[None]]


async def converse(
    request: Request, place: Place, backend: Duplex, refused: Refused | None = None, more: Iterable[Header] = ()
) -> Answer:
    """Sends the request with the headers `more`, and answers what comes; the caller closes `backend` when this raises.

    `refused` is given redirects and errors. Raises ConnectionError.
    """
    await backend.write(_head(request, place, more) + request.body)
    head = await backend.read_head()
    status = status_of(head)
    if status == 101:
        return Upgrade(lambda transport, rest: _join(transport, rest, head, backend), backend.close)
    body = Body(backend, head, request.method)
    if refused is not None and status >= 300 and status != 304:
        await refused(body, status)
    return Chunks(status, body.pieces(), body.content_type, body.headers, backend.close)


async def _join(transport: Any, rest: bytes, head: bytes, backend: Duplex) -> None:
    try:
        client = Duplex.take_over(transport, rest)
        await client.write(head)
        await splice(client, backend)
    except ConnectionError:
        # The client went before it was answered; the one who calls closes its end.
        return
    finally:
        backend.close()


def _head(request: Request, place: Place, more: Iterable[Header]) -> bytes:
    lines = [f"{request.method} {place.path} HTTP/1.1", f"Host: {place.host}:{place.port}"]
    upgrade = request.headers.get("upgrade")
    lines += ["Connection: Upgrade", f"Upgrade: {upgrade}"] if upgrade else ["Connection: close"]
    for name, value in request.headers.items():
        if name in _NOT_FORWARDED or name.startswith(_NOT_FORWARDED_PREFIXES):
            continue
        if name == "sec-websocket-protocol":
            value = _without_credentials(value)
        lines.append(f"{name}: {value}")
    lines += [f"{name}: {value}" for name, value in more]
    if request.body:
        lines.append(f"Content-Length: {len(request.body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _without_credentials(protocols: str) -> str:
    """WebSocket clients in browsers send their token as a subprotocol: it is not for the backend."""
    offered = [p.strip() for p in protocols.split(",")]
    return ", ".join(p for p in offered if not p.startswith("base64url.bearer.authorization.k8s.io."))


class Body:
    """The body of a backend's answer, decoded from its chunks."""

    def __init__(self, backend: Duplex, head: bytes, method: str) -> None:
        self._backend = backend
        self._parts: list[bytes] = []
        self._done = False
        self._headers: list[tuple[str, str]] = []
        self._parser = httptools.HttpResponseParser(self)
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserError as error:
            raise ConnectionError(f"the backend broke HTTP: {error}") from error
        self._done = self._done or method == "HEAD"

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self._parts.append(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._done = True

    @property
    def content_type(self) -> str:
        """What the backend says that the body is."""
        return next((value for name, value in self._headers if name.lower() == "content-type"), TEXT)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers that go on to the client."""
        dropped = _NOT_RETURNED | {"content-type"}
        return tuple((name, value) for name, value in self._headers if name.lower() not in dropped)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes; closes the connection at its end. Raises OSError when it breaks off."""
        try:
            while True:
                parts, self._parts = self._parts, []
                for part in parts:
                    yield part
                if self._done:
                    return
                data = await self._backend.read()
                if not data:
                    return
                try:
                    self._parser.feed_data(data)
                except httptools.HttpParserError as error:
                    raise ConnectionError(f"the backend broke HTTP: {error}") from error
        finally:
            self._backend.close()
