"""A whole kubelet on a fake machine with a fake runtime, under virtual time: what pods go through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from tests.memory_api import MemoryApi

from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.base.clock import LoopClock
from k3s.base.entropy import SeededEntropy
from k3s.client.client import Client
from k3s.kubelet import pod as pod_machine
from k3s.kubelet import status as status_module
from k3s.kubelet.host import FakeHost
from k3s.kubelet.node import Identity
from k3s.kubelet.runtime import interface as cri
from k3s.kubelet.runtime.fake import FakeRuntime
from k3s.kubelet.runtime.interface import ExecResult
from k3s.kubelet.service import Kubelet, KubeletConfig
from k3s.sim.loop import run as run_simulated

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


def test_a_pod_runs_and_is_deleted(simulate):
    """Create → Ready with address and container id; delete → stopped, removed from the API and from the runtime."""

    async def body(w: World) -> None:
        await w.create("web")
        await w.until_running()
        status = w.status()
        assert status["phase"] == "Running" and status["podIP"].startswith("10.42.0.")
        assert status["hostIP"] == "192.0.2.1"
        assert w.state()["containerID"].startswith("containerd://") and w.state()["started"] is True
        await w.client.delete(POD, "default", "web", grace_s=5)
        await w.until(lambda: w.api.get("pods", "default", "web") is None)
        await asyncio.sleep(1)
        assert await w.runtime.list_containers() == [] and await w.runtime.list_pod_sandboxes() == []
        assert w.kubelet is not None and w.kubelet.pods() == []
        for reason in ("Pulled", "Created", "Started", "Killing"):
            assert len(w.events(reason)) == 1, reason

    simulate(body)


def test_a_crash_loop_backs_off(simulate):
    """The first restart comes at once, then after 10, 20, 40 s; the status says CrashLoopBackOff in between."""

    async def body(w: World) -> None:
        await w.create("web", containers=[container("main", "sh", "-c", "sleep 1; exit 2")])
        await w.until(lambda: w.reason() == "CrashLoopBackOff" and w.state()["restartCount"] == 1)
        assert (
            "back-off 10s restarting failed container=main pod=web_default(" in w.state()["state"]["waiting"]["message"]
        )
        assert w.state()["lastState"]["terminated"]["exitCode"] == 2
        await asyncio.sleep(130)
        starts = sorted(c.started_at for c in await w.runtime.list_containers())
        gaps = [round(b - a) for a, b in pairwise(starts)]
        assert gaps[-3:] == [11, 21, 41] or gaps[-2:] == [11, 21], gaps
        assert w.events("BackOff")

    simulate(body)


def test_never_restart_ends_in_a_phase(simulate):
    """With restartPolicy Never the exit code decides between Succeeded and Failed, and the object stays."""

    async def body(w: World) -> None:
        await w.create("good", restartPolicy="Never", containers=[container("main", "true")])
        await w.create("bad", restartPolicy="Never", containers=[container("main", "sh", "-c", "exit 3")])
        await w.until(lambda: w.status("good").get("phase") == "Succeeded")
        await w.until(lambda: w.status("bad").get("phase") == "Failed")
        ended = w.state("bad")["state"]["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (3, "Error")
        reasons = {c["type"]: c.get("reason") for c in w.status("good")["conditions"]}
        assert reasons["Ready"] == "PodCompleted"
        await w.client.delete(POD, "default", "good")
        await w.until(lambda: w.api.get("pods", "default", "good") is None, 5)

    simulate(body)


def test_init_containers_in_order_and_a_sidecar(simulate):
    """Each init container waits for the one before; a sidecar only has to have started; the main ones come last."""

    async def body(w: World) -> None:
        inits = [
            container("first", "sleep", "3"),
            container("proxy", restartPolicy="Always"),
            container("second", "sleep", "3"),
        ]
        await w.create("web", initContainers=inits, restartPolicy="Never", containers=[container("main", "sleep", "5")])
        await w.until_running()
        started = {c.name: c.started_at for c in await w.runtime.list_containers()}
        assert started["first"] + 3 <= started["proxy"] <= started["second"]
        assert started["second"] + 3 <= started["main"]
        await w.until(lambda: w.status()["phase"] == "Succeeded")
        assert w.state("web", "initContainerStatuses", 1)["state"]["terminated"]["exitCode"] == 143

    simulate(body)


def test_a_failed_init_container_fails_a_pod_that_never_restarts(simulate):
    """An init container that fails with restartPolicy Never ends the pod."""

    async def body(w: World) -> None:
        await w.create("web", restartPolicy="Never", initContainers=[container("init", "false")])
        await w.until(lambda: w.status().get("phase") == "Failed")
        assert all(c.name != "main" for c in await w.runtime.list_containers())

    simulate(body)


def test_probes_decide_readiness_and_restarts(simulate):
    """Not started before the startup probe, not ready before the readiness probe, restarted by the liveness probe."""

    async def body(w: World) -> None:
        healthy = {"startup": False, "ready": False, "live": True}

        def answer(_container: cri.Container, command: Any) -> ExecResult:
            return ExecResult(0 if healthy[command[0]] else 1, b"", b"no")

        w.runtime.on_exec = answer
        probe = {"periodSeconds": 1, "failureThreshold": 3}
        probes = {
            "startupProbe": {"exec": {"command": ["startup"]}, **probe, "failureThreshold": 100},
            "readinessProbe": {"exec": {"command": ["ready"]}, **probe},
            "livenessProbe": {"exec": {"command": ["live"]}, **probe},
        }
        await w.create("web", containers=[container("main", **probes)])
        await w.until(lambda: "running" in w.state().get("state", {}))
        await asyncio.sleep(5)
        assert not w.state()["started"]
        healthy["startup"] = True
        await w.until(lambda: w.state()["started"])
        assert not w.ready()
        healthy["ready"] = True
        await w.until_running()
        healthy["ready"] = False
        await w.until(lambda: not w.ready())
        healthy["live"] = False
        await w.until(lambda: w.state()["restartCount"] == 1)
        assert any("Liveness probe failed" in e["message"] for e in w.events("Unhealthy"))
        assert any("failed liveness probe, will be restarted" in e["message"] for e in w.events("Killing"))

    simulate(body)


def test_an_image_that_cannot_be_pulled(simulate):
    """ErrImagePull, then ImagePullBackOff; when the image is there the pod runs."""

    async def body(w: World) -> None:
        w.runtime.pullable = lambda _image: False
        await w.create("web", containers=[container("main", image="none:1")])
        await w.until(lambda: w.reason() == "ErrImagePull")
        await w.until(lambda: w.reason() == "ImagePullBackOff")
        assert w.state()["state"]["waiting"]["message"].startswith('Back-off pulling image "none:1"')
        w.runtime.pullable = lambda _image: True
        await w.until_running()

    simulate(body)


def test_a_missing_config_map_is_waited_for(simulate):
    """CreateContainerConfigError while a ConfigMap of the environment is missing; the pod runs once it appears."""

    async def body(w: World) -> None:
        ref = {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}}
        await w.create("web", containers=[container("main", env=[ref])])
        await w.until(lambda: w.reason() == "CreateContainerConfigError")
        assert w.state()["state"]["waiting"]["message"] == 'configmap "settings" not found'
        at = asyncio.get_running_loop().time()
        await w.client.create(
            CONFIG_MAP, {"metadata": {"name": "settings", "namespace": "default"}, "data": {"a": "1"}}
        )
        await w.until_running()
        assert asyncio.get_running_loop().time() - at < 2

    simulate(body)


def test_a_dead_sandbox_is_replaced(simulate):
    """When the sandbox dies its containers are ended and everything starts again with a new address."""

    async def body(w: World) -> None:
        await w.create("web", initContainers=[container("init", "true")])
        await w.until_running()
        before = w.status()["podIP"]
        w.runtime.kill_sandbox((await w.runtime.list_pod_sandboxes())[0].id)
        await w.until(lambda: w.ready() and w.status()["podIP"] != before)
        assert w.state()["restartCount"] == 1
        assert w.events("SandboxChanged")

    simulate(body)


def test_a_restarted_kubelet_finds_its_containers(simulate):
    """Containers run on while the kubelet is away; what changed meanwhile is seen, and nothing is started twice."""

    async def body(w: World) -> None:
        await w.create("web")
        await w.create("gone")
        await w.until(lambda: w.ready("web") and w.ready("gone"))
        kept = await w.id("main")
        before = {c.id for c in await w.runtime.list_containers()}
        await w.stop()
        await w.client.delete(POD, "default", "gone", grace_s=0)
        await w.start()
        await asyncio.sleep(10)
        after = {c.id for c in await w.runtime.list_containers()}
        assert len(after) == 1 and after < before
        assert w.state()["restartCount"] == 0 and w.ready()
        del kept

    simulate(body)


def test_a_deadline_ends_a_pod(simulate):
    """activeDeadlineSeconds makes the pod Failed with reason DeadlineExceeded."""

    async def body(w: World) -> None:
        await w.create("web", activeDeadlineSeconds=20)
        await w.until_running()
        await w.until(lambda: w.status().get("phase") == "Failed")
        assert w.status()["reason"] == "DeadlineExceeded"

    simulate(body)


def test_force_deletion_and_a_new_pod_of_the_same_name(simulate):
    """A pod that is deleted by force is ended; another of its name starts once the first is gone."""

    async def body(w: World) -> None:
        first = await w.create("web")
        await w.until_running()
        await w.client.delete(POD, "default", "web", grace_s=0)
        second = await w.create("web")
        await w.until_running()
        assert first["metadata"]["uid"] != second["metadata"]["uid"]
        await asyncio.sleep(5)
        assert {s.pod_uid for s in await w.runtime.list_pod_sandboxes()} == {second["metadata"]["uid"]}

    simulate(body)


def test_the_node_speaks(simulate):
    """The Lease is renewed every ten seconds, the status hardly ever; Ready follows the network."""

    async def body(w: World) -> None:
        node = w.api.get("nodes", "", "n1")
        assert node is not None and node["metadata"]["labels"]["kubernetes.io/os"] == "linux"
        w.api.requests.clear()
        await asyncio.sleep(100)
        renewals = [r for r in w.api.requests if "leases" in r[1]]
        reports = [r for r in w.api.requests if r[1].endswith("/nodes/n1/status")]
        assert 9 <= len(renewals) <= 12 and len(reports) <= 1
        assert len(w.api.requests) == len(renewals) + len(reports)
        w.runtime.network_ready = False

        def ready() -> str:
            found = w.api.get("nodes", "", "n1")
            assert found is not None
            return next(c["status"] for c in found["status"]["conditions"] if c["type"] == "Ready")

        await w.until(lambda: ready() == "False")

    simulate(body)


def test_a_pod_deleted_while_its_image_is_pulled(simulate):
    """Deletion does not wait for a pull."""

    async def body(w: World) -> None:
        w.runtime.pull_s = 1000
        await w.create("web", containers=[container("main", image="slow:1")])
        await asyncio.sleep(2)
        await w.client.delete(POD, "default", "web", grace_s=1)
        await w.until(lambda: w.api.get("pods", "default", "web") is None, 10)

    simulate(body)


def test_a_bug_in_one_pod_stays_with_it(simulate):
    """An error that nobody expected is told as an event and tried again; other pods are not touched."""

    async def body(w: World) -> None:
        files = w.host.files

        def broken(client: Client, sources: Any) -> Any:
            made = files(client, sources)
            made.make_log_folder = lambda pod, _container: 1 / (pod["metadata"]["name"] != "bad")
            return made

        w.host.files = broken  # type: ignore[method-assign]
        await w.create("bad")
        await w.create("good")
        await w.until_running("good")
        await w.until(lambda: w.reason("bad") == "CreateContainerError")
        assert any("ZeroDivisionError" in e["message"] for e in w.events("FailedSync"))
        await w.client.delete(POD, "default", "bad", grace_s=1)
        await w.until(lambda: w.api.get("pods", "default", "bad") is None)

    simulate(body)


@pytest.mark.parametrize("part", ["step", "next_wake"])
def test_a_pod_that_cannot_be_handled_stays_alone(simulate, monkeypatch, part):
    """The state machine fails on one pod: it is told as its event and tried again; others and the kubelet go on."""
    healthy = getattr(pod_machine, part)
    cured: list[bool] = []

    def broken(state: Any, *arguments: Any) -> Any:
        if state.pod["metadata"]["name"] == "bad" and not cured:
            raise ZeroDivisionError("told")
        return healthy(state, *arguments)

    async def body(w: World) -> None:
        monkeypatch.setattr(pod_machine, part, broken)
        await w.create("bad")
        await w.until(lambda: w.events("FailedSync"))
        assert "ZeroDivisionError: told" in w.events("FailedSync")[0]["message"]
        await w.create("good")
        await w.until_running("good")
        cured.append(True)
        await w.until_running("bad")
        assert w.running is not None and not w.running.done()

    simulate(body)


def test_a_status_that_cannot_be_made_is_tried_again(simulate, monkeypatch):
    """The publisher of one pod's status fails once: it does not stay silent for ever."""
    healthy = status_module.pod_status
    failed: list[bool] = []

    def broken(*arguments: Any) -> Any:
        if not failed:
            failed.append(True)
            raise ZeroDivisionError
        return healthy(*arguments)

    async def body(w: World) -> None:
        monkeypatch.setattr(status_module, "pod_status", broken)
        await w.create("web")
        await w.until_running()
        assert failed

    simulate(body)


