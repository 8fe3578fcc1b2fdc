"""The kubelet's endpoints over a real connection: who may, what they answer, what stays open to everybody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from k3s.api.errors import Forbidden, Unauthorized
from k3s.api.object import Object
from k3s.base.clock import SystemClock
from k3s.base.duplex import connect
from k3s.base.message import Request
from k3s.kubelet.documents import Documents
from k3s.kubelet.host import FakeHost
from k3s.kubelet.runtime.fake import FakeRuntime
from k3s.kubelet.runtime.interface import Container, Sandbox
from k3s.kubelet.server import KubeletServer


class NoPods:
    """A kubelet without pods."""

    def pods(self) -> list[Object]:
        """None."""
        return []

    def pod(self, namespace: str, name: str) -> Object | None:
        """None."""
        return None

    def container(self, namespace: str, name: str, container: str, *, previous: bool = False) -> Container | None:
        """None."""
        return None

    def sandbox(self, namespace: str, name: str) -> Sandbox | None:
        """None."""
        return None

    def log_path(self, namespace: str, name: str, container: str, *, previous: bool = False) -> str | None:
        """None."""
        return None

    def listen(self, namespace: str, name: str, tell: Callable[[], None]) -> Callable[[], None]:
        """Nothing ever happens."""
        return lambda: None


async def _authorize(request: Request, verb: str, subresources: tuple[str, ...]) -> None:
    """Takes `x-user: admin` for everything and `x-user: scraper` for metrics; others are nobody."""
    user = request.headers.get("x-user", "")
    if not user:
        raise Unauthorized("Unauthorized")
    if user != "admin" and (verb, subresources) != ("get", ("metrics",)):
        raise Forbidden(f"Forbidden (user={user}, verb={verb}, subresources={subresources})")


async def ask(port: int, target: str, headers: Mapping[str, str], method: str = "GET") -> tuple[int, bytes]:
    duplex = await connect("127.0.0.1", port)
    lines = [f"{method} {target} HTTP/1.1", "Host: n", "Connection: close", *(f"{k}: {v}" for k, v in headers.items())]
    await duplex.write("\r\n".join([*lines, "", ""]).encode())
    head = await duplex.read_head()
    body = b""
    while data := await duplex.read():
        body += data
    duplex.close()
    return int(head.split()[1]), body


def test_the_endpoints(run: Callable[..., None]) -> None:
    """Anonymous callers get 401 everywhere, also for streams; users get what they may; /healthz is open on loopback."""

    async def check() -> None:
        runtime, clock = FakeRuntime(SystemClock()), SystemClock()
        documents = Documents("n1", NoPods(), runtime, FakeHost(), clock, {"maxPods": 110})
        server = KubeletServer(NoPods(), runtime, _authorize, clock, documents.by_path())
        ready = asyncio.Event()
        free = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        health = free.sockets[0].getsockname()[1]
        free.close()
        await free.wait_closed()
        context: Any = None
        task = asyncio.ensure_future(server.run(ready.set, "127.0.0.1", context, 0, health))
        await asyncio.wait_for(ready.wait(), 5)
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        for target in ("/pods", "/metrics", "/stats/summary", "/configz", "/containerLogs/a/b/c", "/nothing"):
            assert (await ask(server.port, target, {}))[0] == 401, target
        for target in ("/exec/a/b/c?command=sh&output=1", "/attach/a/b/c?output=1", "/portForward/a/b?port=80"):
            assert (await ask(server.port, target, upgrade))[0] == 401, target
            assert (await ask(server.port, target, {"x-user": "scraper", **upgrade}))[0] == 403, target
            assert (await ask(server.port, target, {"x-user": "admin", **upgrade}))[0] == 404, target
        status, body = await ask(server.port, "/metrics", {"x-user": "scraper"})
        assert status == 200 and b'kubelet_running_containers{container_state="running"} 0' in body
        assert (await ask(server.port, "/pods", {"x-user": "scraper"}))[0] == 403
        summary = json.loads((await ask(server.port, "/stats/summary", {"x-user": "admin"}))[1])
        assert summary["node"]["nodeName"] == "n1" and summary["pods"] == []
        configuration = json.loads((await ask(server.port, "/configz", {"x-user": "admin"}))[1])
        assert configuration == {"kubeletconfig": {"maxPods": 110}}
        assert b"node_memory_working_set_bytes" in (await ask(server.port, "/metrics/resource", {"x-user": "admin"}))[1]
        assert await ask(health, "/healthz", {}) == (200, b"ok")
        assert (await ask(health, "/metrics", {}))[0] == 404
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(check())
