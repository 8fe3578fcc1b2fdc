"""The scheduler over the real API server in memory: what odd objects, failures and preemption do to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.unit.controllers.test_with_api_server import EPOCH, Plane

from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver import identity
from k3s.base.clock import LoopClock
from k3s.base.entropy import SeededEntropy
from k3s.base.metrics import Registry
from k3s.client.recorder import Recorder
from k3s.scheduler import service
from k3s.scheduler.place import place
from k3s.scheduler.service import Scheduler
from k3s.sim import loop

POD, NODE, EVENT = builtin("v1", "Pod"), builtin("v1", "Node"), builtin("v1", "Event")
PRIORITY = builtin("scheduling.k8s.io/v1", "PriorityClass")


class World(Plane):
    """An API server and a scheduler; nobody runs what is placed."""

    async def __aenter__(self) -> World:
        await self.store.open()
        await self.api.load()
        client = self.client(identity.authenticated("system:kube-scheduler"))
        recorder = Recorder(client, service.NAME, LoopClock(EPOCH), SeededEntropy(2))
        self.scheduler = Scheduler(client, self.informers.of, LoopClock(EPOCH), recorder, self.story, Registry())
        synced, ready = asyncio.Event(), asyncio.Event()
        self.tasks.spawn(self.informers.run(synced.set), "informers")
        await synced.wait()
        self.tasks.spawn(recorder.run(), "events")
        self.tasks.spawn(self.scheduler.run(ready.set), "scheduler")
        await ready.wait()
        for kind in (POD, EVENT):
            self.informers.of(kind).subscribe(lambda key, old, new: self.changed.set())
        for name in ("default", "kube-system"):
            meta = {"name": name}
            if self.cache.get(builtin("v1", "Namespace"), "", name) is None:
                await self.root.create(builtin("v1", "Namespace"), {"metadata": meta})
            account = {"metadata": {"name": "default", "namespace": name}}
            await self.root.create(builtin("v1", "ServiceAccount"), account)
        return self

    async def node(self, name: str, cpu: str = "4", **more: Any) -> None:
        await self.root.create(NODE, {"metadata": {"name": name}, **more})
        amounts = {"cpu": cpu, "memory": "8Gi", "pods": "110"}
        status = {"status": {"capacity": amounts, "allocatable": amounts}}
        await self.root.patch(NODE, "", name, status, subresource="status")
        await self.root.patch(NODE, "", name, {"spec": {"taints": None}})

    async def pod(self, name: str, cpu: str = "", labels: Object | None = None, **spec: Any) -> Object:
        container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu} if cpu else {}}}
        meta = {"name": name, "namespace": "default", "labels": labels}
        return await self.root.create(POD, {"metadata": meta, "spec": {"containers": [container], **spec}})

    def get(self, name: str) -> Object:
        found = self.cache.get(POD, "default", name)
        return found or {"spec": {}, "status": {}}

    def told(self) -> set[tuple[str, str]]:
        """Reason and pod of each event."""
        return {(e["reason"], e["involvedObject"]["name"]) for e in self.informers.of(EVENT).values()}

    def where(self, name: str) -> str:
        return str(self.get(name)["spec"].get("nodeName", ""))

    def why(self, name: str) -> str:
        """The message of the pod's condition PodScheduled."""
        conditions = self.get(name)["status"].get("conditions") or ()
        return next((c["message"] for c in conditions if c["type"] == "PodScheduled" and c.get("message")), "")

    async def classes(self) -> None:
        for name, value in (("low", 10), ("high", 1000)):
            await self.root.create(PRIORITY, {"metadata": {"name": name}, "value": value})


Body = Callable[[World], Coroutine[Any, Any, None]]


@pytest.fixture
def simulate() -> Callable[[Body], None]:
    """Runs `body(world)` under virtual time."""

    def go(body: Body) -> None:
        async def main() -> None:
            async with World() as world:
                await body(world)

        loop.run(1, main())

    return go


ODD: list[Object] = [
    {"tolerations": None, "nodeSelector": None, "affinity": None, "topologySpreadConstraints": None, "volumes": None},
    {"tolerations": [{"operator": "Exists"}], "priority": None, "overhead": None, "schedulingGates": None},
    {"affinity": {"podAffinity": {}, "podAntiAffinity": None, "nodeAffinity": {}}},
    {
        "topologySpreadConstraints": [
            {"maxSkew": 2147483647, "topologyKey": "no/such", "whenUnsatisfiable": "ScheduleAnyway"},
        ]
    },
    {
        "affinity": {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "no.such/key"}],
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 100, "podAffinityTerm": {"topologyKey": "x", "namespaceSelector": {}}}
                ],
            }
        }
    },
]


@pytest.mark.parametrize("spec", ODD)
def test_odd_pods_are_placed_like_others(simulate, spec: Object) -> None:
    """Nulls, empty parts and unknown topology keys are no reason against a node."""

    async def body(w: World) -> None:
        await w.node("a")
        await w.pod("odd", labels={"x": "y"}, **spec)
        await w.pod("plain")
        await w.until(lambda: w.where("odd") == w.where("plain") == "a")

    simulate(body)


