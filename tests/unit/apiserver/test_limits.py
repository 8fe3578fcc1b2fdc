"""How long requests may take and how many may be under way, over real sockets; what a stopping server says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.fakes.server import Caller, serving

from k3s.api.errors import BadRequest
from k3s.api.object import decode
from k3s.apiserver.limits import Limits, Pushback
from k3s.apiserver.request import parse
from k3s.base import connection
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


def test_who_is_sent_away_often_is_sent_away_for_longer() -> None:
    """Three a second double the time, once in it, up to half a minute; quiet takes a second off each time."""
    pushback = Pushback()
    told = [[pushback.sent_away(second + 0.1) for _ in range(10)][-1] for second in range(200)]
    assert told[0] == 1 and told[1] == 2 and sorted(set(told)) == [1, 2, 4, 8, 16, 32]
    assert told.index(4) >= 3 and told.index(32) >= 31
    later = [pushback.sent_away(1000.0 + 100 * at) for at in range(40)]
    assert later[0] == 31 and later[-1] == 1


def test_a_body_that_does_not_come_is_late(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """As upstream, where the request runs into its deadline; who may not write is told that instead."""
    monkeypatch.setattr(connection, "_LIMITS", (0.1, 0.1, 0.1))

    async def body() -> None:
        async with serving() as server:
            head = (
                b"POST /api/v1/namespaces HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\nContent-Length: 9\r\n\r\n{"
            )
            status, headers, text = await asked(server.ports[0], head % b"adm")
            answer = decode(text)
            assert (status, answer["reason"]) == (504, "Timeout") and "Connection: close" in headers
            assert answer["message"] == "Timeout: request did not complete within the allotted timeout"
            assert (await asked(server.ports[0], head % b"ali"))[0] == 403

    run(body())


def test_a_server_that_lingers_answers_until_it_sends_away_who_comes(run) -> None:  # type: ignore[no-untyped-def]
    """During the delay only /readyz tells; then, while a slow request is finished, others are told to come back."""

    async def body() -> None:
        slow = Slow()
        async with serving(routes={"/slow": slow}, config={"linger_s": 0.5, "turns_away": True}) as server:
            port = server.ports[0]
            answering = asyncio.ensure_future(asked(port, SLOW))
            await slow.begun.acquire()
            watcher = Caller(port)
            await watcher.send("GET", f"/api/v1/pods?watch=1&resourceVersion={server.cache.revision}")
            assert (await watcher.answer_head())[0] == 200
            stopping = asyncio.ensure_future(server.stop())
            await asyncio.sleep(0)
            get = b"GET %b HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer adm\r\n\r\n"
            assert (await asked(port, get % b"/readyz"))[0] == 500
            assert (await asked(port, get % b"/api/v1/namespaces"))[0] == 200
            assert await watcher.event() == {}
            status, head, text = await asked(port, get % b"/api/v1/namespaces")
            assert (status, text) == (429, b"The apiserver is shutting down, please try again later.\n")
            assert "Retry-After: 5" in head and "Connection: close" in head
            assert (await asked(port, get % b"/livez"))[0] == 200
            slow.gate.set()
            assert (await answering)[0] == 200
            await stopping
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", port)

    run(body())


def test_browsers_are_told_what_they_may(run) -> None:  # type: ignore[no-untyped-def]
    """Pages of the origins that are named may use the API, preflight included; any answer tells of TLS."""

    async def body() -> None:
        config = {"origins": (r"//example\.com$",), "hsts": ("max-age=31536000", "preload")}
        async with serving(config=config) as server:
            caller = Caller(server.ports[0], "nobody")
            for origin, method, status, allowed in (
                ("https://example.com", "OPTIONS", 204, True),
                ("https://example.com", "GET", 401, True),
                ("https://example.com.evil.org", "GET", 401, False),
                ("https://example.com.evil.org", "OPTIONS", 401, False),
            ):
                await caller.send(method, "/api/v1/namespaces", Origin=origin)
                found, headers, _ = await caller.answer()
                assert found == status
                assert headers["strict-transport-security"] == "max-age=31536000; preload"
                assert headers.get("access-control-allow-origin") == (origin if allowed else None)
                assert ("access-control-allow-credentials" in headers) is allowed

    run(body())


def test_a_client_is_now_and_then_told_to_open_another_connection(run) -> None:  # type: ignore[no-untyped-def]
    """By chance; the answer itself is whole, and only then the connection ends."""

    async def body() -> None:
        async with serving(config={"goaway_chance": 0.2}) as server:
            ended = 0
            caller = Caller(server.ports[0])
            for _ in range(100):
                await caller.send("GET", "/version")
                status, headers, text = await caller.answer()
                assert status == 200 and text.endswith(b"}\n")
                if headers.get("connection") == "close":
                    ended += 1
                    assert caller.reader is not None and await caller.reader.read() == b""
                    caller = Caller(server.ports[0])
            assert 5 < ended < 50

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
