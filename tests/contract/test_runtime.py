"""What every container runtime promises, run over the one in memory and over a real containerd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from tests.containers import BUSYBOX, containerd

from k3s.base.clock import SystemClock
from k3s.kubelet.runtime import interface as cri
from k3s.kubelet.runtime.fake import FakeRuntime
from k3s.kubelet.runtime.interface import Runtime, RuntimeFailure

Bench = Callable[[Path], AbstractAsyncContextManager[Runtime]]


@asynccontextmanager
async def fake(folder: Path) -> AsyncIterator[Runtime]:
    runtime = FakeRuntime(SystemClock())
    runtime.add_image(BUSYBOX)
    yield runtime
    await runtime.close()


@asynccontextmanager
async def real(folder: Path) -> AsyncIterator[Runtime]:
    async with containerd(folder) as running:
        yield running.runtime


@pytest.fixture(params=["fake", pytest.param("containerd", marks=[pytest.mark.root, pytest.mark.slow])])
def check(request: pytest.FixtureRequest, tmp_path: Path):
    """Runs `body(runtime)` against the bench."""
    bench: Bench = {"fake": fake, "containerd": real}[request.param]

    def run(body):
        async def main() -> None:
            async with asyncio.timeout(60), bench(tmp_path) as runtime:
                await body(runtime)

        asyncio.run(main())

    return run


def sandbox_config(uid: str = "u1", attempt: int = 0):
    return {
        "metadata": {"name": "web", "namespace": "default", "uid": uid, "attempt": attempt},
        "labels": {cri.POD_UID: uid, cri.POD_NAME: "web", cri.POD_NAMESPACE: "default"},
        "linux": {"security_context": {"namespace_options": {"pid": "CONTAINER"}}},
    }


def container_config(*command: str, name: str = "main", attempt: int = 0, uid: str = "u1"):
    return {
        "metadata": {"name": name, "attempt": attempt},
        "image": {"image": BUSYBOX},
        "command": list(command),
        "labels": {cri.POD_UID: uid, cri.CONTAINER_NAME: name},
        "annotations": {"a": "b"},
        "linux": {"security_context": {"namespace_options": {"pid": "CONTAINER"}}},
    }


async def until_exited(runtime: Runtime, container_id: str) -> cri.Container:
    """Asks for the status until it says that the container has ended."""
    while True:
        found = await runtime.container_status(container_id)
        if found.state == cri.EXITED:
            return found
        await asyncio.sleep(0.01)


async def start(runtime: Runtime, *command: str, **more) -> tuple[str, str]:
    sandbox = await runtime.run_pod_sandbox(sandbox_config())
    container = await runtime.create_container(sandbox, container_config(*command, **more), sandbox_config())
    await runtime.start_container(container)
    return sandbox, container


def test_a_container_runs_and_is_stopped(check):
    """A sandbox gets an address, a container in it runs until it is stopped, and both can be removed."""

    async def body(runtime: Runtime) -> None:
        assert (await runtime.version()).name
        assert (await runtime.status()).runtime
        sandbox, container = await start(runtime, "sleep", "1000")
        status = await runtime.pod_sandbox_status(sandbox)
        assert status.ready and len(status.ips) == 1 and status.pod_uid == "u1"
        running = await runtime.container_status(container)
        assert running.state == cri.RUNNING and running.started_at > 0 and running.name == "main"
        assert running.annotations == {"a": "b"} and running.labels[cri.CONTAINER_NAME] == "main"
        assert [c.id for c in await runtime.list_containers("u1")] == [container]
        assert await runtime.list_containers("another") == []
        await runtime.stop_container(container, 0)
        ended = await until_exited(runtime, container)
        assert ended.exit_code in (137, 143) and ended.finished_at >= ended.started_at
        await runtime.stop_pod_sandbox(sandbox)
        assert not (await runtime.pod_sandbox_status(sandbox)).ready
        await runtime.remove_pod_sandbox(sandbox)
        assert await runtime.list_pod_sandboxes("u1") == []
        assert await runtime.list_containers("u1") == []

    check(body)


def test_a_container_ends_with_its_code(check):
    """An exit is told as an event and its code and reason are in the status."""

    async def body(runtime: Runtime) -> None:
        heard: asyncio.Queue[cri.RuntimeEvent] = asyncio.Queue()

        async def listen() -> None:
            async for event in runtime.events():
                heard.put_nowait(event)

        listening = asyncio.create_task(listen())
        assert (await heard.get()).kind == "resync"
        _sandbox, container = await start(runtime, "sh", "-c", "sleep 0.2; exit 3")
        while (await heard.get()) != cri.RuntimeEvent("exit", container):
            pass
        ended = await until_exited(runtime, container)
        assert (ended.exit_code, ended.reason) == (3, "Error")
        listening.cancel()

    check(body)


def test_stopping_and_removing_twice_is_fine(check):
    """What is already stopped or gone is no error, so that clean-up can be repeated."""

    async def body(runtime: Runtime) -> None:
        sandbox, container = await start(runtime, "sleep", "1000")
        for _ in range(2):
            await runtime.stop_container(container, 0)
        for _ in range(2):
            await runtime.remove_container(container)
        await runtime.stop_container(container, 0)
        for _ in range(2):
            await runtime.stop_pod_sandbox(sandbox)
        for _ in range(2):
            await runtime.remove_pod_sandbox(sandbox)
        with pytest.raises(RuntimeFailure) as failure:
            await runtime.container_status(container)
        assert failure.value.gone

    check(body)


def test_names_are_taken_once(check):
    """Two containers of one name and attempt, or two such sandboxes, are refused: so no start happens twice."""

    async def body(runtime: Runtime) -> None:
        sandbox, _container = await start(runtime, "sleep", "1000")
        with pytest.raises(RuntimeFailure):
            await runtime.create_container(sandbox, container_config("sleep", "1"), sandbox_config())
        with pytest.raises(RuntimeFailure):
            await runtime.run_pod_sandbox(sandbox_config())
        second = await runtime.create_container(sandbox, container_config("sleep", "1", attempt=1), sandbox_config())
        assert (await runtime.container_status(second)).state == cri.CREATED

    check(body)


def test_a_command_that_is_not_there(check):
    """A start that fails leaves a container that has ended, with code and reason."""

    async def body(runtime: Runtime) -> None:
        sandbox = await runtime.run_pod_sandbox(sandbox_config())
        container = await runtime.create_container(sandbox, container_config("/does/not/exist"), sandbox_config())
        with pytest.raises(RuntimeFailure):
            await runtime.start_container(container)
        ended = await until_exited(runtime, container)
        assert (ended.exit_code, ended.reason) == (128, "StartError")

    check(body)


def test_exec(check):
    """A command inside a container gives its code and output; one that takes too long is a deadline."""

    async def body(runtime: Runtime) -> None:
        _sandbox, container = await start(runtime, "sleep", "1000")
        said = await runtime.exec_sync(container, ["echo", "hi"], 5)
        assert (said.exit_code, said.stdout) == (0, b"hi\n")
        assert (await runtime.exec_sync(container, ["false"], 5)).exit_code == 1
        with pytest.raises(RuntimeFailure) as failure:
            await runtime.exec_sync(container, ["sleep", "30"], 1)
        assert failure.value.code in ("DEADLINE_EXCEEDED", "UNKNOWN")

    check(body)


def test_stopping_a_sandbox_ends_its_containers(check):
    """When the sandbox is stopped nothing of the pod runs any more."""

    async def body(runtime: Runtime) -> None:
        sandbox, container = await start(runtime, "sleep", "1000")
        await runtime.stop_pod_sandbox(sandbox)
        assert (await until_exited(runtime, container)).exit_code == 137

    check(body)


def test_images(check):
    """An image is found by name and by id; an unknown one is None."""

    async def body(runtime: Runtime) -> None:
        found = await runtime.image_status(BUSYBOX)
        assert found is not None and BUSYBOX in found.tags and found.size > 0
        assert await runtime.image_status(found.id) == found
        assert await runtime.image_status("docker.io/library/none:1") is None
        assert found.id in [image.id for image in await runtime.list_images()]
        assert (await runtime.image_fs_info())[0].mountpoint

    check(body)
