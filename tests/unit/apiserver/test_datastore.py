"""A datastore that cannot be written: clients get 503 with the reason, and readiness tells it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.fakes.server import build

from k3s.api.errors import ServiceUnavailable
from k3s.api.kinds import builtin
from k3s.client.client import Client
from k3s.client.local import LocalTransport
from k3s.store.interface import Unavailable
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
