"""One HTTP/1.1 connection of the client: one exchange at a time, its body gathered or handed out line by line."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import cast

import httptools

# Lines of a stream that wait for their reader; beyond it the connection is not read, so the server notices.
LINES_HIGH, LINES_LOW = 1000, 250


class Broken(Exception):
    """The connection ended before the answer did; `answered`: something of the answer had come."""

    def __init__(self, why: str, answered: bool) -> None:
        super().__init__(why)
        self.answered = answered


class Exchange:
    """An answer as it arrives."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stream: bool) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.stream = stream
        self.head: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        self.lines: deque[bytes] = deque()
        self.more: asyncio.Event = asyncio.Event()

    def fail(self, error: Broken) -> None:
        """Ends what waits for this answer with an error."""
        for future in (self.head, self.done):
            if not future.done():
                future.set_exception(error)
                future.exception()  # one of the two may have nobody who waits
        self.more.set()

    def feed(self, data: bytes) -> None:
        """Takes a piece of the body."""
        if not self.stream or self.status != 200:
            self.body += data
            return
        # Only the new piece is searched for an end of line: an event of a megabyte comes in many pieces.
        first, *rest = data.split(b"\n")
        self.body += first
        if rest:
            self.lines.append(bytes(self.body))
            self.lines.extend(rest[:-1])
            self.body = bytearray(rest[-1])
            self.more.set()


class Connection(asyncio.Protocol):
    """The protocol; `on_lost` is called once when the connection has ended."""

    def __init__(self, on_lost: Callable[[Connection], None]) -> None:
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._answered = False
        self._paused = False
        self._parser = httptools.HttpResponseParser(self)
        self.exchanges = 0
        self.reusable = True
        self.generation: object = None

    # --- the client's side ---

    def start(self, data: bytes, *, stream: bool = False) -> Exchange:
        """Sends a request; the connection must be idle and usable."""
        assert self._exchange is None, "one exchange at a time"
        assert self._transport is not None, "connected before use"
        exchange = self._exchange = Exchange(self._loop, stream)
        self._answered = False
        self._parser = httptools.HttpResponseParser(self)
        self.exchanges += 1
        self._transport.write(data)
        return exchange

    async def lines(self, exchange: Exchange) -> AsyncIterator[bytes]:
        """The lines of a streamed body until it ends. Raises Broken when it ends early."""
        while True:
            while exchange.lines:
                yield exchange.lines.popleft()
                if self._paused and len(exchange.lines) <= LINES_LOW:
                    self._resume()
            if exchange.done.done():
                exchange.done.result()
                return
            exchange.more.clear()
            await exchange.more.wait()

    def usable(self) -> bool:
        """Whether another request may be sent."""
        transport = self._transport
        return self.reusable and self._exchange is None and transport is not None and not transport.is_closing()

    def close(self) -> None:
        """Ends the connection with a goodbye."""
        self.reusable = False
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Ends the connection now."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    # --- the loop's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked by class: uvloop's transports for TLS are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:  # bytes that nobody asked for
            self.abort()
            return
        self._answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"the answer is no HTTP: {error}")
            self.abort()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        self._transport = None
        self._fail(str(exc) if exc else "the server closed the connection")
        self._on_lost(self)

    def _fail(self, why: str) -> None:
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.fail(Broken(why, self._answered))

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None:
            self._transport.resume_reading()

    # --- the parser's side ---

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._exchange is not None:
            self._exchange.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        exchange.status = self._parser.get_status_code()
        self.reusable = self._parser.should_keep_alive()
        if exchange.status >= 200 and not exchange.head.done():
            exchange.head.set_result(None)

    def on_body(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        exchange.feed(data)
        if len(exchange.lines) > LINES_HIGH and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is None or exchange.status < 200:  # 100 Continue: the answer is still to come
            return
        self._exchange = None
        if exchange.stream and exchange.status == 200 and exchange.body:
            exchange.lines.append(bytes(exchange.body))
        if not exchange.done.done():
            exchange.done.set_result(None)
        exchange.more.set()
