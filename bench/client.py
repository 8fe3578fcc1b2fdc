"""A light HTTPS client: prepared bytes out, status and body in, so that the client is not what is measured."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

JSON = "application/json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


class Connection(asyncio.Protocol):
    """A kept connection: one request at a time, or one endless watch whose pieces go to `on_data`."""

    def __init__(self, on_data: Callable[[bytes], None] | None = None) -> None:
        self._buffer = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._need = -1
        self._status = 0
        self._on_data = on_data
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("Cannot go on: the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        if self._on_data is not None and self._answer is None:
            self._on_data(data)
            return
        self._buffer += data
        if self._need < 0 and not self._head():
            return
        if self._on_data is not None:
            rest, self._need = bytes(self._buffer), -1
            self._finish(b"")
            self._on_data(rest)
        elif self._need >= 0 and len(self._buffer) >= self._need:
            body = bytes(self._buffer[: self._need])
            del self._buffer[: self._need]
            self._need = -1
            self._finish(body)

    def _head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[:end]).lower()
        self._status = int(head[9:12])
        at = head.find(b"\r\ncontent-length:")
        self._need = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if at < 0 and self._on_data is None:
            raise ValueError("Cannot read an answer without Content-Length")
        del self._buffer[: end + 4]
        return True

    def _finish(self, body: bytes) -> None:
        answer, self._answer = self._answer, None
        assert answer is not None
        if not answer.done():
            answer.set_result((self._status, body))

    def send(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Sends a request; the future is its status and body."""
        assert self.transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer


class Client:
    """Requests to one server, with a bearer token or with the client certificate of `tls`."""

    def __init__(self, port: int, tls: ssl.SSLContext, token: str = "") -> None:
        self.port = port
        self._tls = tls
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        self._common = f"Host: 127.0.0.1:{port}\r\n{authorization}User-Agent: bench\r\nAccept: {JSON}\r\n"

    def request(self, method: str, path: str, body: Any = None, content_type: str = JSON) -> bytes:
        """The bytes of a request."""
        head = f"{method} {path} HTTP/1.1\r\n{self._common}"
        if body is None:
            return f"{head}\r\n".encode()
        data = json.dumps(body, separators=(",", ":")).encode()
        return f"{head}Content-Type: {content_type}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data

    async def connect(self, on_data: Callable[[bytes], None] | None = None) -> Connection:
        """A new connection. Raises OSError."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: Connection(on_data), "127.0.0.1", self.port, ssl=self._tls)
        return connection

    async def once(self, method: str, path: str, body: Any = None, content_type: str = JSON) -> tuple[int, bytes]:
        """One request on a connection of its own. Raises OSError."""
        connection = await self.connect()
        try:
            return await connection.send(self.request(method, path, body, content_type))
        finally:
            if connection.transport is not None:
                connection.transport.close()

    async def make(self, path: str, body: Any) -> Any:
        """Creates an object; it may exist. Raises RuntimeError when refused."""
        status, answer = await self.once("POST", path, body)
        if status not in (201, 409):
            raise RuntimeError(f"Cannot create {path}: {status} {answer[:300]!r}")
        return json.loads(answer)

    async def drive(self, requests: list[bytes], connections: int = 16, per_second: float = 0) -> list[float]:
        """Sends all requests over some connections; the latencies in seconds. Raises RuntimeError for a refusal."""
        waiting = iter(enumerate(requests))
        latencies: list[float] = []
        began = time.perf_counter()

        async def worker() -> None:
            connection = await self.connect()
            for number, request in waiting:
                if per_second:
                    await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
                sent = time.perf_counter()
                status, body = await connection.send(request)
                latencies.append(time.perf_counter() - sent)
                if status >= 300:
                    raise RuntimeError(f"Cannot measure: {request[:80]!r} was answered {status} {body[:300]!r}")
            assert connection.transport is not None
            connection.transport.close()

        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(worker())
        return latencies

    async def watch(self, path: str) -> AsyncIterator[tuple[float, str, Any]]:
        """The events of a watch as (time.monotonic(), type, object), without an end."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        connection = await self.connect(lambda data: pieces.put_nowait((time.monotonic(), data)))
        status, _ = await connection.send(self.request("GET", path))
        if status != 200:
            raise RuntimeError(f"Cannot watch {path}: {status}")
        buffer = b""
        try:
            while True:
                at, data = await pieces.get()
                buffer += data
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    # The lines between are the sizes of chunks.
                    if line.startswith(b"{"):
                        event = json.loads(line)
                        yield at, event["type"], event["object"]
        finally:
            if connection.transport is not None:
                connection.transport.close()
