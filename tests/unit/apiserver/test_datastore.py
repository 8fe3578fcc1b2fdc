"""A datastore that cannot be written: clients get 503 with the reason, and readiness tells it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from tests.fakes.server import Caller, build

from k3s.api.errors import ServiceUnavailable, Timeout
from k3s.api.kinds import builtin
from k3s.client.client import Client
from k3s.client.local import LocalTransport
from k3s.client.transport import Request, Response, Transport
from k3s.controllers.actions import Create
from k3s.controllers.execute import Executor, Written
from k3s.store.interface import Unavailable, Uncertain
from k3s.store.memory import MemoryStore

CONFIG_MAP = builtin("v1", "ConfigMap")


class FullDisk(MemoryStore):
    """Takes writes until `full` is set."""

    full = False

    async def put(self, key: str, value: bytes, expected: int) -> int:
        """See Store.put."""
        if self.full:
            raise Unavailable("no space left on the disk; make room")
        return await super().put(key, value, expected)


def test_unavailable_is_503_and_recovers(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """A local client gets ServiceUnavailable with the datastore's reason; afterwards writes go on."""

    async def scenario() -> None:
        store = FullDisk()
        await store.open()
        server = build(store)
        await server.load()
        client = Client(LocalTransport(server.itself()))
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "default", "name": "a"}}
        store.full = True
        with pytest.raises(ServiceUnavailable, match="no space left on the disk; make room"):
            await client.create(CONFIG_MAP, made)
        store.full = False
        assert (await client.create(CONFIG_MAP, made))["metadata"]["name"] == "a"

    run(scenario())


class Broken(MemoryStore):
    """Writes, and then cannot tell whether it did."""

    broken = False

    async def put(self, key: str, value: bytes, expected: int) -> int:
        """See Store.put."""
        revision = await super().put(key, value, expected)
        if self.broken:
            raise Uncertain("the commit failed")
        return revision

    def problem(self) -> str:
        """See Store.problem."""
        return "the commit failed" if self.broken else ""


def test_an_unknown_outcome_is_504_and_readiness_names_the_reason(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    """504 is the answer after which a request may have been done; what became of it is what is read then."""

    async def scenario() -> None:
        store = Broken()
        await store.open()
        server = build(store)
        await server.start()
        caller = Caller(server.ports[0])
        store.broken = True
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
        status, answer = await caller.call("POST", "/api/v1/namespaces/default/configmaps", made)
        assert (status, answer["reason"]) == (504, "Timeout")
        assert answer["message"] == "it is not known whether this was done: the commit failed"
        assert (await caller.call("GET", "/api/v1/namespaces/default/configmaps/a"))[0] == 200
        await caller.send("GET", "/readyz")
        status, _, text = await caller.answer()
        assert status == 500
        assert b"[-]etcd failed: the commit failed\n" in text
        caller.close()
        await server.stop()

    run(scenario())


def test_a_timeout_of_a_write_is_an_unknown_outcome_to_controllers(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    """The controller asks where the server is before it decides again."""

    class Late:
        async def send(self, request: Request) -> Response:
            raise Timeout("it is not known whether this was done")

    async def scenario() -> None:
        written = Written()
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "default", "name": "a"}}
        executor = Executor(Client(cast(Transport, Late())), lambda event: None)
        with pytest.raises(Timeout):
            await executor.do(Create(CONFIG_MAP, made), written)
        assert list(written.unknown) == [CONFIG_MAP]

    run(scenario())
