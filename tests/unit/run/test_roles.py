"""The server labels the node of its own agent, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tests.memory_api import MemoryApi

from k3s.api import object as objects
from k3s.api.kinds import builtin
from k3s.base.aio import Tasks
from k3s.base.clock import LoopClock
from k3s.client.client import Client
from k3s.client.informer import Informer
from k3s.run.roles import CONTROL_PLANE, ControlPlaneRole

NODE = builtin("v1", "Node")


def node(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


def test_own_node_is_labelled_each_time_it_registers(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """The label comes when the node does, comes back when somebody removes it, and follows a new registration."""

    async def story() -> None:
        clock = LoopClock(1767225600.0)
        api = MemoryApi(clock.now)
        client = Client(api)
        nodes = Informer(client, NODE, clock=clock)
        tasks = Tasks("test")
        synced, ready = asyncio.Event(), asyncio.Event()
        tasks.spawn(nodes.run(synced.set), "nodes")
        await synced.wait()
        tasks.spawn(ControlPlaneRole(client, nodes, "own").run(ready.set), "role")
        await ready.wait()

        def labelled() -> bool:
            found = api.get("nodes", "", "own")
            return found is not None and objects.labels(found).get(CONTROL_PLANE) == "true"

        await client.create(NODE, node("other"))
        await client.create(NODE, node("own"))
        await api.until(labelled)
        await client.patch(NODE, "", "own", {"metadata": {"labels": {CONTROL_PLANE: None}}})
        await api.until(labelled)
        await client.delete(NODE, "", "own")
        await client.create(NODE, node("own"))
        await api.until(labelled)
        other = api.get("nodes", "", "other")
        assert other is not None and CONTROL_PLANE not in objects.labels(other)
        await tasks.close()

    run(story())
