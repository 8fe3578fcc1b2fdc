"""Real pods: a kubelet with a real containerd, real cgroups, mounts and addresses. The API server is one in memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.containers import BUSYBOX, Running, containerd
from tests.memory_api import MemoryApi

from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.base.clock import SystemClock
from k3s.base.entropy import SystemEntropy
from k3s.client.client import Client
from k3s.kubelet.node import Identity
from k3s.kubelet.runtime import interface as cri
from k3s.kubelet.service import Kubelet, KubeletConfig

pytestmark = [pytest.mark.root, pytest.mark.slow]
POD, CONFIG_MAP, SECRET = builtin("v1", "Pod"), builtin("v1", "ConfigMap"), builtin("v1", "Secret")


class Node:
    """One node with everything below `folder`."""

    def __init__(self, folder: Path, running: Running) -> None:
        self.folder, self.running, self.runtime = folder, running, running.runtime
        self.api = MemoryApi(SystemClock().now)
        self.client = Client(self.api)
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the kubelet and waits until it serves."""
        config = KubeletConfig(
            identity=Identity("n1", ("192.0.2.1",)),
            root=self.folder / "kubelet",
            logs=self.folder / "logs",
            links=self.folder / "links",
            manifests=self.folder / "manifests",
            cluster_dns=("10.43.0.10",),
        )
        self.kubelet = Kubelet(config, self.client, self.runtime, SystemClock(), SystemEntropy())
        ready = asyncio.Event()
        self.task = asyncio.create_task(self.kubelet.run(ready.set))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        assert not self.task.done(), self.task.exception()

    async def stop(self) -> None:
        """Stops the kubelet; containers go on."""
        assert self.task is not None
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def run(self, name: str, *command: str, container: Object | None = None, **spec: Any) -> Object:
        """Creates a pod with one container."""
        main = {"name": "main", "image": BUSYBOX, "command": list(command or ("sleep", "1000")), **(container or {})}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
            "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 0, "containers": [main], **spec},
            "status": {"phase": "Pending"},
        }
        return await self.client.create(POD, body)

    def status(self, name: str) -> Object:
        """The pod's status in the API."""
        pod = self.api.get("pods", "default", name)
        return pod.get("status", {}) if pod else {}

    async def pods(self) -> list[Object]:
        """What the kubelet runs."""
        return self.kubelet.pods()

    def ready(self, name: str) -> bool:
        """The pod's condition Ready."""
        return any(c["type"] == "Ready" and c["status"] == "True" for c in self.status(name).get("conditions", ()))

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Waits until a write makes the condition true; tells the events when it does not come."""
        try:
            return await self.api.until(condition, 20)
        except TimeoutError:
            events = [(e["reason"], e["message"]) for e in self.api.all("events")]
            raise AssertionError(f"not in time; statuses {self.api.all('pods')}, events {events}") from None

    async def exec(self, name: str, *command: str) -> str:
        """What a command in the pod's container prints."""
        found = self.kubelet.container("default", name, "main")
        assert found is not None
        done = await self.runtime.exec_sync(found.id, list(command), 5)
        assert done.exit_code == 0, done
        return done.stdout.decode()


async def settle(ask: Callable[[], Coroutine[Any, Any, Any]], wanted: Any) -> None:
    """Asks until the answer is the wanted one: for what nobody tells us of."""
    async with asyncio.timeout(10):
        for _ in range(1000):
            if await ask() == wanted:
                return
            await asyncio.sleep(0.02)


