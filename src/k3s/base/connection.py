"""One client's connection: requests are answered one after the other, within limits of time.

A request that came ahead waits, and reading stops when too much waits. An answer that is there at once is written
without making a task. A client that does not read what it asked for gets no more answers until it does, and is let go
in the end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import TYPE_CHECKING, Any

import httptools

from k3s.base.incoming import AHEAD, AHEAD_BYTES, IN_BODY, IN_HEAD, Incoming
from k3s.base.message import (
    Answer,
    Chunks,
    Joined,
    Request,
    Response,
    Stream,
    Upgrade,
    chunk,
    peer_certificate,
)

if TYPE_CHECKING:
    from k3s.base.http import HttpServer

log = logging.getLogger(__name__)

# Go's DefaultMaxHeaderBytes and the slack that its server adds.
MAX_HEADERS = 1024 * 1024 + 4096
# Upstream's ReadHeaderTimeout and IdleTimeout, and its request timeout, which a slow body runs into.
HEADER_S, IDLE_S, BODY_S = 32.0, 90.0, 60.0
# A client that takes nothing of what was sent to it for so long is let go.
UNREAD_S = 60.0
# How long a client that was refused may go on sending: closed at once, it might not read why.
_LINGER_S = 0.5
_LIMITS = (IDLE_S, HEADER_S, BODY_S)
# Below this size one write of head and body together is cheaper than two.
_JOIN_BELOW = 64 * 1024
# Answers without a body do not tell its length either (RFC 9110, 8.6).
_NO_BODY = frozenset({204, 304})
# What is written of a large body at once.
_PIECE = 48 * 1024

_NOTHING = Request("", "", {})


class Connection(Incoming):
    """One client's connection, and the sink of its stream."""

    def __init__(self, server: HttpServer) -> None:
        super().__init__()
        self._server = server
        self._timed = IN_HEAD
        self._counted = 0
        self._asked = _NOTHING
        self._keep_alive = True
        self._source: Any = None
        self._writable: asyncio.Event | None = None
        self.task: asyncio.Task[None] | None = None
        self._upgraded = False
        self._rest = b""
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._head_only = False
        self._whole = False
        self.paused = False

    # --- from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        parsed = transport.get_extra_info("peercert")
        if parsed:
            self._peer = peer_certificate(parsed, transport.get_extra_info("ssl_object").getpeercert(True))
        address = transport.get_extra_info("peername")
        self._source_address = str(address[0]) if isinstance(address, tuple) else ""
        self._server.connections.add(self)
        self._timer = asyncio.get_running_loop().call_later(HEADER_S, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._untimed()
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
        if self._ignoring:
            return
        if self._upgraded:
            self._rest += data
            if len(self._rest) > _JOIN_BELOW and self._transport is not None:
                self._transport.pause_reading()
            return
        if self._state == IN_HEAD:
            # The parser keeps a header until it is whole: count what it is given.
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADERS:
                self._refuse(431, "431 Request Header Fields Too Large")
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._rest = data[upgrade.args[0] :]
            self._upgraded = True
            self._advance()
        except httptools.HttpParserError as error:
            self._refuse(400, f"400 Bad Request: {error}")
        if self._state == IN_HEAD and not self._header_bytes:
            self._header_bytes = len(data)
        if self._state != self._timed:
            self._time()

    def pause_writing(self) -> None:
        self.paused = True
        if self._writable is not None:
            self._writable.clear()
        if self._unread is None:
            self._unread = asyncio.get_running_loop().call_later(UNREAD_S, self._not_read)

    def resume_writing(self) -> None:
        self.paused = False
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        if self._writable is not None:
            self._writable.set()
        if self._source is not None:
            self._source.resumed()
        self._advance()

    # --- time limits

    def _time(self) -> None:
        """Limits how long the client may stay in the state it is in now."""
        if self._timer is not None:
            self._timer.cancel()
        self._timed, self._counted = self._state, self._count
        if self._transport is not None:
            self._timer = asyncio.get_running_loop().call_later(_LIMITS[self._state], self._late)

    def _untimed(self) -> None:
        for timer in (self._timer, self._unread):
            if timer is not None:
                timer.cancel()
        self._timer = self._unread = None

    def _late(self) -> None:
        """The client took too long, unless it is us who made it wait or it came back in the meantime."""
        if self._busy or self._held or self._upgraded or self._counted != self._count:
            self._time()
        elif self._timed == IN_BODY and not self._ignoring:
            self._too_late = True
            self._cut()
        elif self._transport is not None:
            self._transport.close()

    def _not_read(self) -> None:
        """What was sent is still not read. Streams and pieces wait for their reader; a whole answer does not."""
        self._unread = None
        if self._transport is None or self._upgraded:
            return
        if self._source is not None or (self.task is not None and not self._whole):
            self._unread = asyncio.get_running_loop().call_later(UNREAD_S, self._not_read)
        else:
            self._transport.abort()

    # --- answering

    def _advance(self) -> None:
        """Works on what waits, one after the other, until one of them takes time or the client does not read."""
        while self._waiting and not self._busy and not self.paused and self._transport is not None:
            request, self._keep_alive = self._waiting.popleft()
            self._busy = True
            if isinstance(request, Response):
                self._asked = _NOTHING
                self._head_only = False
                self._send(request)
                continue
            self._ahead -= len(request.body)
            if self._held and len(self._waiting) < AHEAD and self._ahead <= AHEAD_BYTES:
                self._held = False
                self._transport.resume_reading()
            self._asked = request
            self._head_only = request.method == "HEAD"
            result = self._server.app(request)
            if request.last:
                self._keep_alive = False
            if not isinstance(result, Response):
                self.task = self._server.tasks.spawn(self._answer(result), "request")
            elif len(result.body) > _JOIN_BELOW and self._compressed(result):
                self.task = self._server.tasks.spawn(self._answer(result), "compress")
            else:
                self._send(result)

    def _compressed(self, answer: Response) -> bool:
        compression = self._server.compression
        return compression is not None and compression.wanted(self._asked.headers, answer) and not self._head_only

    async def _answer(self, result: Answer | Awaitable[Answer]) -> None:
        answer = result if isinstance(result, (Response, Stream, Chunks, Upgrade)) else await result
        compression = self._server.compression
        if compression is not None and isinstance(answer, Response) and self._compressed(answer):
            answer = await compression.apply(answer)
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

    def _head(self, answer: Response | Stream | Chunks) -> bytes:
        asked = self._asked
        head = self._server.heads.get(answer.status, answer.content_type, answer.headers, asked.headers.get("audit-id"))
        return head + asked.lines if asked.lines else head

    def _send(self, answer: Response) -> None:
        transport = self._transport
        assert transport is not None
        head, body = self._head(answer), answer.body
        again = self._keep_alive and not self._server.stopping
        end = b"Content-Length: %d\r\n\r\n" if again else b"Connection: close\r\nContent-Length: %d\r\n\r\n"
        if answer.status in _NO_BODY:
            transport.write(head + (b"\r\n" if again else b"Connection: close\r\n\r\n"))
        elif self._head_only:
            transport.write(head + end % len(body))
        elif len(body) < _JOIN_BELOW:
            transport.write(head + end % len(body) + bytes(body))
        else:
            transport.write(head + end % len(body))
            # In pieces that stay in the processor's cache while they are encrypted.
            pieces = body.pieces(_PIECE) if isinstance(body, Joined) else _cut(body)
            for piece in pieces:
                transport.write(piece)
                if self.paused:
                    self._writable, self._whole = asyncio.Event(), True
                    self.task = self._server.tasks.spawn(self._rest_of(pieces), "rest")
                    return
        self._finished()

    async def _rest_of(self, pieces: Iterator[bytes | memoryview]) -> None:
        """The pieces of an answer that the client did not take at once."""
        assert self._writable is not None
        for piece in pieces:
            await self._writable.wait()
            if self._transport is None:
                return
            self._transport.write(piece)
        self.task, self._writable, self._whole = None, None, False
        self._finished()
        self._advance()

    def _finished(self) -> None:
        self._busy = False
        self._asked = _NOTHING
        if (not self._keep_alive or self._server.stopping) and self._transport is not None:
            if self._ignoring and not self._old:
                self._waiting.clear()
                asyncio.get_running_loop().call_later(_LINGER_S, self._transport.close)
            else:
                self._transport.close()

    def _begin(self, answer: Stream | Chunks) -> None:
        assert self._transport is not None
        end = b"" if self._keep_alive else b"Connection: close\r\n"
        framing = b"\r\n" if self._old else b"Transfer-Encoding: chunked\r\n\r\n"
        self._transport.write(self._head(answer) + end + framing)

    def _stream(self, answer: Stream) -> None:
        self._begin(answer)
        self._source = answer.source
        answer.source.start(self)
        if self._server.stopping:
            self.end()

    def write(self, data: bytes) -> None:
        """Sends one chunk of a stream."""
        if self._transport is not None and data:
            self._transport.write(data if self._old else chunk(data))

    def write_chunk(self, framed: bytes) -> None:
        """Sends what `chunk` has framed."""
        if self._transport is not None:
            # HTTP/1.0 knows no chunks: what it is sent ends with the connection.
            self._transport.write(framed[framed.index(b"\n") + 1 : -2] if self._old else framed)

    def end(self) -> None:
        """Ends a stream; the connection can be used again."""
        source, self._source = self._source, None
        if source is not None:
            source.stop()
        if self._transport is not None and self._busy:
            self._last_chunk(self._transport)
            self._finished()
            self._advance()

    def _last_chunk(self, transport: asyncio.Transport) -> None:
        if not self._old:
            transport.write(b"0\r\n\r\n")

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
                self._last_chunk(self._transport)
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
        self._untimed()
        self._server.connections.discard(self)
        self._server.handed_over.add(transport)
        try:
            await answer.handler(transport, rest)
        finally:
            self._server.handed_over.discard(transport)
            if transport is not None and not transport.is_closing():
                transport.close()

    # --- stopping

    def stop(self) -> None:
        """Ends the stream if there is one; closes when nothing is being answered."""
        if self._source is not None:
            self.end()
        elif not self._busy and self._transport is not None:
            self._transport.close()


def _cut(body: bytes) -> Iterator[memoryview]:
    view = memoryview(body)
    return (view[at : at + _PIECE] for at in range(0, len(body), _PIECE))
