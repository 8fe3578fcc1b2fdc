"""What every transport promises, run over each one in front of an API server with ConfigMaps.

The test bench is a factory of an async context manager that gives a Transport to an API server whose namespace
`default` holds no ConfigMap but what the test makes; another server joins as one more entry of BENCHES.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from tests.fakes.api import FakeApi, FakeServer, Pki

from k3s.api import errors
from k3s.api.kinds import builtin
from k3s.api.object import Object, key, revision
from k3s.apiserver.admits import AdmissionRequest, Commit
from k3s.apiserver.authz import Decision
from k3s.apiserver.identity import User
from k3s.apiserver.server import ApiServer, ApiServerConfig
from k3s.base.aio import Tasks
from k3s.base.clock import SystemClock
from k3s.base.entropy import SeededEntropy
from k3s.client.client import Client
from k3s.client.https import HttpsTransport
from k3s.client.informer import Informer
from k3s.client.local import LocalTransport
from k3s.client.tls import Credentials
from k3s.client.transport import Request, Transport
from k3s.store.memory import MemoryStore

CONFIG_MAP = builtin("v1", "ConfigMap")
Bench = Callable[[Path], AbstractAsyncContextManager[Transport]]


@asynccontextmanager
async def local(folder: Path) -> AsyncIterator[Transport]:
    yield LocalTransport(FakeApi())


@asynccontextmanager
async def https(folder: Path) -> AsyncIterator[Transport]:
    pki = Pki(folder)
    async with FakeServer(FakeApi(), pki) as server:
        transport = HttpsTransport(server.url, Credentials(ca_file=str(pki.ca)))
        yield transport
        await transport.close()


class Everyone:
    """Security that lets all pass: the transports are what is tested."""

    provisions = False

    def authenticate(self, headers: Mapping[str, str], peer: object, remark: object) -> User | None:
        return User("tester")

    def without_credentials(self, path: str) -> User:
        return User("tester")

    def authorize(self, attributes: object) -> Decision:
        return Decision(True)

    def attach(self, commit: Commit) -> None:
        pass

    async def admit(self, request: AdmissionRequest) -> Object:
        return request.obj or {}

    async def validate(self, request: AdmissionRequest) -> None:
        pass


@asynccontextmanager
async def real(folder: Path) -> AsyncIterator[tuple[ApiServer, Pki]]:
    """The API server itself, on memory and behind TLS."""
    store, pki, everyone = MemoryStore(), Pki(folder), Everyone()
    await store.open()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*pki.issue("server"))
    config = ApiServerConfig(addresses=(("127.0.0.1", 0),), tls=tls)
    server = ApiServer(store, config, everyone, everyone, everyone, SystemClock(), SeededEntropy(1))
    await server.start()
    try:
        yield server, pki
    finally:
        await server.stop()
        await store.close()


@asynccontextmanager
async def real_local(folder: Path) -> AsyncIterator[Transport]:
    async with real(folder) as (server, _):
        yield LocalTransport(server.handler(User("tester")))


@asynccontextmanager
async def real_https(folder: Path) -> AsyncIterator[Transport]:
    async with real(folder) as (server, pki):
        transport = HttpsTransport(f"https://localhost:{server.ports[0]}", Credentials(ca_file=str(pki.ca)))
        yield transport
        await transport.close()


BENCHES: dict[str, Bench] = {
    "local": local,
    "https": https,
    "apiserver local": real_local,
    "apiserver https": real_https,
}


# The server runs on uvloop, tests and simulation on asyncio's own.
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=[f"{bench}-{loop}" for bench in BENCHES for loop in LOOPS])
def check(request: pytest.FixtureRequest, tmp_path: Path):
    """Runs `body(client)` against the bench."""

    bench, loop = request.param.split("-")

    def run(body):
        async def main() -> None:
            async with asyncio.timeout(20), BENCHES[bench](tmp_path) as transport:
                await body(Client(transport))

        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(main())

    return run


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


def test_what_was_created_is_read_back(check):
    async def body(client):
        made = await client.create(CONFIG_MAP, config_map("a", x="1"))
        assert made["metadata"]["uid"]
        found = await client.get(CONFIG_MAP, "default", "a")
        assert found["data"] == {"x": "1"}
        assert revision(found) == revision(made) > 0

    check(body)


def test_failures_are_raised_as_their_own_class(check):
    async def body(client):
        with pytest.raises(errors.NotFound) as missing:
            await client.get(CONFIG_MAP, "default", "a")
        assert missing.value.message == 'configmaps "a" not found'
        assert missing.value.details == {"name": "a", "kind": "configmaps"}
        made = await client.create(CONFIG_MAP, config_map("a"))
        with pytest.raises(errors.AlreadyExists):
            await client.create(CONFIG_MAP, config_map("a"))
        await client.update(CONFIG_MAP, {**made, "data": {"x": "2"}})
        with pytest.raises(errors.Conflict):
            await client.update(CONFIG_MAP, {**made, "data": {"x": "3"}})

    check(body)


def test_patch_and_delete(check):
    async def body(client):
        await client.create(CONFIG_MAP, config_map("a", x="1"))
        patched = await client.patch(CONFIG_MAP, "default", "a", {"data": {"y": "2"}})
        assert patched["data"] == {"x": "1", "y": "2"}
        await client.delete(CONFIG_MAP, "default", "a")
        with pytest.raises(errors.NotFound):
            await client.delete(CONFIG_MAP, "default", "a")

    check(body)


def test_a_list_selects_and_names_its_revision(check):
    async def body(client):
        tagged = config_map("b")
        tagged["metadata"]["labels"] = {"app": "web"}
        await client.create(CONFIG_MAP, config_map("a"))
        last = await client.create(CONFIG_MAP, tagged)
        everything = await client.list(CONFIG_MAP, "default")
        assert {"a", "b"} <= {obj["metadata"]["name"] for obj in everything.items}
        assert everything.revision >= revision(last)
        chosen = await client.list(CONFIG_MAP, "default", labels="app in (web)")
        assert [obj["metadata"]["name"] for obj in chosen.items] == ["b"]

    check(body)


def test_a_watch_tells_what_changed_since_the_list_in_order(check):
    async def body(client):
        await client.create(CONFIG_MAP, config_map("before"))
        start = await client.list(CONFIG_MAP, "default")
        a = await client.create(CONFIG_MAP, config_map("a", x="é"))
        await client.update(CONFIG_MAP, {**a, "data": {"x": "2"}})
        stream = client.watch(CONFIG_MAP, "default", revision=start.revision)
        seen = []
        async for event in stream:
            if event.type == "BOOKMARK":
                continue
            seen.append(event)
            if len(seen) == 2:
                await client.delete(CONFIG_MAP, "default", "a")
            if len(seen) == 3:
                break
        await stream.aclose()
        assert [event.type for event in seen] == ["ADDED", "MODIFIED", "DELETED"]
        assert [event.object["data"]["x"] for event in seen] == ["é", "2", "2"]
        revisions = [revision(event.object) for event in seen]
        assert revisions == sorted(revisions)
        assert revisions[0] > start.revision

    check(body)


def test_a_path_that_is_no_object_can_be_asked_for(check):
    async def body(client):
        version = await client.raw(Request("GET", "/version"))
        assert version.status == 200
        assert version.body["gitVersion"].startswith("v1.")
        health = await client.raw(Request("GET", "/healthz", accept="*/*"))
        assert bytes(health.body) == b"ok"

    check(body)


def test_many_requests_at_once(check):
    async def body(client):
        await asyncio.gather(*(client.create(CONFIG_MAP, config_map(f"n-{n}")) for n in range(100)))
        assert len((await client.list(CONFIG_MAP, "default")).items) >= 100

    check(body)


def test_an_informer_has_seen_what_its_own_client_wrote(check):
    """The barrier of the controllers: after `wait_seen` of a write's revision, the write is in the picture."""

    async def body(client):
        informer = Informer(client, CONFIG_MAP, namespace="default", clock=SystemClock(), entropy=SeededEntropy(1))
        tasks, ready = Tasks("test"), asyncio.Event()
        tasks.spawn(informer.run(ready.set), "informer")
        await ready.wait()
        for number in range(20):
            made = await client.create(CONFIG_MAP, config_map(f"n-{number}", x="1"))
            await informer.wait_seen(revision(made))
            assert informer.get(f"default/n-{number}")["data"] == {"x": "1"}
            changed = await client.update(CONFIG_MAP, {**made, "data": {"x": "2"}})
            await informer.wait_seen(revision(changed))
            assert informer.get(f"default/n-{number}") == changed
        await client.delete(CONFIG_MAP, "default", "n-7")
        last = await client.create(CONFIG_MAP, config_map("last"))
        await informer.wait_seen(revision(last))
        assert informer.get("default/n-7") is None
        listed = await client.list(CONFIG_MAP, "default")
        assert {key(obj) for obj in listed.items} == set(informer.objects)
        await tasks.close()

    check(body)
