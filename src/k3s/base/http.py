"""HTTP/1.1 on httptools: bytes in, a request to whoever answers, an answer out. Nothing clever in it.

One request of a connection is worked on at a time; what a client sends ahead waits, and reading stops when too much
waits. An answer that is there at once is written without making a task.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

import httptools

from k3s.base.aio import Tasks
from k3s.base.clock import Clock
from k3s.base.message import (
    TEXT,
    Answer,
    Chunks,
    Header,
    PeerCertificate,
    Request,
    Response,
    Stream,
    Upgrade,
    chunk,
    peer_certificate,
)

log = logging.getLogger(__name__)

MAX_BODY = 3 * 1024 * 1024
MAX_HEADERS = 64 * 1024
# A client that connects and then says nothing is let go after this many seconds.
_FIRST_REQUEST_S = 30.0
_AHEAD = 32
# Below this size one write of head and body together is cheaper than two.
_JOIN_BELOW = 64 * 1024

App = Callable[[Request], "Answer | Awaitable[Answer]"]
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Heads:
    """The first bytes of answers, kept by status and content type; the Date line changes once a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = 0
        self._date = b""
        self._heads: dict[tuple[int, str], bytes] = {}

    def get(self, status: int, content_type: str, headers: tuple[Header, ...]) -> bytes:
        """Status line and headers, without those of the body's length and without the empty line."""
        head = self._heads.get((status, content_type))
        if head is None:
            kind = f"Content-Type: {content_type}\r\n" if content_type else ""
            text = f"HTTP/1.1 {status} {_PHRASES.get(status, 'Unknown')}\r\nCache-Control: no-cache, private\r\n{kind}"
            if content_type == TEXT:
                text += "X-Content-Type-Options: nosniff\r\n"
            head = self._heads[(status, content_type)] = text.encode("latin-1")
        second = int(self._clock.now())
        if second != self._second:
            self._second = second
            self._date = f"Date: {formatdate(second, usegmt=True)}\r\n".encode()
        if headers:
            more = "".join(f"{name}: {value}\r\n" for name, value in headers)
            return head + self._date + more.encode("latin-1", "replace")
        return head + self._date


