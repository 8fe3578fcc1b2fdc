"""A raw connection both ways, with back-pressure: what an upgraded request becomes."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

# Reading stops when this many bytes wait: whoever sends faster than the other side reads has to wait.
_HIGH_WATER = 256 * 1024
_MAX_HEAD = 64 * 1024
_CONNECT_S = 15.0


class Duplex(asyncio.Protocol):
    """One end of a connection. `read` answers b"" when the peer has closed or the connection broke."""

    def __init__(self, rest: bytes = b"") -> None:
        self._buffer = bytearray(rest)
        self._transport: Any = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed = False
        self._paused = False
        if rest:
            self._readable.set()

    @classmethod
    def take_over(cls, transport: Any, rest: bytes) -> Duplex:
        """Becomes the protocol of a transport that another protocol used; `rest` is what that one had read ahead."""
        duplex = cls(rest)
        duplex.connection_made(transport)
        transport.set_protocol(duplex)
        transport.resume_reading()
        return duplex

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._readable.set()
        if len(self._buffer) > _HIGH_WATER and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Stays open for writing, which TLS knows no way to."""
        self._closed = True
        self._readable.set()
        return self._transport.get_extra_info("ssl_object") is None

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._readable.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def read(self) -> bytes:
        """The bytes that are there, waiting for some; b"" at the end."""
        while not self._buffer and not self._closed:
            self._readable.clear()
            await self._readable.wait()
        data = bytes(self._buffer)
        self._buffer.clear()
        self._resume()
        return data

    async def read_head(self) -> bytes:
        """An HTTP head up to and with its empty line. Raises ConnectionError when none comes."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if self._closed or len(self._buffer) > _MAX_HEAD:
                raise ConnectionError("the connection ended before an answer came")
            self._readable.clear()
            await self._readable.wait()
        head = bytes(self._buffer[: end + 4])
        del self._buffer[: end + 4]
        self._resume()
        return head

    def _resume(self) -> None:
        if self._paused and not self._closed:
            self._paused = False
            self._transport.resume_reading()

    async def write(self, data: bytes) -> None:
        """Sends bytes, waiting while the peer is slow. Raises ConnectionError when the connection is gone."""
        await self._writable.wait()
        if self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._transport.write(data)

    def close(self) -> None:
        """Ends the connection after what was written is sent."""
        self._transport.close()


async def connect(host: str, port: int, tls: ssl.SSLContext | None = None, name: str | None = None) -> Duplex:
    """A new connection; `name` is whom the certificate has to be of, if not of `host`.

    Raises OSError (also ssl.SSLError, TimeoutError).
    """
    loop = asyncio.get_running_loop()
    connecting = loop.create_connection(Duplex, host, port, ssl=tls, server_hostname=name if tls else None)
    _, duplex = await asyncio.wait_for(connecting, _CONNECT_S)
    return duplex


def status_of(head: bytes) -> int:
    """The status code of an HTTP answer's head. Raises ConnectionError when it is no HTTP."""
    parts = head.split(b" ", 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1][:3].isdigit():
        raise ConnectionError("the answer is not HTTP")
    return int(parts[1][:3])


async def splice(one: Duplex, other: Duplex) -> None:
    """Passes bytes both ways until one side ends, then ends both."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pass(one, other))
            group.create_task(_pass(other, one))
    except* _Ended:
        pass
    finally:
        one.close()
        other.close()


class _Ended(Exception):
    """One side has ended."""


async def _pass(source: Duplex, target: Duplex) -> None:
    try:
        while data := await source.read():
            await target.write(data)
    except ConnectionError:
        pass
    raise _Ended
