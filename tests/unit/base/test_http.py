"""The HTTP front over real sockets: limits, framing, malformed requests, slow and deaf clients, order, compression."""

from __future__ import annotations

import asyncio
import gzip
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop

from k3s.base import connection
from k3s.base.clock import SystemClock
from k3s.base.compress import Compression, accepts_gzip
from k3s.base.duplex import Duplex
from k3s.base.entropy import SystemEntropy
from k3s.base.http import HttpServer
from k3s.base.incoming import MAX_BODY
from k3s.base.message import TEXT, Answer, Chunks, Joined, Request, Response, Sink, Stream, Upgrade

LARGE = b'{"name":"some text that repeats"}' * 10_000
PARTS = [b"%d" % number * (number % 50) for number in range(200_000)]
Talk = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Endless:
    """A source that writes two pieces, one of them framed for many, and ends."""

    def start(self, sink: Sink) -> None:
        sink.write(b"one\n")
        sink.write_chunk(b"4\r\ntwo\n\r\n")
        sink.end()

    def resumed(self) -> None: ...

    def stop(self) -> None: ...


class App:
    """Answers by path and remembers what came."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()

    def __call__(self, request: Request) -> Answer | Awaitable[Answer]:
        self.requests.append(request)
        self.asked.set()
        if request.too_large:
            return Response(413, b"too large", TEXT)
        if request.late:
            return Response(504, b"late", TEXT)
        match request.target:
            case "/large":
                return Response(200, LARGE)
            case "/list":
                return Response(200, Joined(b",", PARTS))
            case "/gate":
                return self._waiting()
            case "/upgrade":
                return Upgrade(self._taken)
            case "/stream":
                return Stream(Endless())
            case "/pieces":
                return Chunks(200, self._pieces())
            case "/injected":
                return Response(200, b"", TEXT, (("Location", "/a\r\nX-Evil: 1"),))
        return Response(200, b"%d %b" % (len(request.body), request.target.encode()), TEXT)

    async def _waiting(self) -> Answer:
        await self.gate.wait()
        return Response(200, b"gate", TEXT)

    async def _taken(self, transport: Any, rest: bytes) -> None:
        client = Duplex.take_over(transport, rest)
        await client.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        while data := await client.read():
            await client.write(data)
        client.close()

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield b"one\n"
        yield b"two\n"


class Connections(set[Any]):
    """The open connections; tells when the last one goes."""

    def __init__(self) -> None:
        super().__init__()
        self.none_left = asyncio.Event()

    def discard(self, connection: Any) -> None:
        super().discard(connection)
        if not self:
            self.none_left.set()


@pytest.fixture(autouse=True)
def _short_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_LINGER_S", 0.02)


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[App, HttpServer, Callable[[], Awaitable[Talk]]]]:
    """A front on loopback; yields what it answers with and a way to connect."""
    app = App()
    server = HttpServer(app, SystemClock(), SystemEntropy(), Compression())
    server.connections = Connections()
    port = await server.listen("127.0.0.1", 0, None)
    try:
        async with asyncio.timeout(20):
            yield app, server, lambda: asyncio.open_connection("127.0.0.1", port)
    finally:
        await server.stop(0)


def run(body: Callable[..., Awaitable[None]]) -> None:
    async def main() -> None:
        async with serving() as parts:
            await body(*parts)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """One answer with a length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))


async def everything(connect: Callable[[], Awaitable[Talk]], sent: bytes) -> bytes:
    """All that comes back until the server closes."""
    reader, writer = await connect()
    writer.write(sent)
    found = await reader.read()
    writer.close()
    return found


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: more\r\nContent-Length: 3\r\n\r\n", 417),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (1200 * 1024) + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * (1200 * 1024 // 6) + b"\r\n", 431),
        (b"GET /" + b"x" * (1200 * 1024), 431),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(sent: bytes, status: int) -> None:
    """Also what two servers could read in two ways (request smuggling)."""

    async def body(app: App, server: Any, connect: Any) -> None:
        found = await everything(connect, sent + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        assert found.startswith(b"HTTP/1.1 %d " % status), found[:200]
        assert b"Connection: close" in found and found.count(b"HTTP/1.1 ") == 1
        assert not app.requests

    run(body)


@pytest.mark.parametrize("size", [0, 1, MAX_BODY])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_up_to_the_limit_are_read(size: int, chunked: bool) -> None:
    async def body(app: App, server: Any, connect: Any) -> None:
        reader, writer = await connect()
        data = b"x" * size
        if chunked:
            piece = b"%x\r\n%b\r\n" % (size, data) if size else b""
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + piece + b"0\r\n\r\n")
        else:
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + data)
        assert await answer(reader) == (200, ANY, b"%d /" % size)

    run(body)


class _Any:
    def __eq__(self, other: object) -> bool:
        return True