def test_a_huge_request_harms_only_itself(simulate) -> None:
    """Amounts beyond all numbers, on a pod that is put on its node by hand too, leave the others placeable."""

    async def body(w: World) -> None:
        await w.node("a")
        await w.node("b")
        huge = "9" * 400 + "e250"
        await w.pod("bound", huge, nodeName="a")
        await w.pod("waits", huge)
        await w.until(lambda: "2 Insufficient cpu" in w.why("waits"))
        await w.pod("plain")
        await w.pod("asks", "1")
        await w.until(lambda: bool(w.where("plain")) and w.where("asks") == "b")

    simulate(body)


def test_a_node_without_a_status_takes_nothing_and_harms_nothing(simulate) -> None:
    """Nodes are judged by what they say they have."""

    async def body(w: World) -> None:
        await w.root.create(NODE, {"metadata": {"name": "bare"}})
        await w.node("a")
        await w.pod("plain")
        await w.until(lambda: w.where("plain") == "a")

    simulate(body)


def test_a_pod_that_cannot_be_judged_does_not_stop_the_others(simulate, monkeypatch, caplog) -> None:
    """A bug that one pod meets is logged and told as its event; it is tried again later, the others at once."""

    tried: list[str] = []

    def broken(pod: Any, *arguments: Any) -> Any:
        tried.append(pod.key)
        if pod.key == "default/bad" and len(tried) < 3:
            raise ZeroDivisionError
        return place(pod, *arguments)

    async def body(w: World) -> None:
        monkeypatch.setattr(service, "place", broken)
        await w.node("a")
        await w.pod("bad")
        await w.pod("good")
        await w.until(lambda: w.where("good") == "a")
        await w.node("b")
        await w.until(lambda: bool(w.where("bad")))
        events = w.all(builtin("v1", "Event"), "default")
        assert any(e["involvedObject"]["name"] == "bad" and "ZeroDivisionError" in e["message"] for e in events)
        assert tried.count("default/bad") == 2

    simulate(body)
    assert "Cannot judge pod" in caplog.text


def test_preemption_waits_for_its_victims_and_keeps_their_room(simulate) -> None:
    """Only one node is cleared, and what it frees is not given to a pod that matters less."""

    async def body(w: World) -> None:
        await w.classes()
        for name in ("a", "b"):
            await w.node(name, "1")
            await w.pod(f"low-{name}", "1", nodeName=name, priorityClassName="low", terminationGracePeriodSeconds=30)
        await w.pod("high", "1", priorityClassName="high")
        await w.until(lambda: bool(w.get("high")["status"].get("nominatedNodeName")))
        chosen = w.get("high")["status"]["nominatedNodeName"]
        await w.until(lambda: "deletionTimestamp" in w.get(f"low-{chosen}")["metadata"])
        await w.pod("later", "1", priorityClassName="low")
        # Something moves the queue while the victim ends.
        for number in range(5):
            await w.root.patch(NODE, "", chosen, {"metadata": {"labels": {"turn": str(number)}}})
            await asyncio.sleep(5)
        kept = "b" if chosen == "a" else "a"
        assert "deletionTimestamp" not in w.get(f"low-{kept}")["metadata"]
        assert "not eligible due to a terminating pod on the nominated node" in w.why("high")
        await w.root.delete(POD, "default", f"low-{chosen}", grace_s=0)
        await w.until(lambda: w.where("high") == chosen)
        assert w.where("later") == ""

    simulate(body)


def test_labels_of_a_waiting_pod_count_where_terms_ask_for_them(simulate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new label tries a pod again that asks for neighbours by labels, and no other one."""
    tried: list[str] = []

    def counting(pod, *more: Any) -> Any:
        tried.append(pod.obj["metadata"]["name"])
        return place(pod, *more)

    monkeypatch.setattr(service, "place", counting)
    term = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"tier": "web"}}}
    beside = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}

    async def body(w: World) -> None:
        await w.node("a")
        await w.root.patch(NODE, "", "a", {"metadata": {"labels": {"zone": "z"}}})
        await w.pod("plain", nodeSelector={"no": "such"})
        await w.pod("friend", affinity=beside)
        await w.until(lambda: bool(w.why("plain") and w.why("friend")))
        before = tried.count("plain")
        for name in ("plain", "friend"):
            await w.root.patch(POD, "default", name, {"metadata": {"labels": {"tier": "web"}}})
        await w.until(lambda: w.where("friend") == "a")
        assert tried.count("plain") == before

    simulate(body)


def test_a_burst_of_pods_that_fit_no_node_is_told_of_when_it_is_over(simulate) -> None:
    """Requests go first; then each pod has its condition and its event, and none is lost."""
    names = [f"p{i}" for i in range(1200)]

    async def body(w: World) -> None:
        for name in names:
            await w.pod(name)
        assert not any(w.why(name) for name in names)
        await w.until(lambda: all(w.why(name) for name in names))
        await w.until(lambda: w.told() == {("FailedScheduling", name) for name in names})

    simulate(body)


def test_a_pod_placed_before_it_is_told_of_keeps_its_status(simulate) -> None:
    """The failed attempt becomes an event, but no condition that is wrong by now."""

    async def body(w: World) -> None:
        await w.pod("late")
        await asyncio.sleep(0.01)
        await w.node("a")
        await w.until(lambda: w.where("late") == "a")
        await w.until(lambda: w.told() == {("FailedScheduling", "late"), ("Scheduled", "late")})
        assert not w.why("late")

    simulate(body)
