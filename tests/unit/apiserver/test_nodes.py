"""From the API server to a kubelet: what goes on, what stays here, and that no connection outlives its request."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from tests.fakes.reader import FakeReader

from k3s.api.errors import ApiError, BadRequest, InternalError, NotFound
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver.nodes import Nodes
from k3s.base.duplex import Duplex, connect
from k3s.base.message import Chunks, Request, Response, Upgrade

_POD = builtin("v1", "Pod")
_UPGRADE = {"connection": "Upgrade", "upgrade": "websocket", "authorization": "Bearer secret", "x-remote-user": "root"}


def _reader(*more: Object) -> FakeReader:
    """A node and a pod on it."""
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "d"},
        "spec": {"nodeName": "n1", "containers": [{"name": "main"}]},
    }
    return FakeReader([node, pod, *more])


class Kubelet:
    """Answers every request with the same bytes, and notes what came and when the connection ended."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.head = b""
        self.ended = asyncio.Event()
        self.dialed: list[tuple[str, int]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.head = await reader.readuntil(b"\r\n\r\n")
        writer.write(self.answer)
        await reader.read()
        writer.close()
        self.ended.set()

    async def dialer(self) -> Callable[[str, int, ssl.SSLContext | None], Any]:
        """What connects to it, wherever a request was to go."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)

        async def dial(host: str, port: int, tls: ssl.SSLContext | None) -> Duplex:
            self.dialed.append((host, port))
            return await connect("127.0.0.1", server.sockets[0].getsockname()[1])

        return dial


async def _exec(kubelet: Kubelet) -> Any:
    nodes = Nodes(_reader(), ssl.create_default_context(), await kubelet.dialer())
    query = [("command", "sh"), ("stdout", "true"), ("container", "main")]
    request = Request("GET", "/exec", _UPGRADE)
    return await nodes.connect(request, _POD, "d", "p", "exec", "", query)


def test_an_upgrade_is_handed_on_without_credentials(run: Callable[..., None]) -> None:
    """The kubelet gets the command and the upgrade; the client's token and claimed identity stay here."""

    async def check() -> None:
        kubelet = Kubelet(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        answer = await _exec(kubelet)
        assert isinstance(answer, Upgrade) and answer.dropped is not None
        assert kubelet.head.startswith(b"GET /exec/d/p/main?command=sh&output=1 HTTP/1.1\r\n")
        assert b"Upgrade: websocket" in kubelet.head
        assert b"secret" not in kubelet.head and b"x-remote" not in kubelet.head.lower()
        assert kubelet.dialed == [("192.0.2.1", 10250)]
        # The client went before it was answered: the kubelet's connection goes, too.
        answer.dropped()
        await asyncio.wait_for(kubelet.ended.wait(), 5)

    run(check())


@pytest.mark.parametrize(
    ("status", "error"), [(400, BadRequest), (404, NotFound), (403, InternalError), (500, InternalError)]
)
def test_a_failed_upgrade_closes_the_kubelets_connection(
    run: Callable[..., None], status: int, error: type[ApiError]
) -> None:
    """CVE-2018-1002105: an authenticated connection to the kubelet must not outlive a refusal."""

    async def check() -> None:
        kubelet = Kubelet(b"HTTP/1.1 %d No\r\nContent-Length: 4\r\n\r\nwhy?" % status)
        with pytest.raises(error, match="why"):
            await _exec(kubelet)
        await asyncio.wait_for(kubelet.ended.wait(), 5)

    run(check())


def test_a_kubelet_that_breaks_off_is_told(run: Callable[..., None]) -> None:
    """No HTTP, or nothing at all: the client gets an error and the connection is closed."""

    async def check() -> None:
        kubelet = Kubelet(b"rubbish\r\n\r\n")
        with pytest.raises(ApiError, match="not HTTP"):
            await _exec(kubelet)
        await asyncio.wait_for(kubelet.ended.wait(), 5)

    run(check())


def test_logs_come_in_pieces(run: Callable[..., None]) -> None:
    """The body of a plain answer is passed on; only known parameters go to the kubelet."""

    async def check() -> None:
        kubelet = Kubelet(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab\n\r\n0\r\n\r\n")
        nodes = Nodes(_reader(), ssl.create_default_context(), await kubelet.dialer())
        query = [("follow", "true"), ("evil", "1")]
        answer = await nodes.connect(Request("GET", "/log", {}), _POD, "d", "p", "log", "", query)
        assert isinstance(answer, Chunks)
        assert b"".join([piece async for piece in answer.pieces]) == b"ab\n"
        assert kubelet.head.startswith(b"GET /containerLogs/d/p/main?follow=true HTTP/1.1\r\n")
        await asyncio.wait_for(kubelet.ended.wait(), 5)

    run(check())


def test_forbidden_addresses_are_not_reached_for(run: Callable[..., None]) -> None:
    """A pod that claims loopback or the metadata service's address is no way to them."""

    async def check(address: str) -> None:
        evil = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "evil", "namespace": "d"},
            "spec": {"nodeName": "n1", "containers": [{"name": "main"}]},
            "status": {"podIP": address},
        }
        nodes = Nodes(_reader(evil), ssl.create_default_context())
        with pytest.raises(BadRequest, match="address not allowed"):
            await nodes.connect(Request("GET", "/", {}), _POD, "d", "evil:80", "proxy", "/", [])

    for address in ("127.0.0.1", "169.254.169.254", "::1"):
        run(check(address))


@pytest.mark.parametrize(("query", "pairs"), [("", []), ("?a=b%2Fc", [("a", "b/c")])])
def test_a_proxied_page_is_sent_to_its_path_with_a_slash(run, query: str, pairs: list[tuple[str, str]]) -> None:  # type: ignore[no-untyped-def]
    """So that its links lead to below it; one with a slash, or that upgrades, goes on; what is missing is told."""

    async def body() -> None:
        path, node = "/api/v1/nodes/n1/proxy", builtin("v1", "Node")
        kubelet = Kubelet(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        nodes = Nodes(_reader(), ssl.create_default_context(), await kubelet.dialer())
        answer = await nodes.connect(Request("GET", path + query, {}), node, "", "n1", "proxy", "", pairs)
        assert isinstance(answer, Response) and (answer.status, kubelet.dialed) == (301, [])
        assert answer.headers == (("Location", f"{path}/{query}"),)
        with pytest.raises(NotFound):
            await nodes.connect(Request("GET", path, {}), node, "", "none", "proxy", "", [])
        for request in (Request("GET", f"{path}/{query}", {}), Request("GET", path + query, _UPGRADE)):
            await nodes.connect(request, node, "", "n1", "proxy", "", pairs)
        assert len(kubelet.dialed) == 2

    run(body())
