"""The runner: a Deployment under lag and faults never makes more pods than it needs."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.controllers.cluster import Cluster
from tests.unit.controllers.fake_api import FakeApi

from k3s.api.object import Object, evolve
from k3s.base.clock import LoopClock
from k3s.base.entropy import SeededEntropy
from k3s.client.client import Client
from k3s.controllers import deployment, replicaset
from k3s.controllers.actions import Decision
from k3s.controllers.informers import Informers
from k3s.controllers.known import DEPLOYMENT, EVENT, POD, REPLICA_SET
from k3s.controllers.spec import ControllerSpec
from k3s.controllers.world import World
from k3s.sim import loop


def web(replicas: int, image: str = "a") -> Object:
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    }


SPECS = (*deployment.SPECS, *replicaset.SPECS)


def available(api: FakeApi) -> int:
    obj = api.objects.get((DEPLOYMENT, "default/web"))
    return obj.get("status", {}).get("availableReplicas", 0) if obj else 0


async def scale(cluster: Cluster, replicas: int) -> None:
    obj = cluster.api.objects[DEPLOYMENT, "default/web"]
    meta = {**obj["metadata"], "generation": obj["metadata"]["generation"] + 1}
    cluster.api.put(DEPLOYMENT, {**evolve(obj, ("spec", "replicas"), replicas), "metadata": meta})


async def five_eight_two(seed: int, refuse: float, lose: float) -> int:
    api = FakeApi(seed, lag_s=0.2, refuse=refuse, lose=lose)
    async with Cluster(api, SPECS) as cluster:
        api._create(DEPLOYMENT, web(5))
        for replicas in (5, 8, 2):
            if replicas != 5:
                await scale(cluster, replicas)
            await cluster.until(lambda replicas=replicas: available(api) == replicas == len(api.all(POD)))
    return sum(1 for kind, _ in api.created if kind is POD)


@pytest.mark.parametrize("seed", range(10))
def test_scaling_makes_exactly_the_pods_that_are_needed(seed: int) -> None:
    """5, then 8, then 2 replicas: 8 pods are ever made, however late the caches are."""
    assert loop.run(seed, five_eight_two(seed, 0, 0)) == 8


@pytest.mark.parametrize("seed", range(10))
def test_scaling_with_refused_requests_and_lost_replies(seed: int) -> None:
    """The same when requests fail and replies are lost: an unknown outcome is looked at before acting again."""
    assert loop.run(seed, five_eight_two(seed, 0.05, 0.03)) == 8


def test_a_settled_deployment_is_silent() -> None:
    """When everything is as wanted no request is sent any more, for an hour (only the progress deadline may look)."""

    async def main() -> list[str]:
        api = FakeApi()
        async with Cluster(api, SPECS) as cluster:
            api._create(DEPLOYMENT, web(3))
            await cluster.until(lambda: available(api) == 3)
            await asyncio.sleep(30)
            api.requests.clear()
            await asyncio.sleep(3600)
            return api.requests

    assert loop.run(1, main()) == []


def test_rolling_update_keeps_to_its_bounds() -> None:
    """A new template replaces all pods; at no time are there fewer than 3 ready or more than 5 wanted pods of 4."""

    async def main() -> None:
        api = FakeApi(3, lag_s=0.05)
        async with Cluster(api, SPECS) as cluster:
            api._create(DEPLOYMENT, web(4))
            await cluster.until(lambda: available(api) == 4)
            obj = api.objects[DEPLOYMENT, "default/web"]
            template = web(4, "b")["spec"]["template"]
            meta = {**obj["metadata"], "generation": 2}
            api.put(DEPLOYMENT, {**evolve(obj, ("spec", "template"), template), "metadata": meta})
            seen: list[tuple[int, int]] = []

            def done() -> bool:
                active = [pod for pod in api.all(POD) if "deletionTimestamp" not in pod["metadata"]]
                ready = [pod for pod in active if pod.get("status")]
                seen.append((len(ready), len(active)))
                images = {pod["spec"]["containers"][0]["image"] for pod in api.all(POD)}
                return images == {"b"} and available(api) == 4 and len(active) == 4

            await cluster.until(done)
            assert min(ready for ready, _ in seen) >= 3
            assert max(active for _, active in seen) <= 5
            revisions = [
                rs["metadata"]["annotations"]["deployment.kubernetes.io/revision"] for rs in api.all(REPLICA_SET)
            ]
            assert sorted(revisions) == ["1", "2"]
            reason = {c["type"]: c["reason"] for c in api.objects[DEPLOYMENT, "default/web"]["status"]["conditions"]}
            await cluster.until(lambda: any(e["reason"] == "SuccessfulCreate" for e in api.all(EVENT)))
            assert reason["Progressing"] in ("NewReplicaSetAvailable", "ReplicaSetUpdated")

    loop.run(2, main())


def test_an_error_that_nobody_expected_is_tried_again() -> None:
    """A bug in looking at or carrying out a decision is logged, and its key is not forgotten until the next change."""
    looked: list[str] = []

    async def observe(key: str, world: World, client: Client) -> None:
        looked.append(key)
        if len(looked) < 3:
            raise KeyError(key)

    def decide(key: str, world: World, now: float) -> Decision:
        return Decision()

    async def main() -> None:
        api = FakeApi()
        spec = ControllerSpec("odd", decide, observe=observe, start_keys=("a",))
        async with Cluster(api, (spec,)):
            await asyncio.sleep(60)

    loop.run(1, main())
    assert looked == ["a", "a", "a"]


def test_nobody_waits_for_a_kind_that_is_forgotten() -> None:
    """A custom kind may go while a controller waits for what it wrote there: its keys must not hang for ever."""

    async def main() -> None:
        informers = Informers(Client(FakeApi()), LoopClock(0.0), SeededEntropy(1))
        informer = informers.of(POD)
        informer.objects["default/a"] = {"metadata": {"name": "a", "namespace": "default", "uid": "u"}}
        waiting = asyncio.gather(informers.synced(POD), informer.wait_seen(100), informers.gone(POD, "default/a", "u"))
        await asyncio.sleep(1)
        assert not waiting.done()
        informers.forget(POD)
        await asyncio.wait_for(waiting, 1)
        await informers.synced(POD)

    loop.run(1, main())
