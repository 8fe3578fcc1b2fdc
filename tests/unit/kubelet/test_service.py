"""A whole kubelet on a fake machine with a fake runtime, under virtual time: what pods go through."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

from tests.unit.kubelet.kubelet_world import CONFIG_MAP, POD, World, container

from k3s.kubelet.runtime import interface as cri
from k3s.kubelet.runtime.interface import ExecResult


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
