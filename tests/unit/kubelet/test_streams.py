"""exec and port-forward between a client's protocol and a runtime's stream server, over loopback connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Request

from k3s.base.clock import SystemClock
from k3s.base.duplex import Duplex, connect, splice, status_of
from k3s.base.http import HttpServer
from k3s.base.message import Answer, Upgrade
from k3s.base.message import Request as HttpRequest
from k3s.kubelet import streams
from k3s.kubelet.spdy import Data, Opened, Session

Handler = Callable[[Duplex], Awaitable[None]]


class StreamServer:
    """A runtime's stream server: answers the upgrade, then echoes stdin on stdout and ends with a status.

    `status` 403 refuses the upgrade. `ended` counts connections that are over.
    """

    def __init__(self, status: int = 101) -> None:
        self.status = status
        self.ended = asyncio.Event()
        self.opened: list[Mapping[str, str]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        await reader.readuntil(b"\r\n\r\n")
        if self.status != 101:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        else:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\n\r\n")
            await self._echo(reader, writer)
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        self.ended.set()

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session, kinds = Session(client=False), dict[str, int]()
        while data := await reader.read(65536):
            for event in session.receive(data):
                if isinstance(event, Opened):
                    self.opened.append(event.headers)
                    kinds[event.headers["streamtype"]] = event.stream
                    writer.write(session.reply(event.stream))
                elif isinstance(event, Data) and event.stream == kinds.get("stdin", kinds.get("data")):
                    out = kinds.get("stdout", event.stream)
                    writer.write(session.data(out, event.data))
                    if event.end:
                        writer.write(session.data(out, b"", end=True))
                        writer.write(session.data(kinds["error"], b'{"status":"Success"}', end=True))


@asynccontextmanager
async def _between(server: StreamServer, serve: Callable[[Duplex, str, HttpRequest], Awaitable[None]]) -> Any:
    """A kubelet's port that hands upgrades to `serve`, with a runtime behind it; yields the port."""
    runtime = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{runtime.sockets[0].getsockname()[1]}/exec/token"

    def app(request: HttpRequest) -> Answer:
        return Upgrade(lambda transport, rest: serve(Duplex.take_over(transport, rest), url, request))

    front = HttpServer(lambda request: _soon(app(request)), SystemClock())
    port = await front.listen("127.0.0.1", 0, None)
    try:
        yield port
    finally:
        await front.stop(0)
        runtime.close()


async def _soon(answer: Answer) -> Answer:
    return answer


