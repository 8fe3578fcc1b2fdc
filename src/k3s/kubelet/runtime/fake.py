"""A runtime in memory: the second implementation of the seam, for simulation and tests, under virtual time.

It runs a few commands (`sleep N`, `true`, `false`, `exit N`, `echo …`, also as `sh -c "a; b"`); any other one runs for
ever. Faults are switched on by its public attributes.
"""

from __future__ import annotations

import asyncio
import itertools
import shlex
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from k3s.base.clock import Clock
from k3s.kubelet.runtime.interface import (
    CREATED,
    EXITED,
    RUNNING,
    Config,
    Container,
    ExecResult,
    Filesystem,
    Image,
    Readiness,
    RuntimeEvent,
    RuntimeFailure,
    Sandbox,
    Usage,
    Version,
)

_KILLED, _TERMINATED = 137, 143


class FakeRuntime:
    """Keeps sandboxes and containers in dicts. Latencies in seconds; `prefix` is the network of its pods.

    `pullable` decides which images a pull finds; `network_ready` is what status says; `on_exec` may answer an exec.
    """

    def __init__(self, clock: Clock, *, prefix: str = "10.42.0.", start_s: float = 0.0, pull_s: float = 0.0) -> None:
        self._clock = clock
        self._prefix = prefix
        self.start_s = start_s
        self.pull_s = pull_s
        self.network_ready = True
        self.ignore_term = False
        self.pullable: Callable[[str], bool] = lambda _image: True
        self.on_exec: Callable[[Container, Sequence[str]], ExecResult] | None = None
        self._numbers = itertools.count(1)
        self._hosts = itertools.count(2)
        self._sandboxes: dict[str, Sandbox] = {}
        self._containers: dict[str, Container] = {}
        self._commands: dict[str, tuple[str, ...]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._images: dict[str, Image] = {}
        self._listeners: list[asyncio.Queue[RuntimeEvent]] = []

    # ── for tests and simulation ──

    def add_image(self, name: str) -> Image:
        """Puts an image into the store; `name` is a full reference."""
        image = Image(id=f"sha256:{len(self._images) + 1:064x}", tags=(name,), size=1000)
        self._images[name] = image
        return image

    def exit(self, container_id: str, code: int, reason: str = "") -> None:
        """Lets a running container end by itself."""
        container = self._containers.get(container_id)
        if container is None or container.state != RUNNING:
            return
        timer = self._timers.pop(container_id, None)
        if timer is not None:
            timer.cancel()
        why = reason or ("Completed" if code == 0 else "Error")
        self._containers[container_id] = replace(
            container, state=EXITED, exit_code=code, reason=why, finished_at=self._clock.now()
        )
        self._tell("exit", container_id)

    def kill_sandbox(self, sandbox_id: str) -> None:
        """Lets a sandbox die, as when its pause process is killed."""
        self._sandboxes[sandbox_id] = replace(self._sandboxes[sandbox_id], ready=False, ips=())
        self._tell("exit", sandbox_id)

    def crash(self) -> None:
        """Ends everything that runs, as a reboot of the machine does; what is stored stays."""
        for container_id in list(self._containers):
            self.exit(container_id, 255, "Unknown")
        for sandbox_id in list(self._sandboxes):
            self.kill_sandbox(sandbox_id)

    def _tell(self, kind: str, container_id: str) -> None:
        for queue in self._listeners:
            queue.put_nowait(RuntimeEvent(kind, container_id))

    # ── the seam ──

    async def version(self) -> Version:
        return Version("fake", "1.0")

    async def status(self) -> Readiness:
        text = "" if self.network_ready else "container runtime network not ready: NetworkReady=false"
        return Readiness(True, self.network_ready, text)

    def _sandbox(self, sandbox_id: str) -> Sandbox:
        if sandbox_id not in self._sandboxes:
            raise RuntimeFailure("NOT_FOUND", f"sandbox {sandbox_id} does not exist")
        return self._sandboxes[sandbox_id]

    def _container(self, container_id: str) -> Container:
        if container_id not in self._containers:
            raise RuntimeFailure("NOT_FOUND", f"container {container_id} does not exist")
        return self._containers[container_id]

    async def run_pod_sandbox(self, config: Config, handler: str = "") -> str:
        await asyncio.sleep(self.start_s)
        meta = config["metadata"]
        own = (meta["uid"], meta.get("attempt", 0))
        if any((s.pod_uid, s.attempt) == own for s in self._sandboxes.values()):
            raise RuntimeFailure("UNKNOWN", f"the name of sandbox {meta['name']} attempt {own[1]} is reserved")
        sandbox_id = f"{next(self._numbers):064x}"
        security = (config.get("linux") or {}).get("security_context") or {}
        on_host = (security.get("namespace_options") or {}).get("network") == "NODE"
        self._sandboxes[sandbox_id] = Sandbox(
            id=sandbox_id,
            pod_uid=meta["uid"],
            namespace=meta["namespace"],
            name=meta["name"],
            attempt=meta.get("attempt", 0),
            ready=True,
            created_at=self._clock.now(),
            ips=() if on_host else (f"{self._prefix}{next(self._hosts)}",),
            labels=dict(config.get("labels") or {}),
            annotations=dict(config.get("annotations") or {}),
        )
        return sandbox_id

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        await asyncio.sleep(0)
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        for container in list(self._containers.values()):
            if container.sandbox_id == sandbox_id:
                self.exit(container.id, _KILLED)
        if sandbox.ready:
            self.kill_sandbox(sandbox_id)

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        await self.stop_pod_sandbox(sandbox_id)
        for container in list(self._containers.values()):
            if container.sandbox_id == sandbox_id:
                await self.remove_container(container.id)
        self._sandboxes.pop(sandbox_id, None)

    async def pod_sandbox_status(self, sandbox_id: str) -> Sandbox:
        return self._sandbox(sandbox_id)

    async def list_pod_sandboxes(self, pod_uid: str = "") -> list[Sandbox]:
        found = [s for s in self._sandboxes.values() if not pod_uid or s.pod_uid == pod_uid]
        return [replace(sandbox, ips=()) for sandbox in found]

    async def create_container(self, sandbox_id: str, config: Config, sandbox_config: Config) -> str:
        await asyncio.sleep(0)
        sandbox = self._sandbox(sandbox_id)
        if not sandbox.ready:
            raise RuntimeFailure("UNKNOWN", f"sandbox {sandbox_id} is not running")
        meta, image = config["metadata"], config["image"]["image"]
        if self._find(image) is None:
            raise RuntimeFailure("NOT_FOUND", f"image {image} is not stored")
        own = (sandbox.pod_uid, meta["name"], meta.get("attempt", 0))
        if any((self._sandboxes[c.sandbox_id].pod_uid, c.name, c.attempt) == own for c in self._containers.values()):
            raise RuntimeFailure("UNKNOWN", f"the name of container {meta['name']} attempt {own[2]} is reserved")
        container_id = f"{next(self._numbers):064x}"
        self._containers[container_id] = Container(
            id=container_id,
            sandbox_id=sandbox_id,
            name=meta["name"],
            attempt=meta.get("attempt", 0),
            state=CREATED,
            created_at=self._clock.now(),
            image=image,
            image_id=image,
            log_path=f"{sandbox_config.get('log_directory', '')}/{config.get('log_path', '')}",
            labels=dict(config.get("labels") or {}),
            annotations=dict(config.get("annotations") or {}),
        )
        self._commands[container_id] = (*(config.get("command") or ()), *(config.get("args") or ()))
        return container_id

    async def start_container(self, container_id: str) -> None:
        await asyncio.sleep(self.start_s)
        container = self._container(container_id)
        command = self._commands[container_id]
        if command[:1] == ("/does/not/exist",):
            self._containers[container_id] = replace(
                container, state=EXITED, exit_code=128, reason="StartError", finished_at=self._clock.now()
            )
            raise RuntimeFailure("UNKNOWN", "exec: /does/not/exist: no such file or directory")
        self._containers[container_id] = replace(container, state=RUNNING, started_at=self._clock.now())
        self._tell("start", container_id)
        ends = _meaning(command)
        if ends is not None:
            after_s, code = ends
            loop = asyncio.get_running_loop()
            self._timers[container_id] = loop.call_later(after_s, self.exit, container_id, code)

    async def stop_container(self, container_id: str, timeout_s: float) -> None:
        container = self._containers.get(container_id)
        if container is None or container.state != RUNNING:
            return
        if self.ignore_term:
            await asyncio.sleep(timeout_s)
        else:
            await asyncio.sleep(0)
        self.exit(container_id, _KILLED if self.ignore_term else _TERMINATED)

    async def remove_container(self, container_id: str) -> None:
        self.exit(container_id, _KILLED)
        if self._containers.pop(container_id, None) is not None:
            self._tell("delete", container_id)

    async def container_status(self, container_id: str) -> Container:
        return self._container(container_id)

    async def list_containers(self, pod_uid: str = "") -> list[Container]:
        return [c for c in self._containers.values() if not pod_uid or c.pod_uid == pod_uid]

    async def update_container_resources(self, container_id: str, linux: Config) -> None:
        self._container(container_id)

    async def reopen_container_log(self, container_id: str) -> None:
        self._container(container_id)

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        container = self._container(container_id)
        if container.state != RUNNING:
            raise RuntimeFailure("UNKNOWN", f"container {container_id} is not running")
        if self.on_exec is not None:
            return self.on_exec(container, command)
        after_s, code = _meaning(tuple(command)) or (0.0, 0)
        if timeout_s and after_s > timeout_s:
            await asyncio.sleep(timeout_s)
            raise RuntimeFailure("DEADLINE_EXCEEDED", f"the command did not end in {timeout_s:g} s")
        await asyncio.sleep(after_s)
        return ExecResult(code, _output(tuple(command)), b"")

    async def exec_url(self, request: Config) -> str:
        return f"http://fake/exec/{self._container(request['container_id']).id}"

    async def attach_url(self, request: Config) -> str:
        return f"http://fake/attach/{self._container(request['container_id']).id}"

    async def port_forward_url(self, request: Config) -> str:
        return f"http://fake/portforward/{self._sandbox(request['pod_sandbox_id']).id}"

    def _find(self, image: str) -> Image | None:
        known = self._images.get(image)
        return known or next((i for i in self._images.values() if i.id == image), None)

    async def pull_image(self, image: str, auth: Config | None, sandbox_config: Config | None) -> str:
        await asyncio.sleep(self.pull_s)
        if not self.pullable(image):
            raise RuntimeFailure("NOT_FOUND", f"{image}: not found")
        return (self._find(image) or self.add_image(image)).id

    async def image_status(self, image: str) -> Image | None:
        return self._find(image)

    async def list_images(self) -> list[Image]:
        return list(self._images.values())

    async def remove_image(self, image: str) -> None:
        self._images = {name: i for name, i in self._images.items() if image not in (name, i.id)}

    async def image_fs_info(self) -> list[Filesystem]:
        return [Filesystem("/fake", sum(i.size for i in self._images.values()), len(self._images))]

    async def container_usage(self) -> list[Usage]:
        now = self._clock.now()
        running = [c for c in self._containers.values() if c.state == RUNNING]
        return [Usage(c.id, c.labels, now, 1_000_000, 1 << 20, 1 << 20, 1 << 20, 4096, 1) for c in running]

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        queue: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            yield RuntimeEvent("resync")
            while True:
                yield await queue.get()
        finally:
            self._listeners.remove(queue)

    async def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()


def _meaning(command: tuple[str, ...]) -> tuple[float, int] | None:
    """After how long a command ends and with which code; None when it runs for ever."""
    words = [shlex.split(part) for part in command[2].split(";")] if command[:2] == ("sh", "-c") else [list(command)]
    seconds, code = 0.0, 0
    for word in words:
        match word:
            case ["sleep", text]:
                seconds, code = seconds + float(text), 0
            case ["exit", text]:
                return seconds, int(text)
            case ["true"] | ["echo", *_]:
                code = 0
            case ["false"]:
                code = 1
            case _:
                return None
    return seconds, code


def _output(command: tuple[str, ...]) -> bytes:
    return (" ".join(command[1:]) + "\n").encode() if command[:1] == ("echo",) else b""