@pytest.fixture
def on_node(tmp_path: Path):
    """Runs `body(node)` on a node that serves."""

    def run(body: Callable[[Node], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with asyncio.timeout(90), containerd(tmp_path) as running:
                node = Node(tmp_path, running)
                await node.start()
                try:
                    await body(node)
                finally:
                    await node.stop()
            assert not [line for line in Path("/proc/mounts").read_text().splitlines() if str(tmp_path) in line]

        asyncio.run(main())

    return run


def test_environment_files_and_limits(on_node):
    """A container sees its variables, its volumes, its host name, its resolver, its user and its limits."""

    async def body(node: Node) -> None:
        await node.client.create(CONFIG_MAP, {"metadata": {"name": "c", "namespace": "default"}, "data": {"k": "v1"}})
        await node.client.create(SECRET, {"metadata": {"name": "s", "namespace": "default"}, "data": {"p": "cGFzcw=="}})
        volumes = [
            {"name": "config", "configMap": {"name": "c", "defaultMode": 0o640}},
            {"name": "secret", "secret": {"secretName": "s"}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "ram", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {
                "name": "info",
                "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
            },
        ]
        mounts = [{"name": v["name"], "mountPath": f"/v/{v['name']}"} for v in volumes]
        mounts.append({"name": "config", "mountPath": "/one", "subPath": "k"})
        mounts.append({"name": "scratch", "mountPath": "/sub", "subPath": "deep/er"})
        await node.run(
            "web",
            container={
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "B", "value": "$(A)2"},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
                    {"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                ],
                "volumeMounts": mounts,
                "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}},
                "securityContext": {
                    "runAsUser": 1000,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            },
            volumes=volumes,
            hostAliases=[{"ip": "192.0.2.7", "hostnames": ["seven"]}],
            securityContext={"fsGroup": 2000},
        )
        await node.until(lambda: node.ready("web"))
        said = dict(line.split("=", 1) for line in (await node.exec("web", "env")).splitlines())
        assert (said["A"], said["B"], said["S"], said["M"]) == ("1", "12", "pass", "64")
        assert said["IP"] == node.status("web")["podIP"]
        assert await node.exec("web", "cat", "/v/config/k", "/v/secret/p", "/one") == "v1passv1"
        assert await node.exec("web", "cat", "/v/info/labels") == 'app="web"'
        assert (await node.exec("web", "hostname")).strip() == "web"
        assert "nameserver 10.43.0.10" in await node.exec("web", "cat", "/etc/resolv.conf")
        assert "192.0.2.7\tseven" in await node.exec("web", "cat", "/etc/hosts")
        assert "uid=1000" in await node.exec("web", "id") and "2000" in await node.exec("web", "id")
        await node.exec("web", "touch", "/v/scratch/x", "/v/ram/y", "/sub/z", "/dev/termination-log")
        assert "tmpfs" in await node.exec("web", "sh", "-c", "mount | grep /v/ram")
        uid = node.api.get("pods", "default", "web")["metadata"]["uid"]
        if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
            pod_group = Path(f"/sys/fs/cgroup/memory/kubepods/pod{uid}/memory.limit_in_bytes")
            assert pod_group.read_text().strip() == str(64 << 20)
        await node.client.patch(CONFIG_MAP, "default", "c", {"data": {"k": "v2"}})
        await settle(lambda: node.exec("web", "cat", "/v/config/k"), "v2")
        await node.client.delete(POD, "default", "web")
        await node.until(lambda: node.api.get("pods", "default", "web") is None)
        await settle(node.pods, [])
        assert not (node.folder / "kubelet" / "pods" / uid).exists()
        assert not list(Path("/sys/fs/cgroup").glob(f"*/kubepods/pod{uid}"))

    on_node(body)


def test_a_container_that_crashes_and_its_last_words(on_node):
    """Exit code, termination message and restart count are in the status; the log of the first run stays."""

    async def body(node: Node) -> None:
        script = "echo hello; echo bye > /dev/termination-log; exit 4"
        await node.run("web", "sh", "-c", script)
        await node.until(lambda: (node.status("web").get("containerStatuses") or [{}])[0].get("restartCount", 0) >= 1)
        await node.until(
            lambda: (
                node.status("web")["containerStatuses"][0]["state"].get("waiting", {}).get("reason")
                == "CrashLoopBackOff"
            )
        )
        ended = node.status("web")["containerStatuses"][0]["lastState"]["terminated"]
        assert (ended["exitCode"], ended["message"], ended["reason"]) == (4, "bye\n", "Error")
        path = node.kubelet.log_path("default", "web", "main", previous=True)
        assert path is not None and " stdout F hello\n" in Path(path).read_text()

    on_node(body)


def test_out_of_memory(on_node):
    """A container that wants more memory than its limit ends with OOMKilled."""

    async def body(node: Node) -> None:
        await node.run(
            "web",
            "sh",
            "-c",
            "head -c 100000000 /dev/zero | tail",
            container={"resources": {"limits": {"memory": "8Mi"}}},
            restartPolicy="Never",
        )
        await node.until(lambda: node.status("web").get("phase") == "Failed")
        # The shell sees its child die: the runtime tells the reason when the container's own process was the one.
        assert node.status("web")["containerStatuses"][0]["state"]["terminated"]["exitCode"] in (1, 137)

    on_node(body)


def test_probes_and_hooks(on_node):
    """HTTP readiness by the pod's address, exec liveness that restarts, post-start and pre-stop hooks that run."""

    async def body(node: Node) -> None:
        shared = [{"name": "out", "hostPath": {"path": str(node.folder / "out"), "type": "DirectoryOrCreate"}}]
        await node.run(
            "web",
            "sh",
            "-c",
            "echo ok > /tmp/index.html; touch /tmp/alive; httpd -f -p 8080 -h /tmp",
            container={
                "ports": [{"name": "http", "containerPort": 8080}],
                "volumeMounts": [{"name": "out", "mountPath": "/out"}],
                "readinessProbe": {"httpGet": {"port": "http", "path": "/index.html"}, "periodSeconds": 1},
                "livenessProbe": {
                    "exec": {"command": ["cat", "/tmp/alive"]},
                    "periodSeconds": 1,
                    "failureThreshold": 1,
                },
                "lifecycle": {
                    "postStart": {"exec": {"command": ["touch", "/out/started"]}},
                    "preStop": {"exec": {"command": ["touch", "/out/stopped"]}},
                },
            },
            volumes=shared,
            terminationGracePeriodSeconds=2,
        )
        await node.until(lambda: node.ready("web"))
        assert (node.folder / "out" / "started").exists() and not (node.folder / "out" / "stopped").exists()
        await node.exec("web", "sh", "-c", "rm /tmp/alive 2>/dev/null || busybox rm /tmp/alive")
        await node.until(lambda: node.status("web")["containerStatuses"][0]["restartCount"] == 1)
        assert (node.folder / "out" / "stopped").exists()
        await node.until(lambda: node.ready("web"))

    on_node(body)


def test_a_restart_of_everything_keeps_containers(on_node):
    """Kubelet and containerd end and start again: the container has run on, the pod is deleted as ever."""

    async def body(node: Node) -> None:
        await node.run("web")
        await node.until(lambda: node.ready("web"))
        before = node.kubelet.container("default", "web", "main")
        assert before is not None
        await node.stop()
        await node.runtime.close()
        await node.running.containerd.stop()
        again = await node.running.containerd.start()
        await again.close()
        await node.start()
        after = node.kubelet.container("default", "web", "main")
        assert after is not None and (after.id, after.started_at) == (before.id, before.started_at)
        assert (await node.exec("web", "echo", "hi")) == "hi\n"
        await node.client.delete(POD, "default", "web")
        await node.until(lambda: node.api.get("pods", "default", "web") is None)

    on_node(body)


def test_a_killed_sandbox_is_replaced(on_node):
    """Killing the pause process makes a new sandbox and new containers."""

    async def body(node: Node) -> None:
        await node.run("web", container={"ports": [{"containerPort": 80}]})
        await node.until(lambda: node.ready("web"))
        old = node.kubelet.sandbox("default", "web")
        assert old is not None
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (entry / "cgroup").exists():
                with contextlib.suppress(OSError):
                    if old.id in (entry / "cgroup").read_text() and b"pause" in (entry / "cmdline").read_bytes():
                        os.kill(int(entry.name), 9)
        await node.until(lambda: node.ready("web") and node.status("web")["containerStatuses"][0]["restartCount"] == 1)
        new = node.kubelet.sandbox("default", "web")
        assert new is not None and new.id != old.id and new.attempt == 1

    on_node(body)


def test_host_network_and_static_pod(on_node):
    """A static pod on the host's network runs, has a mirror, and ends with its manifest."""

    async def body(node: Node) -> None:
        manifest = node.folder / "manifests" / "web.yaml"
        manifest.write_text(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  hostNetwork: true\n"
            "  terminationGracePeriodSeconds: 1\n  containers:\n"
            f"  - {{name: main, image: '{BUSYBOX}', command: [sleep, '1000']}}\n"
        )
        await node.until(lambda: node.ready("web-n1"))
        assert node.status("web-n1")["podIP"] == "192.0.2.1"
        mirror = node.api.get("pods", "default", "web-n1")
        assert mirror is not None and "kubernetes.io/config.mirror" in mirror["metadata"]["annotations"]
        manifest.unlink()
        await node.until(lambda: node.api.get("pods", "default", "web-n1") is None)
        await settle(node.runtime.list_containers, [])

    on_node(body)


def test_a_command_that_is_not_there(on_node):
    """A container that cannot run says why."""

    async def body(node: Node) -> None:
        await node.run("web", "/does/not/exist")
        status = await node.until(
            lambda: (s := (node.status("web").get("containerStatuses") or [{}])[0]).get("lastState") and s
        )
        assert status["lastState"]["terminated"]["reason"] == "StartError"
        found = await node.runtime.list_containers()
        assert found and all(c.state == cri.EXITED for c in found)

    on_node(body)


def test_ten_pods_at_once(on_node):
    """Ten pods start together, each with its own address, and go together."""

    async def body(node: Node) -> None:
        names = [f"p{i}" for i in range(10)]
        for name in names:
            await node.run(name)
        await node.until(lambda: all(node.ready(name) for name in names))
        assert len({node.status(name)["podIP"] for name in names}) == 10
        for name in names:
            await node.client.delete(POD, "default", name)
        await node.until(lambda: not node.api.all("pods"))

    on_node(body)
