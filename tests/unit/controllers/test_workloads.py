"""What controllers do together over a fake API, under virtual time."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.controllers.cluster import Cluster
from tests.unit.controllers.fake_api import FakeApi
from tests.unit.controllers.test_runtime import web
from tests.unit.controllers.worlds import SELECTOR, TEMPLATE

from k3s.api.kinds import REGISTRY
from k3s.api.object import Object
from k3s.controllers import daemonset, deployment, gc, job, job_ending, namespace, observers, replicaset, statefulset
from k3s.controllers.known import (
    CLAIM,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DAEMON_SET,
    DEPLOYMENT,
    JOB,
    NAMESPACE,
    NODE,
    POD,
    REPLICA_SET,
    STATEFUL_SET,
)
from k3s.controllers.spec import ControllerSpec
from k3s.sim import loop


def collector() -> tuple[ControllerSpec, ...]:
    owners = observers.Owners(REGISTRY)
    return gc.specs(REGISTRY, owners.look_up, owners.died)


def names(api: FakeApi, kind: object) -> list[str]:
    return sorted(obj["metadata"]["name"] for (k, _), obj in api.objects.items() if k is kind)


def node(name: str, **spec: object) -> Object:
    return {"metadata": {"name": name, "labels": {}}, "spec": spec, "status": {}}


def daemon(image: str = "a") -> Object:
    template = {**TEMPLATE, "spec": {"containers": [{"name": "c", "image": image}]}}
    return {"metadata": {"name": "agent", "namespace": "default"}, "spec": {"selector": SELECTOR, "template": template}}


def test_daemon_set_follows_nodes_and_template() -> None:
    """One pod a node, none on a tainted one; a new node gets one; a new template replaces them one by one."""

    async def main() -> None:
        api = FakeApi(1, lag_s=0.05)
        async with Cluster(api, daemonset.SPECS) as cluster:
            for name in ("a", "b"):
                api._create(NODE, node(name))
            api._create(NODE, node("t", taints=[{"key": "own", "effect": "NoSchedule"}]))
            api._create(DAEMON_SET, daemon())

            def status() -> Object:
                found: Object = api.objects[DAEMON_SET, "default/agent"].get("status", {})
                return found

            await cluster.until(lambda: status().get("numberAvailable") == 2)
            assert sorted(pod["spec"]["nodeName"] for pod in api.all(POD)) == ["a", "b"]
            api._create(NODE, node("c"))
            await cluster.until(lambda: status().get("numberAvailable") == 3)
            live = api.objects[DAEMON_SET, "default/agent"]
            meta = {**live["metadata"], "generation": 2}
            api.put(DAEMON_SET, {**live, "spec": daemon("b")["spec"], "metadata": meta})
            low = 3

            def done() -> bool:
                nonlocal low
                pods = [pod for pod in api.all(POD) if "deletionTimestamp" not in pod["metadata"] and pod.get("status")]
                low = min(low, len(pods))
                images = {pod["spec"]["containers"][0]["image"] for pod in api.all(POD)}
                return status().get("updatedNumberScheduled") == 3 and images == {"b"} and len(pods) == 3

            await cluster.until(done)
            assert low >= 2
            assert [rev["revision"] for rev in api.all(CONTROLLER_REVISION)] == [1, 2]
            assert sum(kind is POD for kind, _ in api.created) == 6

    loop.run(1, main())


def stateful(replicas: int, image: str = "a", **spec: object) -> Object:
    template = {**TEMPLATE, "spec": {"containers": [{"name": "c", "image": image}]}}
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    return {
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "selector": SELECTOR,
            "template": template,
            "volumeClaimTemplates": [claim],
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            **spec,
        },
    }


@pytest.mark.parametrize("seed", range(3))
def test_stateful_set_keeps_order_and_names(seed: int) -> None:
    """Pods come 0, 1, 2 each after the one before is ready; go 2, 1; roll from the top; claims stay."""

    async def main() -> None:
        api = FakeApi(seed, lag_s=0.05, refuse=0.02, lose=0.02)
        async with Cluster(api, statefulset.SPECS) as cluster:
            api._create(STATEFUL_SET, stateful(3))

            def status() -> Object:
                found: Object = api.objects[STATEFUL_SET, "default/db"].get("status", {})
                return found

            await cluster.until(lambda: status().get("availableReplicas") == 3)
            assert [key for kind, key in api.created if kind is POD] == [f"default/db-{n}" for n in range(3)]
            assert names(api, CLAIM) == ["data-db-0", "data-db-1", "data-db-2"]
            pod = api.objects[POD, "default/db-1"]
            assert pod["spec"]["hostname"] == "db-1" and pod["spec"]["subdomain"] == "db"
            assert pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "1"
            live = api.objects[STATEFUL_SET, "default/db"]
            api.put(
                STATEFUL_SET,
                {**live, "spec": stateful(2, "b")["spec"], "metadata": {**live["metadata"], "generation": 2}},
            )
            await cluster.until(
                lambda: (
                    names(api, POD) == ["db-0", "db-1"]
                    and {p["spec"]["containers"][0]["image"] for p in api.all(POD)} == {"b"}
                    and status().get("updatedReplicas") == 2
                    and status()["currentRevision"] == status()["updateRevision"]
                )
            )
            assert [key for kind, key in api.created if kind is POD][3:] == ["default/db-1", "default/db-0"]
            assert len(names(api, CLAIM)) == 3

    loop.run(seed, main())


def work(**spec: object) -> Object:
    labels = {"batch.kubernetes.io/job-name": "work"}
    template = {"metadata": {"labels": labels}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}
    return {
        "metadata": {"name": "work", "namespace": "default"},
        "spec": {
            "parallelism": 2,
            "completions": 5,
            "backoffLimit": 6,
            "selector": {"matchLabels": labels},
            "template": template,
            **spec,
        },
    }


def conditions(api: FakeApi) -> list[str]:
    found = api.objects[JOB, "default/work"].get("status", {}).get("conditions") or []
    return [c["type"] for c in found if c["status"] == "True"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("mode", ["NonIndexed", "Indexed"])
def test_job_counts_each_success_once(seed: int, mode: str) -> None:
    """Five completions, two at a time, over lag and lost replies: exactly five pods, all counted, none held."""

    async def main() -> None:
        api = FakeApi(seed, lag_s=0.1, refuse=0.03, lose=0.03)
        async with Cluster(api, job.SPECS) as cluster:
            cluster.outcome = lambda pod: "Succeeded"
            api._create(JOB, work(completionMode=mode))
            await cluster.until(lambda: "Complete" in conditions(api))
            status = api.objects[JOB, "default/work"]["status"]
            assert status["succeeded"] == 5 and "failed" not in status and status["uncountedTerminatedPods"] == {}
            assert conditions(api) == ["SuccessCriteriaMet", "Complete"]
            assert sum(kind is POD for kind, _ in api.created) == 5
            assert not any(pod["metadata"].get("finalizers") for pod in api.all(POD))
            if mode == "Indexed":
                assert status["completedIndexes"] == "0-4"

    loop.run(seed, main())


def test_job_fails_after_its_limit() -> None:
    """With backoffLimit 2 three pods fail, each later than the one before; then the Job is Failed."""

    async def main() -> None:
        api = FakeApi()
        async with Cluster(api, job.SPECS) as cluster:
            cluster.outcome = lambda pod: "Failed"
            api._create(JOB, work(parallelism=1, completions=1, backoffLimit=2))
            await cluster.until(lambda: "Failed" in conditions(api))
            assert conditions(api) == ["FailureTarget", "Failed"]
            assert api.objects[JOB, "default/work"]["status"]["failed"] == 3
            assert asyncio.get_running_loop().time() >= 30 - 1

    loop.run(3, main())


def test_job_suspended_deadline_and_ttl() -> None:
    """Suspending takes pods back uncounted; resumed, the deadline ends the Job; after its time to live it is gone."""

    async def main() -> None:
        api = FakeApi()
        async with Cluster(api, (*job.SPECS, *job_ending.SPECS, *collector())) as cluster:
            api._create(JOB, work(activeDeadlineSeconds=60, ttlSecondsAfterFinished=100))
            await cluster.until(lambda: api.objects[JOB, "default/work"].get("status", {}).get("ready") == 2)
            live = api.objects[JOB, "default/work"]
            api.put(JOB, {**live, "spec": {**live["spec"], "suspend": True}})
            await cluster.until(lambda: not api.all(POD) and conditions(api) == ["Suspended"])
            live = api.objects[JOB, "default/work"]
            assert "failed" not in live["status"] and "startTime" not in live["status"]
            await asyncio.sleep(120)
            api.put(JOB, {**live, "spec": {**live["spec"], "suspend": False}})
            await cluster.until(lambda: "Failed" in conditions(api))
            reasons = [c["reason"] for c in api.objects[JOB, "default/work"]["status"]["conditions"]]
            assert "DeadlineExceeded" in reasons
            await cluster.until(lambda: not api.all(JOB) and not api.all(POD))

    loop.run(4, main())


@pytest.mark.parametrize("policy", ["Background", "Foreground", "Orphan"])
def test_garbage_collection(policy: str) -> None:
    """A Deployment takes its sets and pods along, after them in the foreground; orphans stay and forget it."""

    async def main() -> None:
        api = FakeApi(2, lag_s=0.05)
        async with Cluster(api, (*deployment.SPECS, *replicaset.SPECS, *collector())) as cluster:
            api._create(DEPLOYMENT, web(3))
            await cluster.until(
                lambda: api.objects[DEPLOYMENT, "default/web"].get("status", {}).get("availableReplicas") == 3
            )
            order: list[str] = []
            api._delete(DEPLOYMENT, api.objects[DEPLOYMENT, "default/web"], {"propagationPolicy": policy})
            if policy == "Orphan":
                await cluster.until(lambda: not api.all(DEPLOYMENT))
                await asyncio.sleep(60)
                assert "ownerReferences" not in api.all(REPLICA_SET)[0]["metadata"]
                assert len(api.all(POD)) == 3
                return
            await cluster.until(lambda: not api.all(POD) and not api.all(REPLICA_SET) and not api.all(DEPLOYMENT))
            order = [kind.kind for _, kind, event in api.log if event.type == "DELETED"]
            if policy == "Foreground":
                assert order == ["Pod", "Pod", "Pod", "ReplicaSet", "Deployment"]
            else:
                assert order[:2] == ["Deployment", "ReplicaSet"]

    loop.run(5, main())


def test_owner_that_never_was() -> None:
    """An object whose owner does not exist is deleted, after asking the server for the owner by uid."""

    async def main() -> None:
        api = FakeApi()
        ref = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": "gone"}
        async with Cluster(api, collector()) as cluster:
            api._create(CONFIG_MAP, {"metadata": {"name": "owner", "namespace": "default"}})
            api._create(CONFIG_MAP, {"metadata": {"name": "left", "namespace": "default", "ownerReferences": [ref]}})
            await cluster.until(lambda: names(api, CONFIG_MAP) == ["owner"])
            assert "GET /api/v1/namespaces/default/configmaps/owner" in api.requests

    loop.run(6, main())


def test_namespace_goes_with_everything_in_it() -> None:
    """Contents of every kind are deleted, the conditions tell why it takes time, then the namespace is let go."""

    async def main() -> None:
        api = FakeApi(7, lag_s=0.05)
        specs = (*namespace.specs(observers.contents(REGISTRY)), *deployment.SPECS, *replicaset.SPECS, *collector())
        async with Cluster(api, specs) as cluster:
            space = {"metadata": {"name": "default"}, "spec": {"finalizers": ["kubernetes"]}}
            api._create(NAMESPACE, space)
            api._create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "default"}})
            api._create(DEPLOYMENT, web(3))
            await cluster.until(
                lambda: api.objects[DEPLOYMENT, "default/web"].get("status", {}).get("availableReplicas") == 3
            )
            api._delete(NAMESPACE, api.objects[NAMESPACE, "default"], {})
            await cluster.until(lambda: not api.all(NAMESPACE))
            kinds = {kind for (kind, key) in api.objects if key.startswith("default/")}
            assert {kind.kind for kind in kinds} <= {"Event"}

    loop.run(7, main())