class Client:
    """A WebSocket client."""

    def __init__(self, duplex: Duplex) -> None:
        self.duplex = duplex
        self.connection = WSConnection(ConnectionType.CLIENT)
        self.events: list[Any] = []

    async def open(self, *protocols: str) -> str | None:
        """The subprotocol that was chosen."""
        await self.duplex.write(
            self.connection.send(Request(host="kubelet", target="/exec", subprotocols=list(protocols)))
        )
        accepted = await self.event(AcceptConnection)
        return accepted.subprotocol

    async def event(self, kind: type) -> Any:
        """The next event of a kind."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if isinstance(event, kind):
                    return event
            data = await self.duplex.read()
            assert data, f"the connection ended before {kind.__name__}"
            self.connection.receive_data(data)
            self.events += list(self.connection.events())

    async def send(self, data: bytes) -> None:
        """A binary message."""
        await self.duplex.write(self.connection.send(BytesMessage(data=data)))


async def _command(client: Duplex, url: str, request: HttpRequest) -> None:
    channels = streams.command_channels(stdin=True, stdout=True, stderr=False, tty=False)
    await streams.serve_command(client, url, request.headers, request.target, channels)


async def _messages(client: Client) -> dict[int, bytes]:
    """What comes on each channel until the server closes."""
    found: dict[int, bytes] = {}
    while True:
        event = await client.event((BytesMessage, CloseConnection))  # type: ignore[arg-type]
        if isinstance(event, CloseConnection):
            assert event.code == 1000
            return found
        found[event.data[0]] = found.get(event.data[0], b"") + bytes(event.data[1:])


def test_exec_over_websocket(run: Callable[..., None]) -> None:
    """Channels become SPDY streams and back; closing stdin (v5) reaches the command; the status comes last."""

    async def check() -> None:
        server = StreamServer()
        async with _between(server, _command) as port:
            client = Client(await connect("127.0.0.1", port))
            assert await client.open("v5.channel.k8s.io", "v4.channel.k8s.io") == "v5.channel.k8s.io"
            await client.send(b"\x00hello " + b"x" * 100_000)
            await client.send(b"\xff\x00")
            found = await _messages(client)
            assert found == {1: b"hello " + b"x" * 100_000, 3: b'{"status":"Success"}'}
            client.duplex.close()
            await asyncio.wait_for(server.ended.wait(), 5)
        assert [h["streamtype"] for h in server.opened] == ["error", "stdin", "stdout"]

    run(check())


def test_a_client_that_goes_takes_the_runtime_connection_with_it(run: Callable[..., None]) -> None:
    """No connection to the runtime is left behind when the client breaks off."""

    async def check() -> None:
        server = StreamServer()
        async with _between(server, _command) as port:
            client = Client(await connect("127.0.0.1", port))
            await client.open("v4.channel.k8s.io")
            client.duplex.close()
            await asyncio.wait_for(server.ended.wait(), 5)

    run(check())


def test_a_refused_upgrade_closes_both_connections(run: Callable[..., None]) -> None:
    """What was CVE-2018-1002105: after anything but 101, neither end is of further use (WebSocket and SPDY)."""

    async def spdy(client: Duplex, url: str, request: HttpRequest) -> None:
        await streams.pass_spdy(client, url, request.headers)

    async def check(serve: Any, protocol: str, headers: str) -> None:
        server = StreamServer(status=403)
        async with _between(server, serve) as port:
            client = await connect("127.0.0.1", port)
            head = f"GET /exec HTTP/1.1\r\nHost: k\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n{headers}\r\n"
            await client.write(head.encode())
            assert status_of(await client.read_head()) == 403
            # A second request, smuggled after the refusal, goes nowhere.
            with suppress(ConnectionError):
                await client.write(b"GET /pods HTTP/1.1\r\nHost: k\r\n\r\n")
            rest = b""
            while data := await asyncio.wait_for(client.read(), 5):
                rest += data
            assert rest in (b"no", b"")
            await asyncio.wait_for(server.ended.wait(), 5)
            client.close()

    key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    run(check(_command, "websocket", key))
    run(check(spdy, "SPDY/3.1", ""))


def test_spdy_is_passed_on(run: Callable[..., None]) -> None:
    """A client that speaks SPDY talks to the runtime itself."""

    async def spdy(client: Duplex, url: str, request: HttpRequest) -> None:
        await streams.pass_spdy(client, url, request.headers)

    async def check() -> None:
        server = StreamServer()
        async with _between(server, spdy) as port:
            client = await connect("127.0.0.1", port)
            await client.write(b"POST /exec HTTP/1.1\r\nHost: k\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
            assert status_of(await client.read_head()) == 101
            session = Session(client=True)
            frames = [session.open({"streamtype": kind}) for kind in ("error", "stdin", "stdout")]
            for _, frame in frames:
                await client.write(frame)
            await client.write(session.data(frames[1][0], b"ping", end=True))
            out = b""
            while b"ping" not in out:
                out += b"".join(e.data for e in session.receive(await client.read()) if isinstance(e, Data))
            client.close()
            await asyncio.wait_for(server.ended.wait(), 5)

    run(check())


def test_splice_ends_both_sides(run: Callable[..., None]) -> None:
    """When one end closes, the other one is closed too."""

    async def check() -> None:
        over = asyncio.Event()

        async def quiet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            over.set()
            writer.close()

        async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"bye")
            writer.close()

        servers = [await asyncio.start_server(each, "127.0.0.1", 0) for each in (quiet, closes)]
        ends = [await connect("127.0.0.1", s.sockets[0].getsockname()[1]) for s in servers]
        await splice(*ends)
        await asyncio.wait_for(over.wait(), 5)
        for server in servers:
            server.close()

    run(check())
