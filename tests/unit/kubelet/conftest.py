"""Whole kubelets under virtual time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.memory_api import MemoryApi
from tests.unit.kubelet.kubelet_world import EPOCH, World

from k3s.base.clock import LoopClock
from k3s.client.client import Client
from k3s.kubelet.host import FakeHost
from k3s.kubelet.runtime.fake import FakeRuntime
from k3s.sim.loop import run as run_simulated


@pytest.fixture
def simulate():
    """Runs `body(world)` under virtual time with a kubelet that serves."""

    def run(body: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            clock = LoopClock(EPOCH)
            api = MemoryApi(clock.now)
            world = World(api, Client(api), FakeRuntime(clock, start_s=0.05), FakeHost())
            world.runtime.add_image("docker.io/library/busybox:1")
            await world.start()
            await body(world)
            await world.stop()

        run_simulated(1, main())

    return run