class Connection(asyncio.Protocol):
    """One client's connection, and the sink of its stream."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._peer: PeerCertificate | None = None
        self._url = b""
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._body: bytearray | bytes = b""
        self._too_large = False
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._busy = False
        self._keep_alive = True
        self._source: Any = None
        self._writable: asyncio.Event | None = None
        self.task: asyncio.Task[None] | None = None
        self._upgraded = False
        self._rest = b""
        self._deadline: asyncio.TimerHandle | None = None
        self._head_only = False
        self.paused = False

    # --- from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        self._peer = peer_certificate(transport.get_extra_info("peercert"))
        self._server.connections.add(self)
        self._deadline = asyncio.get_running_loop().call_later(_FIRST_REQUEST_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._settle()
        self._transport = None
        self._waiting.clear()
        if self._source is not None:
            self._source.stop()
            self._source = None
        if self._writable is not None:
            self._writable.set()
        # What only reads for this client ends with it; a write goes on, so that its outcome is not left open.
        if self.task is not None and self._writable is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._upgraded:
            self._rest += data
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._rest = data[upgrade.args[0] :]
            self._upgraded = True
            self._advance()
        except httptools.HttpParserError as error:
            self._refuse(400, f"400 Bad Request: {error}\n")

    def pause_writing(self) -> None:
        self.paused = True
        if self._writable is not None:
            self._writable.clear()

    def resume_writing(self) -> None:
        self.paused = False
        if self._writable is not None:
            self._writable.set()
        if self._source is not None:
            self._source.resumed()

    # --- from the parser

    def on_message_begin(self) -> None:
        """A request begins."""
        self._url = b""
        self._headers = {}
        self._header_bytes = 0
        self._body = b""
        self._too_large = False

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self._url += url
        self._header_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADERS:
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers = self._headers
        headers[key] = f"{headers[key]},{text}" if key in headers else text

    def on_headers_complete(self) -> None:
        """All headers are there: those who wait for leave to send the body get it."""
        headers = self._headers
        if self._header_bytes > MAX_HEADERS:
            self._refuse(431, "431 Request Header Fields Too Large\n")
            return
        if int(headers.get("content-length") or 0) > MAX_BODY:
            self._too_large = True
        if headers.get("expect", "").lower() == "100-continue" and not self._too_large and self._transport:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._too_large:
            return
        if not self._body:
            self._body = data
            return
        if isinstance(self._body, bytes):
            self._body = bytearray(self._body)
        self._body += data
        if len(self._body) > MAX_BODY:
            self._too_large = True
            self._body = b""

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._settle()
        request = Request(
            self._parser.get_method().decode("latin-1"),
            self._url.decode("latin-1"),
            self._headers,
            bytes(self._body),
            self._peer,
            too_large=self._too_large,
        )
        # After a request to upgrade, what follows is no HTTP: an answer that declines it is the last one.
        again = self._parser.should_keep_alive() and not self._too_large and not self._parser.should_upgrade()
        self._waiting.append((request, again))
        if len(self._waiting) >= _AHEAD and self._transport is not None:
            self._transport.pause_reading()
        if not self._parser.should_upgrade():
            self._advance()

    # --- answering

    def _advance(self) -> None:
        """Works on what waits, one after the other, until one of them takes time."""
        while self._waiting and not self._busy and self._transport is not None:
            if len(self._waiting) == _AHEAD:
                self._transport.resume_reading()
            request, self._keep_alive = self._waiting.popleft()
            self._head_only = request.method == "HEAD"
            self._busy = True
            result = self._server.app(request)
            if isinstance(result, Response):
                self._send(result)
            else:
                self.task = self._server.tasks.spawn(self._answer(result), "request")

    async def _answer(self, result: Answer | Awaitable[Answer]) -> None:
        answer = result if isinstance(result, (Response, Stream, Chunks, Upgrade)) else await result
        self.task = None
        if self._transport is None:
            if isinstance(answer, Stream):
                answer.source.stop()
            elif not isinstance(answer, Response) and answer.dropped is not None:
                answer.dropped()
            return
        if isinstance(answer, Response):
            self._send(answer)
        elif isinstance(answer, Stream):
            self._stream(answer)
        elif isinstance(answer, Upgrade):
            await self._hand_over(answer)
            return
        else:
            self.task = asyncio.current_task()
            await self._pieces(answer)
        self._advance()

    def _send(self, answer: Response) -> None:
        transport = self._transport
        assert transport is not None
        head = self._server.heads.get(answer.status, answer.content_type, answer.headers)
        body = answer.body
        end = b"Content-Length: %d\r\n\r\n" if self._keep_alive else b"Connection: close\r\nContent-Length: %d\r\n\r\n"
        if self._head_only:
            transport.write(head + end % len(body))
        elif len(body) < _JOIN_BELOW:
            transport.write(head + end % len(body) + body)
        else:
            transport.write(head + end % len(body))
            transport.write(body)
        self._finished()

    def _finished(self) -> None:
        self._busy = False
        if (not self._keep_alive or self._server.stopping) and self._transport is not None:
            self._transport.close()

    def _begin(self, answer: Stream | Chunks) -> None:
        assert self._transport is not None
        head = self._server.heads.get(answer.status, answer.content_type, answer.headers)
        end = b"" if self._keep_alive else b"Connection: close\r\n"
        self._transport.write(head + end + b"Transfer-Encoding: chunked\r\n\r\n")

    def _stream(self, answer: Stream) -> None:
        self._begin(answer)
        self._source = answer.source
        answer.source.start(self)
        if self._server.stopping:
            self.end()

    def write(self, data: bytes) -> None:
        """Sends one chunk of a stream."""
        if self._transport is not None and data:
            self._transport.write(chunk(data))

    def write_chunk(self, framed: bytes) -> None:
        """Sends what `chunk` has framed."""
        if self._transport is not None:
            self._transport.write(framed)

    def end(self) -> None:
        """Ends a stream; the connection can be used again."""
        source, self._source = self._source, None
        if source is not None:
            source.stop()
        if self._transport is not None and self._busy:
            self._transport.write(b"0\r\n\r\n")
            self._finished()
            self._advance()

    async def _pieces(self, answer: Chunks) -> None:
        """Writes what an iterator gives, as fast as the client reads."""
        self._begin(answer)
        self._writable = asyncio.Event()
        if not self.paused:
            self._writable.set()
        pieces: AsyncIterator[bytes] = answer.pieces
        try:
            async for piece in pieces:
                if self._transport is None:
                    return
                self.write(piece)
                await self._writable.wait()
            if self._transport is not None:
                self._transport.write(b"0\r\n\r\n")
                self._finished()
        except (OSError, asyncio.IncompleteReadError) as error:
            # The head is out already, so that the broken chunking is the only way left to tell the client.
            log.warning("Cannot finish a streamed answer: %s; the connection is closed", error)
            if self._transport is not None:
                self._transport.abort()
        finally:
            self.task = None
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()

    async def _hand_over(self, answer: Upgrade) -> None:
        transport, rest = self._transport, self._rest
        self._server.connections.discard(self)
        self._server.handed_over.add(transport)
        try:
            await answer.handler(transport, rest)
        finally:
            self._server.handed_over.discard(transport)
            if transport is not None and not transport.is_closing():
                transport.close()

    def _refuse(self, status: int, text: str) -> None:
        if self._transport is not None:
            self._keep_alive = False
            self._send(Response(status, text.encode(), TEXT))
            self._transport = None

    def _settle(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # --- stopping

    def stop(self) -> None:
        """Ends the stream if there is one; closes when nothing is being answered."""
        if self._source is not None:
            self.end()
        elif not self._busy and self._transport is not None:
            self._transport.close()


class HttpServer:
    """Listens, and hands every request to `app`.

    `app` answers at once, or with an awaitable when the answer takes time. It never raises.
    """

    def __init__(self, app: App, clock: Clock) -> None:
        self.app = app
        self.heads = Heads(clock)
        self.tasks = Tasks("http")
        self.connections: set[Connection] = set()
        self.handed_over: set[Any] = set()
        self.stopping = False
        self._listeners: list[asyncio.Server] = []

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Starts to accept on an address; the port (useful when 0 was asked for). Raises OSError."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Connection(self), host, port, ssl=tls, backlog=1024, reuse_address=True, start_serving=True
        )
        self._listeners.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def stop(self, within_s: float = 5.0) -> None:
        """Accepts nothing more, ends streams, waits for what is being answered, then closes."""
        self.stopping = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self.connections):
            connection.stop()
        answering = [connection.task for connection in self.connections if connection.task is not None]
        if answering:
            await asyncio.wait(answering, timeout=within_s)
        for connection in list(self.connections):
            connection.stop()
        await self.tasks.close()
        for transport in list(self.handed_over):
            transport.close()
