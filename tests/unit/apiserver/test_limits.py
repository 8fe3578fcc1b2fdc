"""How long requests may take and how many may be under way, over real sockets; what a stopping server says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.fakes.server import Caller, serving

from k3s.api.errors import BadRequest
from k3s.apiserver.limits import Limits
from k3s.apiserver.request import parse
from k3s.base.message import TEXT, Answer, Request, Response

SLOW = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"


class Slow:
    """A route that answers when it is let."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun = asyncio.Semaphore(0)

    async def __call__(self, request: Request, target: Any) -> Answer:
        self.begun.release()
        await self.gate.wait()
        return Response(200, b"slow", TEXT)


async def asked(port: int, sent: bytes) -> tuple[int, str, bytes]:
    """Status, head and body of the answer to one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(int(line[16:]) for line in head.split("\r\n") if line.startswith("Content-Length: "))
    body = await reader.readexactly(length)
    writer.close()
    return int(head.split()[1]), head, body


@pytest.mark.parametrize(("config", "query"), [({"request_s": 0.05}, ""), ({}, "?timeout=50ms")])
def test_what_takes_too_long_is_answered_so(run, config: dict[str, Any], query: str) -> None:  # type: ignore[no-untyped-def]
    """By the server's limit, and by the client's own, in upstream's words."""

    async def body() -> None:
        slow = Slow()
        async with serving(routes={"/slow": slow}, config=config) as server:
            status, _, text = await asked(server.ports[0], SLOW.replace(b"/slow", f"/slow{query}".encode()))
            assert status == 504
            assert b'"Timeout: request did not complete within the allotted timeout"' in text
            assert b'"reason":"Timeout"' in text

    run(body())


def test_a_timeout_that_is_none_is_refused(run) -> None:  # type: ignore[no-untyped-def]
    async def body() -> None:
        async with serving() as server:
            status, _, text = await asked(server.ports[0], b"GET /version?timeout=invalid HTTP/1.1\r\nHost: a\r\n\r\n")
            assert status == 400
            wanted = rb"invalid timeout specified in the request URL - time: invalid duration \"invalid\""
            assert wanted in text

    run(body())


def test_more_than_the_limit_are_told_to_come_back(run) -> None:  # type: ignore[no-untyped-def]
    """The place of one that was answered is free again."""

    async def body() -> None:
        slow = Slow()
        async with serving(routes={"/slow": slow}, config={"reading_at_once": 1, "writing_at_once": 1}) as server:
            port = server.ports[0]
            async with asyncio.TaskGroup() as group:
                first = [group.create_task(asked(port, SLOW)) for _ in range(2)]
                for _ in first:
                    await slow.begun.acquire()
                status, head, text = await asked(port, SLOW)
                assert status == 429 and "Retry-After: 1\r\n" in head
                assert text == b"Too many requests, please try again later.\n"
                slow.gate.set()
            assert [task.result()[0] for task in first] == [200, 200]
            assert (await asked(port, SLOW))[0] == 200

    run(body())


@pytest.mark.parametrize(
    ("method", "target", "seconds"),
    [
        ("GET", "/api/v1/pods", 60),
        ("GET", "/api/v1/pods?timeout=5s", 5),
        ("GET", "/api/v1/pods?timeout=2m", 60),
        ("GET", "/api/v1/pods?timeout=0", 60),
        ("GET", "/api/v1/pods?watch=1&timeout=x", None),
        ("GET", "/api/v1/namespaces/a/pods/b/log?timeout=5s", None),
        ("POST", "/api/v1/namespaces/a/pods/b/exec", None),
        ("GET", "/api/v1/nodes/a/proxy/b", None),
    ],
)
def test_which_limit_holds(method: str, target: str, seconds: float | None) -> None:
    assert Limits().seconds(parse(method, target)) == seconds


def test_bad_durations() -> None:
    with pytest.raises(BadRequest, match="missing unit"):
        Limits().seconds(parse("GET", "/api/v1/pods?timeout=5"))


def test_a_watch_ends_after_its_time(run) -> None:  # type: ignore[no-untyped-def]
    """The server's, when the client names none, with the last chunk; the connection can be used again."""

    async def body() -> None:
        async with serving(config={"watch_s": 0.05}) as server:
            caller = Caller(server.ports[0])
            await caller.send("GET", "/api/v1/secrets?watch=1")
            assert caller.reader is not None
            assert (await caller.reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")
            await caller.send("GET", "/readyz")
            assert (await caller.reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")

    run(body())


def test_a_stopping_server_says_so_ends_watches_and_finishes_what_it_answers(run) -> None:  # type: ignore[no-untyped-def]
    """Nobody is cut off: the watch has its last chunk, the request its answer and word that the connection ends."""

    async def body() -> None:
        slow = Slow()
        async with serving(routes={"/slow": slow}) as server:
            port = server.ports[0]
            ready = b"GET /readyz/shutdown HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer adm\r\n\r\n"
            status, _, text = await asked(port, ready)
            assert (status, text) == (200, b"ok")
            watcher = Caller(port)
            await watcher.send("GET", "/api/v1/namespaces?watch=1")
            assert watcher.reader is not None
            await watcher.reader.readuntil(b"\r\n\r\n")
            idle = await Caller(port).open()
            answering = asyncio.ensure_future(asked(port, SLOW))
            await slow.begun.acquire()
            asyncio.get_running_loop().call_later(0.05, slow.gate.set)
            checks = server._checks
            assert checks["shutdown"]() is None
            await server.stop()
            assert checks["shutdown"]() is not None
            assert (await watcher.reader.read()).endswith(b"\r\n0\r\n\r\n")
            status, head, text = await answering
            assert (status, text) == (200, b"slow") and "Connection: close" in head
            assert idle.reader is not None and await idle.reader.read() == b""
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", port)

    run(body())
