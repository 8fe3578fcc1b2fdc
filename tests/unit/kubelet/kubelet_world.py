"""A whole kubelet on a fake machine with a fake runtime."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.memory_api import MemoryApi

from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.base.clock import LoopClock
from k3s.base.entropy import SeededEntropy
from k3s.client.client import Client
from k3s.kubelet.host import FakeHost
from k3s.kubelet.node import Identity
from k3s.kubelet.runtime.fake import FakeRuntime
from k3s.kubelet.service import Kubelet, KubeletConfig

POD = builtin("v1", "Pod")
CONFIG_MAP = builtin("v1", "ConfigMap")
EPOCH = 1_700_000_000.0


@dataclass
class World:
    """An API server, a runtime and the kubelet between them."""

    api: MemoryApi
    client: Client
    runtime: FakeRuntime
    host: FakeHost
    kubelet: Kubelet | None = None
    running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts a kubelet and waits until it serves."""
        clock = LoopClock(EPOCH)
        config = KubeletConfig(identity=Identity("n1", ("192.0.2.1",), version="v1.36.2+k3s1"))
        self.kubelet = Kubelet(config, self.client, self.runtime, clock, SeededEntropy(1), host=self.host)
        ready = asyncio.Event()
        self.running = asyncio.get_running_loop().create_task(self.kubelet.run(ready.set))
        await ready.wait()

    async def stop(self) -> None:
        """Stops the kubelet; containers go on."""
        assert self.running is not None
        self.running.cancel()
        await asyncio.wait([self.running])

    async def create(self, name: str, **spec: Any) -> Object:
        """Creates a pod on the node; one container that runs for ever unless `spec` says otherwise."""
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": "n1", "containers": [container("main")], **spec},
            "status": {"phase": "Pending"},
        }
        return await self.client.create(POD, body)

    def status(self, name: str = "web") -> Object:
        """The pod's status in the API."""
        pod = self.api.get("pods", "default", name)
        return {} if pod is None else pod["status"]

    async def until(self, condition: Callable[[], Any], within_s: float = 60.0) -> Any:
        """Waits until a write makes the condition true."""
        return await self.api.until(condition, within_s)

    async def until_running(self, name: str = "web") -> None:
        """Waits until the pod is Ready."""
        await self.until(lambda: self.ready(name))

    def ready(self, name: str = "web") -> bool:
        """The pod's condition Ready."""
        return any(c["type"] == "Ready" and c["status"] == "True" for c in self.status(name).get("conditions", ()))

    def state(self, name: str = "web", group: str = "containerStatuses", index: int = 0) -> Object:
        """The status of one container."""
        found = self.status(name).get(group) or [{}] * (index + 1)
        return found[index]

    def reason(self, name: str = "web") -> str:
        """Why the first container waits."""
        return self.state(name).get("state", {}).get("waiting", {}).get("reason", "")

    def events(self, reason: str) -> list[Object]:
        """The events with this reason."""
        return [e for e in self.api.all("events") if e["reason"] == reason]

    async def id(self, container: str) -> str:
        """The newest container of that name."""
        found = [c for c in await self.runtime.list_containers() if c.name == container]
        return max(found, key=lambda c: c.attempt).id


def container(name: str, *command: str, **more: Any) -> Object:
    """A container of a pod."""
    return {"name": name, "image": "busybox:1", "command": list(command or ("serve",)), **more}