def test_what_changes_while_pods_are_adopted_is_seen(simulate):
    """Pods that come and go while a starting kubelet asks the runtime about the others are neither lost nor kept."""

    async def body(w: World) -> None:
        await w.create("web")
        await w.create("gone")
        await w.until(lambda: w.ready("web") and w.ready("gone"))
        await w.stop()
        asked = w.runtime.container_status

        async def slow(container_id: str) -> cri.Container:
            if w.api.get("pods", "default", "new") is None:
                await w.create("new")
                await w.client.delete(POD, "default", "gone", grace_s=0)
                await asyncio.sleep(5)
            return await asked(container_id)

        w.runtime.container_status = slow  # type: ignore[method-assign]
        await w.start()
        await w.until_running("new")
        await asyncio.sleep(10)
        assert len(await w.runtime.list_containers()) == 2

    simulate(body)


def test_a_pod_that_begins_while_orphans_end_keeps_its_files(simulate):
    """What a gone pod left takes its time to end; the files of pods that came meanwhile are not taken for it."""

    async def body(w: World) -> None:
        await w.create("gone")
        await w.until_running("gone")
        await w.stop()
        await w.client.delete(POD, "default", "gone", grace_s=0)
        known: list[set[str]] = []
        stop, ending = w.runtime.stop_container, asyncio.Event()

        async def slow(container_id: str, timeout_s: float) -> None:
            ending.set()
            await asyncio.sleep(5)
            await stop(container_id, timeout_s)

        w.runtime.stop_container = slow  # type: ignore[method-assign]
        w.host.remove_orphans = known.append  # type: ignore[method-assign]
        await w.start()
        await ending.wait()
        made = await w.create("new")
        await asyncio.sleep(20)
        assert known == [{made["metadata"]["uid"]}]

    simulate(body)


