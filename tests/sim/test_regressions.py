"""Bugs that the simulation found, each shown by what found it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.sim import loop
from k3s.sim.cluster import Shape, SimCluster, credentials, simulated
from k3s.store.interface import Event


def _run(main: Coroutine[Any, Any, None]) -> None:
    credentials()
    loop.run(1, main)


def _ready(cluster: SimCluster, name: str) -> str:
    assert cluster.server is not None
    node: Object | None = cluster.server.plane.api.cache.get(builtin("v1", "Node"), "", name)
    assert node is not None
    return next(str(c["status"]) for c in node["status"]["conditions"] if c["type"] == "Ready")


def test_a_quiet_node_writes_its_status_every_five_minutes() -> None:
    """The API server writes 8388608Ki as 8Gi, which the kubelet took for a change at every heartbeat."""

    async def main() -> None:
        async with simulated(1, Shape(nodes=1)) as cluster:
            await asyncio.sleep(120)
            writes: Counter[str] = Counter()

            def written(event: Event) -> None:
                writes[event.key] += 1

            cluster.store.watchers.append(written)
            await asyncio.sleep(600)
            assert writes.pop("/registry/core/nodes/n1") == 2
            assert 60 <= writes.pop("/registry/coordination.k8s.io/leases/kube-node-lease/n1") <= 63
            assert not writes

    _run(main())


def test_a_node_that_was_cut_off_says_at_once_that_it_is_ready() -> None:
    """The kubelet compares with what it said itself; that it was declared lost meanwhile it cannot know."""

    async def main() -> None:
        async with simulated(1, Shape(nodes=1)) as cluster:
            await asyncio.sleep(30)
            node = cluster.nodes["n1"]
            node.connected = False
            await asyncio.sleep(90)
            assert _ready(cluster, "n1") == "Unknown"
            node.connected = True
            await asyncio.sleep(15)
            assert _ready(cluster, "n1") == "True"

    _run(main())
