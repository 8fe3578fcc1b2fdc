"""HTTP/1.1 on httptools: bytes in (see `incoming`), a request to whoever answers, an answer out (see `connection`).

Nothing clever in it: one request of a connection is worked on at a time.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from k3s.base.aio import Tasks
from k3s.base.clock import Clock
from k3s.base.compress import Compression
from k3s.base.connection import Connection
from k3s.base.entropy import Entropy
from k3s.base.heads import Heads
from k3s.base.message import Answer, Request

App = Callable[[Request], "Answer | Awaitable[Answer]"]


class HttpServer:
    """Listens, and hands every request to `app`.

    `app` answers at once, or with an awaitable when the answer takes time. It never raises. With `entropy`, answers
    have an Audit-Id; with `compression`, large ones are compressed for clients that ask for it.
    """

    def __init__(
        self, app: App, clock: Clock, entropy: Entropy | None = None, compression: Compression | None = None
    ) -> None:
        self.app = app
        self.heads = Heads(clock, entropy)
        self.compression = compression
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

    async def stop(self, within_s: float = 5.0, *, listening: bool = False) -> None:
        """Accepts nothing more, ends streams, waits for what is being answered, then closes.

        With `listening` it goes on to accept while it waits, so that who comes is told what the app has to say.
        """
        self.stopping = True
        if not listening:
            self._close_listeners()
        for connection in list(self.connections):
            connection.stop()
        answering = [connection.task for connection in self.connections if connection.task is not None]
        if answering:
            await asyncio.wait(answering, timeout=within_s)
        self._close_listeners()
        for connection in list(self.connections):
            connection.stop()
        await self.tasks.close()
        for transport in list(self.handed_over):
            transport.close()

    def _close_listeners(self) -> None:
        while self._listeners:
            self._listeners.pop().close()