def test_a_pod_costs_few_requests(simulate):
    """A pod costs the API server one status patch to come up, and one patch and one delete to go."""

    async def body(w: World) -> None:
        w.api.requests.clear()
        await w.create("web")
        await w.until_running()
        await asyncio.sleep(1)
        await w.client.delete(POD, "default", "web", grace_s=5)
        await w.until(lambda: w.api.get("pods", "default", "web") is None)
        asked = [method for method, path in w.api.requests if path.startswith("/api/v1/namespaces/default/pods/")]
        assert asked == ["PATCH", "DELETE", "PATCH", "DELETE"]

    simulate(body)


def test_a_full_disk_evicts(simulate):
    """While the disk is too full pods go, one at a time, as Failed with reason Evicted; then it stops."""

    async def body(w: World) -> None:
        await w.create("one")
        await w.create("two")
        await w.until(lambda: w.ready("one") and w.ready("two"))
        w.host.free_disk = 1 << 30

        def failed() -> list[str]:
            return [n for n in ("one", "two") if w.status(n).get("phase") == "Failed"]

        await w.until(failed, 200)
        w.host.free_disk = 50 << 30
        assert w.status(failed()[0])["reason"] == "Evicted"
        await asyncio.sleep(200)
        assert len(failed()) == 1

    simulate(body)
