"""Controllers over the fake API, with a fake kubelet: for tests of what controllers do together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.unit.controllers.fake_api import FakeApi

from k3s.api.kinds import REGISTRY
from k3s.api.object import Object, evolve
from k3s.base.aio import Tasks
from k3s.base.clock import LoopClock
from k3s.base.entropy import SeededEntropy
from k3s.base.story import Story
from k3s.client.client import Client
from k3s.controllers.informers import Informers
from k3s.controllers.known import POD
from k3s.controllers.nodes import meant_for
from k3s.controllers.service import Controllers
from k3s.controllers.spec import ControllerSpec


class Cluster:
    """A fake kubelet binds pods, runs them and ends deleted ones; `outcome(pod)` may say how a pod ends by itself."""

    def __init__(self, api: FakeApi, specs: tuple[ControllerSpec, ...]) -> None:
        self.api = api
        clock, entropy = LoopClock(0.0), SeededEntropy(1)
        self.story = Story()
        self.informers = Informers(Client(api), clock, entropy)
        self.controllers = Controllers(
            specs, self.informers, lambda account: Client(api), REGISTRY, clock, entropy, self.story
        )
        self.errors: list[BaseException] = []
        self.tasks = Tasks("test", lambda name, error: self.errors.append(error))
        self.outcome: Callable[[Object], str] = lambda pod: ""
        self.nodes_run = True

    async def __aenter__(self) -> Cluster:
        ready = asyncio.Event()
        self.tasks.spawn(self.informers.run(lambda: None), "informers")
        self.tasks.spawn(self.controllers.run(ready.set), "controllers")
        self.tasks.spawn(self._run_pods(), "kubelet")
        await ready.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.tasks.close()
        assert not self.errors, self.errors

    async def _run_pods(self) -> None:
        while True:
            waiting = self.api.changed
            for pod in self.api.all(POD) if self.nodes_run else ():
                self._run_pod(pod)
            await waiting.wait()
            await asyncio.sleep(0.02)

    def _run_pod(self, pod: Object) -> None:
        meta, phase = pod["metadata"], pod.get("status", {}).get("phase", "Pending")
        if "deletionTimestamp" in meta:
            if meta.get("deletionGracePeriodSeconds"):
                self.api.put(POD, {**pod, "metadata": {**meta, "deletionGracePeriodSeconds": 0}})
        elif phase == "Pending":
            status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            bound = evolve(pod, ("spec", "nodeName"), meant_for(pod) or "n1")
            self.api.put(POD, {**bound, "status": status})
        elif phase == "Running" and (end := self.outcome(pod)):
            self.api.put(POD, {**pod, "status": {"phase": end, "conditions": []}})

    async def until(self, condition: Callable[[], bool], within_s: float = 600.0) -> None:
        """Waits for a condition on the API's objects."""
        async with asyncio.timeout(within_s):
            while not condition():
                await self.api.changed.wait()
