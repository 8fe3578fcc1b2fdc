"""The cluster DNS at work: listens on the cluster DNS address, keeps the zone true, forwards the rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from k3s.api.object import Object, labels, namespace
from k3s.base.aio import Tasks
from k3s.client.informer import Informer
from k3s.dns import wire
from k3s.dns.answer import Follow, Reply, Responder
from k3s.dns.upstream import Upstream, UpstreamError
from k3s.dns.wire import Query
from k3s.dns.zone import Zone, entry

log = logging.getLogger(__name__)

_SERVICE_LABEL = "kubernetes.io/service-name"
_INDEX = "service"

# TCP: how long a client may be silent, and how many may be connected.
_IDLE_S = 10.0
_MOST_CONNECTIONS = 100
_MOST_PENDING = 1000
# Not more often than this is the same trouble with upstream servers told.
_COMPLAIN_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Config:
    """Where to listen, and the cluster's domain."""

    addresses: tuple[str, ...]
    domain: str = "cluster.local"
    port: int = 53


class Names:
    """Keeps a zone true from informers that somebody else runs."""

    def __init__(self, zone: Zone, services: Informer, slices: Informer, nodes: Informer | None = None) -> None:
        self._zone = zone
        self._services = services
        self._slices = slices
        slices.add_index(_INDEX, _service_of)
        services.subscribe(lambda key, _old, _new: self._update(key))
        slices.subscribe(self._slice_changed)
        for key in services.objects:
            self._update(key)
        if nodes is not None:
            nodes.subscribe(lambda key, _old, new: zone.set_node(key, new))
            for key, node in nodes.objects.items():
                zone.set_node(key, node)

    def _slice_changed(self, _key: str, old: Object | None, new: Object | None) -> None:
        for key in {key for each in (old, new) if each is not None for key in _service_of(each)}:
            self._update(key)

    def _update(self, key: str) -> None:
        service = self._services.get(key)
        self._zone.set_service(key, entry(service, self._slices.index(_INDEX, key)) if service else None)


def _service_of(obj: Object) -> list[str]:
    owner = labels(obj).get(_SERVICE_LABEL)
    return [f"{namespace(obj)}/{owner}"] if owner else []


class Dns:
    """The name server. The listening addresses have to exist before it runs."""

    def __init__(
        self,
        config: Config,
        upstream: Upstream,
        services: Informer,
        slices: Informer,
        nodes: Informer | None = None,
    ) -> None:
        self._config = config
        self._upstream = upstream
        self._zone = Zone(config.domain, config.addresses[0])
        self._responder = Responder(self._zone)
        self._names = Names(self._zone, services, slices, nodes)
        self._informers = (services, slices)
        self._tasks = Tasks("dns")
        self._connections = 0
        self._complained_at = -_COMPLAIN_EVERY_S
        self.port = config.port

    async def run(self, ready: Callable[[], None]) -> None:
        """Runs until cancelled; ready once it listens and knows the cluster's services. Raises OSError."""
        for informer in self._informers:
            await informer.wait_seen(1)
        loop = asyncio.get_running_loop()
        transports: list[asyncio.BaseTransport] = []
        servers: list[asyncio.Server] = []
        try:
            for address in self._config.addresses:
                server = await self._listen(address, self.port)
                servers.append(server)
                self.port = server.sockets[0].getsockname()[1]
                datagrams = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self), local_addr=(address, self.port)
                )
                transports.append(datagrams[0])
            ready()
            await loop.create_future()
        finally:
            for transport in transports:
                transport.close()
            for server in servers:
                server.close()
            await self._tasks.close()
            await self._upstream.close()

    async def _listen(self, address: str, port: int) -> asyncio.Server:
        try:
            return await asyncio.start_server(self._connected, address, port)
        except OSError as error:
            raise OSError(
                error.errno,
                f"Cannot listen for DNS on {address} port {port}: {error.strerror}; "
                "stop the other name server there, or start with --disable=coredns",
            ) from error

    # --- one query ---

    def respond(self, data: bytes, send: Callable[[bytes], None], stream: bool = False) -> None:
        """Answers one message: at once when the answer is known, later when upstream has to be asked."""
        try:
            query = wire.parse_query(data)
        except wire.WireError:
            # Never answer a reply: two servers would go on for ever.
            if len(data) >= wire.HEADER.size and not data[2] & 0x80:
                send(wire.error(data, wire.FORMERR))
            return
        limit = wire.LONGEST if stream else query.limit
        found = self._responder.answer(query, limit)
        if isinstance(found, Reply):
            send(found.data)
            return
        if not isinstance(found, Follow):
            kept = self._upstream.kept(query, limit)
            if kept is not None:
                send(kept)
                return
        if len(self._tasks) >= _MOST_PENDING:
            send(wire.reply(query, wire.SERVFAIL))
            return
        self._tasks.spawn(self._ask(query, found if isinstance(found, Follow) else None, send, limit), "query")

    async def _ask(self, query: Query, follow: Follow | None, send: Callable[[bytes], None], limit: int) -> None:
        try:
            if follow is None:
                send(await self._upstream.ask(query, limit))
                return
            question = follow.target + query.question[-4:]
            inner = Query(query.id, query.flags, follow.target, query.type, query.klass, question, wire.PAYLOAD)
            message = await self._upstream.resolve(inner)
            records = (*follow.records, *wire.addresses_of(message))
            send(wire.reply(query, message.rcode, records, limit=limit))
        except (UpstreamError, wire.WireError) as error:
            self._complain(error)
            send(wire.reply(query, wire.SERVFAIL, follow.records if follow else (), limit=limit))

    def _complain(self, error: Exception) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._complained_at >= _COMPLAIN_EVERY_S:
            self._complained_at = now
            log.warning("Cannot resolve names outside the cluster", extra={"reason": str(error)})

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= _MOST_CONNECTIONS:
            writer.close()
            return
        self._connections += 1
        self._tasks.spawn(self._stream(reader, writer), "connection")

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One TCP client: any number of queries, each with its length before it."""

        def send(data: bytes) -> None:
            writer.write(len(data).to_bytes(2, "big") + data)

        try:
            while True:
                async with asyncio.timeout(_IDLE_S):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    data = await reader.readexactly(size)
                    self.respond(data, send, stream=True)
                    await writer.drain()
        except (EOFError, OSError, asyncio.TimeoutError):
            pass  # the client is done, or gone
        finally:
            self._connections -= 1
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, dns: Dns) -> None:
        self._dns = dns

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        transport = self._transport

        def send(reply: bytes) -> None:
            if not transport.is_closing():
                transport.sendto(reply, addr)

        self._dns.respond(data, send)
