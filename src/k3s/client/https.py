"""The transport over the network: HTTP/1.1 with TLS, kept-alive connections, a deadline on everything."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from k3s import VERSION
from k3s.api import errors
from k3s.api.errors import ApiError, OutcomeUnknown, ServiceUnavailable
from k3s.api.object import decode, encode
from k3s.client.answer import body_of, error_of
from k3s.client.connection import Broken, Connection, Exchange
from k3s.client.kubeconfig import Kubeconfig
from k3s.client.tls import Credentials, TlsContext
from k3s.client.transport import Request, Response, WatchEvent

# Requests on their way at once, and connections kept for the next ones. Watches have one each and do not count.
CONNECTIONS, IDLE_CONNECTIONS = 32, 4
CONNECT_S = 10.0
# The API server ends what takes longer than a minute.
REQUEST_S = 65.0
# A peer that vanished (no more than its cable was pulled) is noticed after this many seconds, on idle watches too.
KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVE_PROBES = 15, 5, 3

# May be sent again: they change nothing.
_SAFE_METHODS = ("GET",)


class HttpsTransport:
    """A Transport to the server at `server_url`.

    `address` answers where to connect to, instead of the URL's host and port; the certificate still has to be of that.
    `token` is a bearer token or a function that answers the newest one. Files of `credentials` are read again when they
    change; connections that are kept are then replaced.
    """

    def __init__(
        self,
        server_url: str,
        credentials: Credentials | None = None,
        *,
        token: str | Callable[[], str] = "",
        request_s: float = REQUEST_S,
        connections: int = CONNECTIONS,
        address: Callable[[], tuple[str, int]] | None = None,
    ) -> None:
        parts = urlsplit(server_url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError(f"Cannot use the server address {server_url!r}: it must be https://host:port")
        self._url = server_url
        self._host, self._port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        self._netloc = parts.netloc.rpartition("@")[2]
        self._prefix = parts.path.rstrip("/")
        self._tls = TlsContext(credentials or Credentials()) if parts.scheme == "https" else None
        self._address = address
        self._token = token
        self._request_s = request_s
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._closed = False
        self._none_left = asyncio.Event()

    async def send(self, request: Request) -> Response:
        """Answers a request. Raises ApiError, OutcomeUnknown, ServiceUnavailable."""
        exchange = await self._exchange(request)
        headers = exchange.headers
        body = body_of(exchange.body, exchange.headers)
        if exchange.status >= 400:
            raise error_of(exchange.status, body, headers)
        return Response(exchange.status, body, headers)

    async def watch(self, request: Request) -> AsyncIterator[WatchEvent]:
        """The events of a watch until the server ends it. Raises ApiError, ServiceUnavailable when it breaks."""
        connection = await self._connect()
        try:
            exchange = connection.start(self._encode(request), stream=True)
            try:
                async with asyncio.timeout(self._request_s):
                    await exchange.head
                    if exchange.status != 200:
                        await exchange.done
                        raise error_of(exchange.status, body_of(exchange.body, exchange.headers), exchange.headers)
                async for line in connection.lines(exchange):
                    if line:
                        yield _event(line)
            except Broken as error:
                raise ServiceUnavailable(f"Cannot go on watching {self._url}{request.path}: {error}") from error
            except TimeoutError as error:
                raise errors.Timeout(f"{self._url}{request.path} did not answer in {self._request_s:g} s") from error
        finally:
            connection.abort()

    async def close(self) -> None:
        """Ends every connection; what is on its way fails."""
        self._closed = True
        for connection in self._all:
            connection.abort()
        if self._all:
            await self._none_left.wait()

    # --- one request ---

    async def _exchange(self, request: Request) -> Exchange:
        safe = request.method in _SAFE_METHODS
        data = self._encode(request)
        sent = False
        try:
            async with asyncio.timeout(self._request_s), self._slots:
                while True:
                    connection = self._take() or await self._connect()
                    kept = connection.exchanges > 0
                    sent = True
                    try:
                        return await self._finish(connection, data)
                    except Broken as error:
                        # The server may end a kept connection at any moment, also just when it is used again.
                        if safe and kept and not error.answered:
                            continue
                        raise self._broken(request, str(error)) from error
        except TimeoutError as error:
            why = f"no answer in {self._request_s:g} s"
            if safe:
                raise errors.Timeout(f"{self._url}{request.path}: {why}") from error
            if not sent:
                raise ServiceUnavailable(f"Cannot reach {self._url}: too many requests wait for an answer") from error
            raise self._broken(request, why) from error

    async def _finish(self, connection: Connection, data: bytes) -> Exchange:
        finished = False
        try:
            exchange = connection.start(data)
            await exchange.done
            finished = True
            return exchange
        finally:
            if finished:
                self._give_back(connection)
            else:
                connection.abort()

    def _broken(self, request: Request, why: str) -> Exception:
        text = f"{request.method} {self._url}{request.path}: {why}"
        return ServiceUnavailable(text) if request.method in _SAFE_METHODS else OutcomeUnknown(text)

    def _encode(self, request: Request) -> bytes:
        target = self._prefix + quote(request.path, safe="/:@!$&'()*+,;=~-._")
        if request.query:
            target = f"{target}?{urlencode(request.query)}"
        lines = [
            f"{request.method} {target} HTTP/1.1",
            f"Host: {self._netloc}",
            f"Accept: {request.accept}",
            f"User-Agent: k3s/{VERSION}",
        ]
        token = self._token() if callable(self._token) else self._token
        if token:
            lines.append(f"Authorization: Bearer {token}")
        body = b""
        if request.body is not None:
            body = request.body if isinstance(request.body, bytes) else encode(request.body)
            lines.append(f"Content-Type: {request.content_type}")
        if body or request.method not in _SAFE_METHODS:
            lines.append(f"Content-Length: {len(body)}")
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError(f"Cannot send {request.method} {request.path!r}: a header holds a line break")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body

    # --- connections ---

    def _take(self) -> Connection | None:
        generation = self._tls.current() if self._tls else None
        while self._idle:
            connection = self._idle.pop()
            if connection.usable() and connection.generation is generation:
                return connection
            connection.close()
        return None

    def _give_back(self, connection: Connection) -> None:
        if not connection.usable() or self._closed:
            connection.close()
            return
        self._idle.append(connection)
        # While requests wait for their turn every connection is wanted; afterwards few are.
        while len(self._idle) > IDLE_CONNECTIONS and not self._slots.locked():
            self._idle.pop(0).close()

    def _lost(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._all:
            self._none_left.set()

    async def _connect(self) -> Connection:
        if self._closed:
            raise ServiceUnavailable(f"Cannot reach {self._url}: this client is closed")
        context: ssl.SSLContext | None = self._tls.current() if self._tls else None
        host, port = self._address() if self._address else (self._host, self._port)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                transport, connection = await loop.create_connection(
                    lambda: Connection(self._lost),
                    host,
                    port,
                    ssl=context,
                    server_hostname=self._host if context else None,
                )
        except TimeoutError as error:
            raise ServiceUnavailable(f"Cannot reach {self._url}: no connection in {CONNECT_S:g} s") from error
        except OSError as error:  # ssl.SSLError is one, too
            raise ServiceUnavailable(f"Cannot reach {self._url}: {error}") from error
        _keep_alive(transport.get_extra_info("socket"))
        connection.generation = context
        self._all.add(connection)
        return connection


def from_kubeconfig(config: Kubeconfig) -> HttpsTransport:
    """The transport to the cluster and with the identity of a kubeconfig."""
    credentials = Credentials(
        config.ca_pem, config.ca_file, config.cert_pem, config.cert_file, config.key_pem, config.key_file
    )
    return HttpsTransport(config.server, credentials, token=config.token)


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_EVERY_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


def _event(line: bytes) -> WatchEvent:
    try:
        value = decode(line)
        kind, obj = value["type"], value["object"]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise ApiError(f"the server sent a broken watch event: {error!r}") from error
    if kind == "ERROR":
        raise ApiError.from_status(obj)
    return WatchEvent(kind, obj)
