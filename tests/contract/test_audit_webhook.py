"""What a webhook of the audit log gets of requests to a real server, in each mode."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.api import Pki
from tests.fakes.server import ALICE, Caller, serving

from k3s.api.object import Object
from k3s.apiserver.audit.settings import auditor, settings
from k3s.base.clock import SystemClock
from k3s.base.entropy import SeededEntropy
from k3s.client.transport import Request

MAPS = "/api/v1/namespaces/default/configmaps"
RULE: Object = {
    "level": "Metadata",
    "users": ["admin", "alice", "system:apiserver"],
    "resources": [{"resources": ["configmaps"]}],
}


class EventHook:
    """An HTTPS server that takes events; `open` is cleared: it does not answer; `status`: what it answers."""

    def __init__(self, folder: Path) -> None:
        self._pki = Pki(folder)
        self._folder = folder
        self.got: list[Object] = []
        self.open = asyncio.Event()
        self.open.set()
        self.status = 200

    @property
    def stages(self) -> list[str]:
        """The stages of all events, in order."""
        return [event["stage"] for batch in self.got for event in batch["items"]]

    async def __aenter__(self) -> EventHook:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._pki.issue("localhost"))
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        place = f"https://localhost:{self._server.sockets[0].getsockname()[1]}/events"
        cluster = {"server": place, "certificate-authority": str(self._pki.ca)}
        context_of = [{"name": "c", "context": {"cluster": "k"}}]
        config = {"current-context": "c", "clusters": [{"name": "k", "cluster": cluster}], "contexts": context_of}
        (self._folder / "hook.yaml").write_text(json.dumps(config))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().lower().split("\r\n")
                size = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length"))
                body = json.loads(await reader.readexactly(size))
                await self.open.wait()
                if self.status == 200:
                    self.got.append({"path": head.split()[1].decode(), **body})
                writer.write(f"HTTP/1.1 {self.status} X\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        writer.close()


@contextlib.asynccontextmanager
async def hooked(folder: Path, **flags: str) -> AsyncIterator[tuple[EventHook, Any, Caller]]:
    """A webhook, a server that tells it, a client."""
    policy = folder / "policy.yaml"
    policy.write_text(json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [RULE]}))
    async with EventHook(folder) as hook:
        given = {"audit-policy-file": str(policy), "audit-webhook-config-file": str(folder / "hook.yaml")}
        given |= {"audit-webhook-initial-backoff": "0s"}
        given |= {f"audit-webhook-{name.replace('_', '-')}": value for name, value in flags.items()}
        said = settings(given)
        assert said is not None
        async with serving(auditor=auditor(said, SystemClock(), SeededEntropy(2))) as server:
            caller = Caller(server.ports[0])
            yield hook, server, caller
            caller.close()


async def metric(caller: Caller, line: str) -> bool:
    await caller.send("GET", "/metrics")
    _, _, text = await caller.answer()
    return line.encode() in text


def test_batches(run: Any, tmp_path: Path) -> None:
    """Events in lists, at the latest when the server stops; nobody waits."""

    async def body() -> EventHook:
        async with hooked(tmp_path, batch_max_size="2") as (hook, _, caller):
            hook.open.clear()
            for _ in range(3):
                assert (await caller.call("GET", f"{MAPS}/a"))[0] == 404
            hook.open.set()
        return hook

    got = run(body()).got
    assert {(batch["path"], batch["kind"]) for batch in got} == {("/events", "EventList")}
    assert sum(len(batch["items"]) for batch in got) == 6 and max(len(batch["items"]) for batch in got) == 2


def test_blocking(run: Any, tmp_path: Path) -> None:
    """A request goes on when each of its events has arrived: of a client, of this process, of a stream's begin."""

    async def body() -> None:
        async with hooked(tmp_path, mode="blocking") as (hook, server, caller):
            hook.open.clear()
            call = asyncio.ensure_future(caller.call("GET", f"{MAPS}/a"))
            done, _ = await asyncio.wait([call], timeout=0.1)
            assert not done
            hook.open.set()
            assert (await call)[0] == 404 and hook.stages == ["RequestReceived", "ResponseComplete"]
            with pytest.raises(Exception, match="cannot get"):
                await server.handler(ALICE).handle(Request("GET", f"{MAPS}/a"))
            assert hook.stages[2:] == ["RequestReceived", "ResponseComplete"]
            await caller.send("GET", f"{MAPS}?watch=true&timeoutSeconds=1")
            await caller.answer_head()
            assert hook.stages[4:] == ["RequestReceived", "ResponseStarted"]
            assert {batch["items"][0]["auditID"] for batch in hook.got[:2]} != set()

    run(body())


@pytest.mark.parametrize("mode", ["blocking", "blocking-strict"])
def test_a_webhook_that_takes_nothing(run: Any, tmp_path: Path, mode: str) -> None:
    """It is tried five times an event; requests are refused in blocking-strict mode only, and it is counted."""

    async def body() -> None:
        async with hooked(tmp_path, mode=mode) as (hook, server, caller):
            hook.status = 500
            status, answer = await caller.call("POST", MAPS, {"kind": "ConfigMap", "metadata": {"name": "a"}})
            if mode == "blocking":
                assert status == 201
            else:
                assert (status, "cannot be recorded" in answer["message"]) == (500, True)
                with pytest.raises(Exception, match="cannot be recorded"):
                    await server.itself().handle(Request("GET", f"{MAPS}/a"))
            hook.status = 200
            assert (await caller.call("GET", f"{MAPS}/a"))[0] == (200 if mode == "blocking" else 404)
            assert await metric(caller, 'apiserver_audit_error_total{plugin="webhook"} ')
            rejected = "apiserver_audit_requests_rejected_total "
            assert await metric(caller, rejected + ("0\n" if mode == "blocking" else "2\n"))

    run(body())