ANY = _Any()


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: %d\r\n" % (MAX_BODY + 1),
        b"Content-Length: 100000000000\r\nExpect: 100-continue\r\n",
    ],
)
def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(head: bytes) -> None:
    async def body(app: App, server: Any, connect: Any) -> None:
        found = await everything(connect, b"POST / HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n")
        assert found.startswith(b"HTTP/1.1 413 ") and found.endswith(b"too large")
        assert [request.body for request in app.requests] == [b""]

    run(body)


def test_a_chunked_body_is_refused_once_it_is_too_large() -> None:
    async def body(app: App, server: Any, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        for _ in range(MAX_BODY // 65536 + 1):
            writer.write(piece)
        assert (await answer(reader))[0] == 413
        assert await reader.read() == b""

    run(body)


def test_leave_to_send_is_given_when_asked_for() -> None:
    async def body(app: App, server: Any, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert await answer(reader) == (200, ANY, b"3 /")

    run(body)


def test_what_follows_a_declined_upgrade_is_no_request() -> None:
    """The client may already speak another protocol, and a proxy before us pass on what someone else sends."""

    async def body(app: App, server: Any, connect: Any) -> None:
        asks = b"GET /exec HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
        found = await everything(connect, asks + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        assert found.startswith(b"HTTP/1.1 200 ") and b"Connection: close\r\n" in found
        assert [request.target for request in app.requests] == ["/exec"]

    run(body)


def test_requests_sent_ahead_are_answered_in_order() -> None:
    """Also those after one that takes time, and a broken one is refused only after them."""

    async def body(app: App, server: Any, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"GET /gate HTTP/1.1\r\nHost: a\r\n\r\n")
        for number in range(100):
            writer.write(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
        writer.write(b"broken\r\n\r\n")
        await app.asked.wait()
        app.gate.set()
        assert (await answer(reader))[2] == b"gate"
        for number in range(100):
            assert (await answer(reader))[2] == b"0 /%d" % number
        assert (await answer(reader))[0] == 400
        assert await reader.read() == b""

    run(body)


@pytest.mark.parametrize("path", ["stream", "pieces"])
def test_the_first_version_of_http_gets_no_chunks(path: str) -> None:
    async def body(app: App, server: Any, connect: Any) -> None:
        found = await everything(connect, f"GET /{path} HTTP/1.0\r\n\r\n".encode())
        head, _, rest = found.partition(b"\r\n\r\n")
        assert b"chunked" not in head and b"Connection: close" in head and rest == b"one\ntwo\n"
        found = await everything(connect, f"GET /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        assert found.endswith(b"\r\n\r\n4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n")

    run(body)


def test_every_answer_has_an_audit_id_of_its_own_or_the_clients() -> None:
    async def body(app: App, server: Any, connect: Any) -> None:
        reader, writer = await connect()
        ids = set()
        for _ in range(3):
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            found = (await answer(reader))[1]["audit-id"]
            assert uuid.UUID(found).version == 4
            ids.add(found)
        assert len(ids) == 3
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nAudit-ID: mine\r\n\r\n")
        assert (await answer(reader))[1]["audit-id"] == "mine"

    run(body)


def test_repeated_headers_are_joined_and_those_of_identity_stay_apart() -> None:
    """A comma in a group's name makes no second group."""

    async def body(app: App, server: Any, connect: Any) -> None:
        reader, writer = await connect()
        more = b"Accept: a\r\nAccept: b\r\nImpersonate-Group: a,b\r\nImpersonate-Group: c\r\n"
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n" + more + b"\r\n")
        await answer(reader)
        headers = app.requests[0].headers
        assert headers["accept"] == "a,b" and headers["impersonate-group"] == "a,b\nc"

    run(body)


def test_no_header_value_starts_another_header() -> None:
    async def body(app: App, server: Any, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"GET /injected HTTP/1.1\r\nHost: a\r\n\r\n")
        headers = (await answer(reader))[1]
        assert headers["location"] == "/a  X-Evil: 1" and "x-evil" not in headers

    run(body)


def test_large_answers_are_compressed_for_those_who_ask() -> None:
    async def body(app: App, server: Any, connect: Any) -> None:
        reader, writer = await connect()

        async def asked(path: str, accept: str) -> tuple[dict[str, str], bytes]:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {accept}\r\n\r\n".encode())
            status, headers, data = await answer(reader)
            assert status == 200
            return headers, data

        headers, data = await asked("/large", "deflate, gzip;q=0.5")
        assert headers["content-encoding"] == "gzip" and headers["vary"] == "Accept-Encoding"
        assert gzip.decompress(data) == LARGE and len(data) < len(LARGE) / 10
        for accept in ("identity", "gzip;q=0", "x-gzip"):
            headers, data = await asked("/large", accept)
            assert "content-encoding" not in headers and data == LARGE
        assert "content-encoding" not in (await asked("/small", "gzip"))[0]

    run(body)


def test_who_asks_for_the_same_at_once_shares_the_work() -> None:
    """Compressed once for all, also when the first of them goes away; anew for what is different, and after a while."""

    async def body() -> None:
        compression = Compression(above=10)
        first = asyncio.ensure_future(compression.apply(Response(200, LARGE)))
        await asyncio.sleep(0)
        first.cancel()
        others = [compression.apply(Response(200, bytes(bytearray(LARGE)))) for _ in range(5)]
        answers = await asyncio.gather(*others, compression.apply(Response(200, LARGE[:-1])))
        assert [gzip.decompress(answer.body) for answer in answers] == [*[LARGE] * 5, LARGE[:-1]]
        assert compression.done == 2

    asyncio.run(body())


def test_accept_encoding() -> None:
    assert accepts_gzip("gzip") and accepts_gzip("br, GZIP") is False and accepts_gzip("br,gzip ; q=1")
    assert not accepts_gzip("") and not accepts_gzip("gzip; q=0.0")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 0),
        (b"GET / HT", 0),
        (b"POST /late HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na", 504),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na", 200),
    ],
)
def test_who_says_nothing_more_is_let_go(sent: bytes, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a request, within its head, within its body, and between two requests."""
    monkeypatch.setattr(connection, "HEADER_S", 0.1)
    monkeypatch.setattr(connection, "_LIMITS", (0.1, 0.1, 0.1))

    async def body(app: App, server: Any, connect: Any) -> None:
        found = await everything(connect, sent)
        assert found[9:12] == (b"%d" % status if status else b"")
        assert not server.connections

    run(body)


def test_an_upgraded_connection_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to who took it over, and the front keeps nothing of it."""
    monkeypatch.setattr(connection, "_LIMITS", (0.01, 0.01, 0.01))
    late: list[Any] = []
    monkeypatch.setattr(connection.Connection, "_late", lambda self: late.append(self))

    async def body(app: App, server: Any, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nfirst")
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(5) == b"first"
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, passed.set)
        await passed.wait()
        writer.write(b"last")
        assert await reader.readexactly(4) == b"last"
        assert not server.connections and not late
        writer.close()

    run(body)


def test_a_wait_for_an_answer_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_LIMITS", (0.01, 0.01, 0.01))

    async def body(app: App, server: Any, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"GET /gate HTTP/1.1\r\nHost: a\r\n\r\n")
        asyncio.get_running_loop().call_later(0.1, app.gate.set)
        assert (await answer(reader))[2] == b"gate"

    run(body)


def test_who_does_not_read_gets_no_more_answers_and_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand large answers are asked for: those that nobody reads are not made."""
    monkeypatch.setattr(connection, "UNREAD_S", 0.2)

    async def body(app: App, server: Any, connect: Any) -> None:
        _, writer = await connect()
        writer.transport.pause_reading()
        writer.write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
        await server.connections.none_left.wait()
        assert len(app.requests) < 100
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()

    run(body)


@pytest.mark.parametrize("about", [1, 7, 100, 1 << 20])
def test_a_joined_text_is_the_same_in_pieces(about: int) -> None:
    joined = Joined(b", ", [b"one", b"", b"three" * 9, b"4"])
    pieces = list(joined.pieces(about))
    assert b"".join(pieces) == bytes(joined) == b"one, , " + b"three" * 9 + b", 4"
    assert len(joined) == len(bytes(joined))
    assert len(pieces) == (4 if about < 28 else 1)


def test_a_long_answer_waits_for_its_reader_and_is_whole() -> None:
    """Only what the reader takes soon is put together; the connection goes on afterwards, and others meanwhile."""

    async def body(app: App, server: Any, connect: Any) -> None:
        reader, writer = await connect()
        writer.transport.pause_reading()
        for path in ("/list", "/small"):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        await app.asked.wait()
        other, asking = await connect()
        asking.write(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await answer(other))[2] == b"0 /small"
        asking.close()
        (slow,) = [connection for connection in server.connections if connection.paused]
        assert slow._transport.get_write_buffer_size() < 1 << 20 < len(b",".join(PARTS)) / 10
        writer.transport.resume_reading()
        assert (await answer(reader))[2] == b",".join(PARTS)
        assert (await answer(reader))[2] == b"0 /small"
        writer.close()

    run(body)


def test_who_does_not_read_a_long_answer_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "UNREAD_S", 0.2)

    async def body(app: App, server: Any, connect: Any) -> None:
        _, writer = await connect()
        writer.transport.pause_reading()
        writer.write(b"GET /list HTTP/1.1\r\nHost: a\r\n\r\n")
        await server.connections.none_left.wait()
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()

    run(body)
