"""What only the transport over the network has: broken and kept connections, deadlines, renewed certificates."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import uvloop
from tests.fakes.api import FakeApi, FakeServer, Pki

from k3s.api import errors
from k3s.api.errors import OutcomeUnknown, ServiceUnavailable
from k3s.api.kinds import builtin
from k3s.client import https
from k3s.client.client import Client
from k3s.client.https import HttpsTransport, from_kubeconfig
from k3s.client.kubeconfig import Kubeconfig, load, render
from k3s.client.tls import Credentials
from k3s.client.transport import Request

CONFIG_MAP = builtin("v1", "ConfigMap")
VERSION = Request("GET", "/version")
CREATE = Request("POST", "/api/v1/namespaces/default/configmaps", {}, {"metadata": {"name": "a"}})


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def check(tmp_path: Path, request: pytest.FixtureRequest):
    """Runs `body(server, transport)`; arguments go to the transport."""

    def run(body, **arguments):
        async def main() -> None:
            pki = Pki(tmp_path)
            async with asyncio.timeout(20), FakeServer(FakeApi(), pki) as server:
                credentials = arguments.pop("credentials", Credentials(ca_file=str(pki.ca)))
                transport = HttpsTransport(server.url, credentials, **arguments)
                await body(server, transport)
                await transport.close()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())

    return run


def test_one_connection_serves_requests_one_after_the_other(check):
    async def body(server, transport):
        for _ in range(5):
            await transport.send(VERSION)
        assert server.connections == 1

    check(body)


def test_connections_at_once_are_limited_and_few_are_kept(check):
    async def body(server, transport):
        await asyncio.gather(*(transport.send(VERSION) for _ in range(50)))
        assert server.connections <= 8
        assert len(transport._idle) <= https.IDLE_CONNECTIONS

    check(body, connections=8)


def test_a_get_survives_a_kept_connection_that_the_server_ended(check):
    async def body(server, transport):
        await transport.send(VERSION)
        server.behave = ["close"]
        assert (await transport.send(VERSION)).status == 200
        assert server.connections == 2

    check(body)


def test_a_get_on_a_fresh_connection_that_breaks_is_unavailable(check):
    async def body(server, transport):
        server.behave = ["close"]
        with pytest.raises(ServiceUnavailable, match="/version"):
            await transport.send(VERSION)

    check(body)


@pytest.mark.parametrize("how", ["close", "cut"])
def test_a_write_without_a_whole_answer_has_an_unknown_outcome(check, how):
    async def body(server, transport):
        await transport.send(VERSION)
        server.behave = [how]
        with pytest.raises(OutcomeUnknown, match="POST"):
            await transport.send(CREATE)
        assert len(server.api.requests) == (2 if how == "cut" else 1)

    check(body)


def test_an_answer_that_breaks_off_is_not_tried_again(check):
    async def body(server, transport):
        await transport.send(VERSION)
        server.behave = ["cut"]
        with pytest.raises(ServiceUnavailable):
            await transport.send(VERSION)
        assert (await transport.send(VERSION)).status == 200

    check(body)


def test_deadlines(check):
    """A read that takes too long is a timeout, a write an unknown outcome; the connection is not used again."""

    async def body(server, transport):
        server.behave = ["hang"]
        with pytest.raises(errors.Timeout):
            await transport.send(VERSION)
        server.behave = ["hang"]
        with pytest.raises(OutcomeUnknown, match=r"0\.2 s"):
            await transport.send(CREATE)
        assert (await transport.send(VERSION)).status == 200
        assert server.connections == 3

    check(body, request_s=0.2)


def test_a_request_that_is_cancelled_takes_its_connection_with_it(check):
    async def body(server, transport):
        server.behave = ["hang"]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(transport.send(VERSION), 0.1)
        assert (await transport.send(VERSION)).body["gitVersion"]
        assert server.connections == 2

    check(body)


def test_a_connection_that_the_server_will_end_is_not_kept(check):
    async def body(server, transport):
        server.behave = ["last"]
        await transport.send(VERSION)
        await transport.send(VERSION)
        assert server.connections == 2

    check(body)


def test_a_server_that_is_not_there_is_unavailable():
    async def main() -> None:
        transport = HttpsTransport("https://127.0.0.1:1")
        with pytest.raises(ServiceUnavailable, match="Cannot reach https://127"):
            await transport.send(CREATE)

    asyncio.run(main())


def test_a_server_of_another_authority_is_refused(check, tmp_path):
    (tmp_path / "other").mkdir()
    other = Pki(tmp_path / "other")

    async def body(server, transport):
        with pytest.raises(ServiceUnavailable, match="certificate"):
            await transport.send(VERSION)

    check(body, credentials=Credentials(ca_pem=other.ca.read_text()))


def test_too_many_requests_says_when_to_come_back(check):
    async def body(server, transport):
        server.api.refuse = [errors.TooManyRequests("slow down", retry_after_s=7)]
        with pytest.raises(errors.TooManyRequests) as caught:
            await transport.send(VERSION)
        assert caught.value.retry_after_s == 7

    check(body)


def test_the_newest_token_is_sent(check):
    tokens = iter(["one", "two"])

    async def body(server, transport):
        await transport.send(VERSION)
        await transport.send(VERSION)
        assert [headers["Authorization"] for headers in server.headers] == ["Bearer one", "Bearer two"]

    check(body, token=lambda: next(tokens))


def test_a_renewed_certificate_is_used_without_a_restart(tmp_path):
    """The files change: the next request has a connection of its own with the new certificate."""

    async def main() -> None:
        pki = Pki(tmp_path)
        crt, key = pki.issue("first")
        async with FakeServer(FakeApi(), pki) as server:
            credentials = Credentials(ca_file=str(pki.ca), cert_file=str(crt), key_file=str(key))
            transport = HttpsTransport(server.url, credentials)
            await transport.send(VERSION)
            for old, new in zip((crt, key), pki.issue("second"), strict=True):
                os.replace(new, old)
            await transport.send(VERSION)
            await transport.send(VERSION)
            assert server.peers == ["first", "second"]
            await transport.close()

    asyncio.run(main())


def test_a_half_renewed_pair_leaves_the_old_one_in_use(tmp_path):
    async def main() -> None:
        pki = Pki(tmp_path)
        crt, key = pki.issue("first")
        async with FakeServer(FakeApi(), pki) as server:
            credentials = Credentials(ca_file=str(pki.ca), cert_file=str(crt), key_file=str(key))
            transport = HttpsTransport(server.url, credentials)
            await transport.send(VERSION)
            os.replace(pki.issue("second")[0], crt)
            assert (await transport.send(VERSION)).status == 200
            assert server.peers == ["first"]
            await transport.close()

    asyncio.run(main())


def test_a_certificate_given_as_text_or_by_a_kubeconfig_is_used(tmp_path):
    async def main() -> None:
        pki = Pki(tmp_path)
        crt, key = pki.issue("inline")
        text = Credentials(ca_pem=pki.ca.read_text(), cert_pem=crt.read_text(), key_pem=key.read_text())
        async with FakeServer(FakeApi(), pki) as server:
            transport = HttpsTransport(server.url, text)
            await transport.send(VERSION)
            assert server.peers == ["inline"]
            await transport.close()
            given = Kubeconfig(server.url, ca_pem=text.ca_pem, cert_file=str(crt), key_file=str(key))
            transport = from_kubeconfig(load(render(given)))
            await transport.send(VERSION)
            assert server.peers == ["inline", "inline"]
            await transport.close()

    asyncio.run(main())


def test_a_watch_that_breaks_is_unavailable_and_one_that_ends_just_ends(check):
    async def body(server, transport):
        client = Client(transport)

        async def follow() -> int:
            return len([event async for event in client.watch(CONFIG_MAP, "default", revision=100)])

        async with asyncio.TaskGroup() as group:
            ended = group.create_task(follow())
            await server.api.asked(1)
            server.api.apply("a")
            server.api.end_watches()
        assert ended.result() == 1

        async def broken() -> None:
            with pytest.raises(ServiceUnavailable, match="Cannot go on watching"):
                await follow()

        async with asyncio.TaskGroup() as group:
            group.create_task(broken())
            await server.api.asked(2)
            server.api.apply("b")
            server.drop()

    check(body)


def test_a_watch_that_starts_too_long_ago_is_expired(check):
    async def body(server, transport):
        server.api.compact()
        with pytest.raises(errors.Expired):
            async for _ in Client(transport).watch(CONFIG_MAP, revision=3):
                pass

    check(body)


def test_a_watch_slower_than_its_server_loses_nothing(check):
    """More events than the queue holds, each of several packets."""

    async def body(server, transport):
        for number in range(3000):
            server.api.apply(f"n-{number}", {"text": "x" * 2000})
        seen = 0
        async for event in Client(transport).watch(CONFIG_MAP, revision=100):
            assert event.object["metadata"]["name"] == f"n-{seen}"
            seen += 1
            if seen % 500 == 0:
                await asyncio.sleep(0.02)
            if seen == 3000:
                break
        assert seen == 3000

    check(body)


def test_a_line_break_cannot_smuggle_a_header(check):
    async def body(server, transport):
        with pytest.raises(ValueError, match="line break"):
            await transport.send(Request("GET", "/version", accept="text/plain\r\nX-Remote-User: admin"))
        path = "/api/v1/namespaces/default/configmaps/a\r\nX: y"
        with pytest.raises(errors.NotFound):
            await transport.send(Request("GET", path, {"q": "a\r\nX: y"}))
        assert "X" not in server.headers[-1]

    check(body)


@pytest.mark.parametrize("url", ["localhost:6443", "ftp://x", "https://"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="https://host:port"):
        HttpsTransport(url)
