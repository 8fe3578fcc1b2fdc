"""Names that are not the cluster's: asked of the host's name servers, kept for a short while.

Servers are asked in order, the last one that answered first; one that is slow gets company from the next. Each try
has a socket (so a port that nobody can guess) and an id of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path

from k3s.base.aio import Tasks
from k3s.base.entropy import Entropy
from k3s.dns import resolv, wire
from k3s.dns.wire import Message, Query

log = logging.getLogger(__name__)

MOST_S = 30  # how long anything is kept, as the cluster DNS of k3s does
_PATIENCE_S = 0.8  # before the next server is asked as well
_DEADLINE_S = 4.0  # for all tries together: below the 5 s of most resolvers
_MOST_KEPT = 2048
_MOST_KEPT_BYTES = 4096  # of a single reply
_MOST_WAITING = 1000

_Key = tuple[bytes, int, int, bool]


class UpstreamError(Exception):
    """No name server gave a usable reply."""


@dataclass(slots=True)
class _Kept:
    message: Message
    since: float
    until: float


class Upstream:
    """The way to the host's name servers. `own` are our addresses, `port` is theirs (tests use another)."""

    def __init__(self, resolv_conf: Path, own: Container[str], entropy: Entropy, port: int = 53) -> None:
        self._path = resolv_conf
        self._own = own
        self._entropy = entropy
        self._port = port
        self._stamp: tuple[int, int] | None = None
        self._servers: list[str] = []
        self._kept: dict[_Key, _Kept] = {}
        self._waiting: dict[_Key, asyncio.Task[Message | UpstreamError]] = {}
        self._tasks = Tasks("dns-upstream")

    async def close(self) -> None:
        """Gives up what is being asked."""
        await self._tasks.close()

    def kept(self, query: Query, limit: int) -> bytes | None:
        """The reply when it is known; no waiting."""
        key = _key(query)
        found = self._kept.get(key)
        if found is None:
            return None
        now = asyncio.get_running_loop().time()
        if found.until <= now:
            del self._kept[key]
            return None
        return wire.adapted(found.message, query, int(now - found.since), MOST_S, limit)

    async def ask(self, query: Query, limit: int) -> bytes:
        """The reply of a name server, as this client takes it. Raises UpstreamError."""
        return wire.adapted(await self.resolve(query), query, 0, MOST_S, limit)

    async def resolve(self, query: Query) -> Message:
        """The reply of a name server; clients that ask the same at one time wait together. Raises UpstreamError."""
        key = _key(query)
        task = self._waiting.get(key)
        if task is None:
            if len(self._waiting) >= _MOST_WAITING:
                raise UpstreamError(f"{_MOST_WAITING} questions are waiting for name servers already")
            task = self._waiting[key] = self._tasks.spawn(self._resolve(query), "query")
            task.add_done_callback(lambda _: self._waiting.pop(key, None))
        # Shielded: a client that goes away does not take the others' answer with it.
        result = await asyncio.shield(task)
        if isinstance(result, UpstreamError):
            raise result
        return result

    async def _resolve(self, query: Query) -> Message | UpstreamError:
        """The error is a value here: a failed task would count as a fault of ours."""
        try:
            message = await self._race(query)
        except UpstreamError as error:
            return error
        if message.rcode in (wire.NOERROR, wire.NXDOMAIN):
            self._keep(_key(query), message)
        return message

    def _keep(self, key: _Key, message: Message) -> None:
        lifetime = min(wire.minimum_ttl(message), MOST_S)
        if lifetime <= 0 or len(message.data) > _MOST_KEPT_BYTES:
            return
        if len(self._kept) >= _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        now = asyncio.get_running_loop().time()
        self._kept.pop(key, None)
        self._kept[key] = _Kept(message, now, now + lifetime)

    def servers(self) -> list[str]:
        """The host's name servers; the file is read again when it has changed."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                self._servers = resolv.servers(self._path.read_text(), self._own)
                self._stamp = stamp
        except OSError as error:
            raise UpstreamError(
                f"Cannot read {self._path}: {error.strerror}; name a file with --resolv-conf"
            ) from error
        if not self._servers:
            raise UpstreamError(f"{self._path} names no name server but the cluster's own; add a nameserver line")
        return self._servers

    async def _race(self, query: Query) -> Message:
        """Asks one server after the other, without giving up on those already asked."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _DEADLINE_S
        waiting: dict[asyncio.Task[Message | str], str] = {}
        left = list(self.servers())
        problems = []
        try:
            while left or waiting:
                if left:
                    server = left.pop(0)
                    waiting[self._tasks.spawn(self._quiet(query, server), server)] = server
                remaining = deadline - loop.time()
                done, _ = await asyncio.wait(
                    waiting,
                    timeout=min(_PATIENCE_S, remaining) if left else remaining,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    server = waiting.pop(task)
                    result = task.result()
                    if isinstance(result, Message):
                        self._prefer(server)
                        return result
                    problems.append(f"{server}: {result}")
                if loop.time() >= deadline:
                    problems.append(f"no reply within {_DEADLINE_S:g} s from {', '.join(waiting.values())}")
                    break
        finally:
            for task in waiting:
                task.cancel()
        raise UpstreamError("; ".join(problems))

    def _prefer(self, server: str) -> None:
        if self._servers and self._servers[0] != server and server in self._servers:
            self._servers = [server, *(each for each in self._servers if each != server)]

    async def _quiet(self, query: Query, server: str) -> Message | str:
        """The reply of one server, or what was wrong with it."""
        try:
            message = await self._udp(query, server)
            if message.flags & wire.TC:
                message = await self._tcp(query, server)
        except (OSError, EOFError, wire.WireError, asyncio.TimeoutError) as error:
            return str(error) or type(error).__name__
        if message.rcode in (wire.SERVFAIL, wire.REFUSED, wire.NOTIMP):
            return f"answers with code {message.rcode}"
        return message

    async def _udp(self, query: Query, server: str) -> Message:
        loop = asyncio.get_running_loop()
        id = self._entropy.below(65536)
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: _Datagram(loop, lambda data: _accepted(data, id, query)), remote_addr=(server, self._port)
        )
        try:
            transport.sendto(wire.forwarded(query, id))
            return await asyncio.wait_for(protocol.reply, _DEADLINE_S)
        finally:
            transport.close()

    async def _tcp(self, query: Query, server: str) -> Message:
        id = self._entropy.below(65536)
        reader, writer = await asyncio.open_connection(server, self._port)
        try:
            data = wire.forwarded(query, id)
            writer.write(len(data).to_bytes(2, "big") + data)
            size = int.from_bytes(await reader.readexactly(2), "big")
            message = _accepted(await reader.readexactly(size), id, query)
        finally:
            writer.close()
        if message is None:
            raise wire.WireError("the reply over TCP is not one to our question")
        return message


def _key(query: Query) -> _Key:
    return query.name, query.type, query.flags & wire.CD, query.wants_dnssec


def _accepted(data: bytes, id: int, query: Query) -> Message | None:
    """The message when it answers our question; anything else may be a forgery and is ignored."""
    try:
        message = wire.parse_reply(data)
    except wire.WireError:
        return None
    same = (
        message.name == query.name
        and message.data[message.question_end - 4 : message.question_end] == query.question[-4:]
    )
    return message if same and wire.header_id(data) == id else None


class _Datagram(asyncio.DatagramProtocol):
    """Waits for the one datagram that is accepted."""

    def __init__(self, loop: asyncio.AbstractEventLoop, accept: Callable[[bytes], Message | None]) -> None:
        self.reply: asyncio.Future[Message] = loop.create_future()
        self._accept = accept

    def datagram_received(self, data: bytes, addr: object) -> None:
        message = self._accept(data)
        if message is not None and not self.reply.done():
            self.reply.set_result(message)

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.reply.done():
            self.reply.cancel()
