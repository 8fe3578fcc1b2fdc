"""Where pods go, told in the words of the domain: nodes, pods, and the answer."""

from __future__ import annotations

from typing import Any

import pytest

from k3s.api.object import Object
from k3s.scheduler.place import Answer, Bind, Preempt, Unschedulable, place
from k3s.scheduler.snapshot import NodeFacts, PodFacts, Snapshot, pod_requests


def node(name: str, cpu: str = "4", memory: str = "8Gi", pods: str = "110", **more: Any) -> Object:
    labels = {"kubernetes.io/hostname": name, **more.pop("labels", {})}
    spec = {k: more.pop(k) for k in ("taints", "unschedulable") if k in more}
    status = {"allocatable": {"cpu": cpu, "memory": memory, "pods": pods, **more.pop("extended", {})}, **more}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}


def pod(name: str, cpu: str = "", labels: dict[str, str] | None = None, **spec: Any) -> PodFacts:
    requests = {"cpu": cpu} if cpu else {}
    container = {"name": "c", "image": "i", "resources": {"requests": requests}, "ports": spec.pop("ports", [])}
    return PodFacts(
        {
            "metadata": {"name": name, "namespace": "default", "uid": name, "labels": labels or {}},
            "spec": {"containers": [container], **spec},
        }
    )


def snapshot(*nodes: Object, **placed: list[PodFacts]) -> Snapshot:
    shot = Snapshot()
    for each in nodes:
        shot = shot.with_node(each)
    for name, pods in placed.items():
        for each_pod in pods:
            shot = shot.with_pod(name, each_pod)
    return shot


def answer(wanted: PodFacts, shot: Snapshot) -> Answer:
    return place(wanted, shot, {})


def why(wanted: PodFacts, shot: Snapshot) -> str:
    found = answer(wanted, shot)
    assert isinstance(found, Unschedulable), found
    return found.message


def test_the_emptier_node_wins() -> None:
    """LeastAllocated: of two nodes that fit, the one with more room is taken."""
    assert answer(pod("p", "1"), snapshot(node("a"), node("b"), a=[pod("x", "2")])) == Bind("b")


def test_no_nodes() -> None:
    """An empty cluster says so."""
    assert why(pod("p"), Snapshot()) == "no nodes available to schedule pods"


def test_insufficient_resources_are_counted_by_reason() -> None:
    """The message counts nodes by reason, as upstream words it."""
    shot = snapshot(node("a", cpu="1"), node("b", pods="0"), node("c", cpu="1"))
    assert why(pod("p", "2"), shot).startswith("0/3 nodes are available: 1 Too many pods, 2 Insufficient cpu.")


def test_extended_resources() -> None:
    """A resource that a node does not have is insufficient there."""
    wanted = PodFacts(
        {
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]},
        }
    )
    assert "Insufficient example.com/gpu" in why(wanted, snapshot(node("a")))
    assert answer(wanted, snapshot(node("a", extended={"example.com/gpu": "1"}))) == Bind("a")


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        (None, False),
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "value": "v", "effect": "NoSchedule"}, True),
        ({"key": "k", "value": "other"}, False),
        ({"operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
    ],
)
def test_taints(toleration: Object | None, fits: bool) -> None:
    """NoSchedule keeps away pods that do not tolerate it."""
    shot = snapshot(node("a", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}]))
    wanted = pod("p", tolerations=[toleration] if toleration else [])
    if fits:
        assert answer(wanted, shot) == Bind("a")
    else:
        assert "1 node(s) had untolerated taint {k: v}" in why(wanted, shot)


def test_cordoned_node() -> None:
    """kubectl cordon keeps pods away."""
    assert "1 node(s) were unschedulable" in why(pod("p"), snapshot(node("a", unschedulable=True)))


@pytest.mark.parametrize(
    ("operator", "values", "fits"),
    [
        ("In", ["ssd"], True),
        ("NotIn", ["ssd"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
        ("In", ["hdd"], False),
    ],
)
def test_node_affinity(operator: str, values: list[str], fits: bool) -> None:
    """Required node affinity, operator by operator."""
    term = {"matchExpressions": [{"key": "disk", "operator": operator, "values": values}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    wanted = pod("p", affinity={"nodeAffinity": required})
    shot = snapshot(node("a", labels={"disk": "ssd"}))
    assert isinstance(answer(wanted, shot), Bind) == fits


def test_node_selector_and_preferred_affinity() -> None:
    """nodeSelector decides, preference breaks ties."""
    shot = snapshot(node("a", labels={"z": "1"}), node("b", labels={"z": "1", "good": "y"}), node("c"))
    term = {"weight": 10, "preference": {"matchExpressions": [{"key": "good", "operator": "Exists"}]}}
    preferred = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}}
    assert answer(pod("p", nodeSelector={"z": "1"}, affinity=preferred), shot) == Bind("b")


def test_host_ports_clash() -> None:
    """Two pods cannot take one host port of a node; another address of it is free."""
    taken = pod("x", ports=[{"hostPort": 80, "hostIP": "10.0.0.1"}])
    shot = snapshot(node("a"), a=[taken])
    assert "free ports" in why(pod("p", ports=[{"hostPort": 80}]), shot)
    assert answer(pod("p", ports=[{"hostPort": 80, "hostIP": "10.0.0.2"}]), shot) == Bind("a")
    assert answer(pod("p", ports=[{"hostPort": 80, "hostIP": "10.0.0.1", "protocol": "UDP"}]), shot) == Bind("a")


def test_hard_topology_spread() -> None:
    """maxSkew 1 over zones: the zone with fewer matching pods is the only one left."""
    zones = (node("a", labels={"zone": "1"}), node("b", labels={"zone": "2"}))
    spread = {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "x"}},
    }
    wanted = pod("p", labels={"app": "x"}, topologySpreadConstraints=[spread])
    one = pod("o", labels={"app": "x"})
    assert answer(wanted, snapshot(*zones, a=[one])) == Bind("b")
    full = snapshot(zones[0], node("b", cpu="0", labels={"zone": "2"}), a=[one])
    needy = pod("p", "1", labels={"app": "x"}, topologySpreadConstraints=[spread])
    assert "1 node(s) didn't match pod topology spread constraints" in why(needy, full)


ANTI = {
    "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}
        ]
    }
}


def test_anti_affinity_works_both_ways() -> None:
    """A pod avoids those it is averse to, and those that are averse to it."""
    averse = pod("averse", labels={"app": "x"}, affinity=ANTI)
    plain = pod("plain", labels={"app": "x"})
    assert "anti-affinity rules" in why(averse, snapshot(node("a"), a=[plain]))
    assert "existing pods anti-affinity" in why(plain, snapshot(node("a"), a=[averse]))
    assert answer(averse, snapshot(node("a"), node("b"), a=[plain])) == Bind("b")


def test_affinity_follows_and_the_first_of_a_series_may_start() -> None:
    """Required affinity goes where its peers are; a pod that selects itself may be the first."""
    term = {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}
    affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    peer, follower = pod("peer", labels={"app": "x"}), pod("p", affinity=affinity)
    assert answer(follower, snapshot(node("a"), node("b"), b=[peer])) == Bind("b")
    assert "pod affinity rules" in why(follower, snapshot(node("a")))
    assert answer(pod("p", labels={"app": "x"}, affinity=affinity), snapshot(node("a"))) == Bind("a")


def test_preemption_evicts_the_least_important() -> None:
    """A pod of high priority names the victims whose loss hurts least."""
    low, mid = pod("low", "2", priority=1), pod("mid", "2", priority=5)
    shot = snapshot(node("a"), node("b"), a=[low, pod("l2", "2", priority=9)], b=[mid, pod("m2", "2", priority=9)])
    found = answer(pod("p", "2", priority=10), shot)
    assert isinstance(found, Preempt)
    assert (found.node, [v.key for v in found.victims]) == ("a", ["default/low"])


def test_preemption_says_when_it_cannot_help() -> None:
    """Taints and selectors are not cured by evicting, and preemptionPolicy Never is honoured."""
    shot = snapshot(node("a"), a=[pod("low", "4", priority=1)])
    assert "preemption: 0/1 nodes are available: 1 Preemption is not helpful" in why(
        pod("p", "1", priority=9, nodeSelector={"x": "y"}), shot
    )
    assert "not helpful" in why(pod("p", "1", priority=9, preemptionPolicy="Never"), shot)
    assert "1 No preemption victims found for incoming pod" in why(pod("p", "1"), shot)


def test_requests_of_sidecars_and_init_containers() -> None:
    """KEP-753: the larger of init and main, sidecars counted with both."""

    def with_cpu(cpu: str, **more: str) -> Object:
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    spec = {
        "initContainers": [with_cpu("1", restartPolicy="Always"), with_cpu("3")],
        "containers": [with_cpu("2")],
        "overhead": {"cpu": "100m"},
    }
    assert pod_requests(spec) == {"cpu": 4100}


def test_snapshots_are_values() -> None:
    """Assuming and forgetting leave the older snapshot as it was; pods may come before their node."""
    empty = snapshot(node("a"))
    full = empty.with_pod("a", pod("p", "1"))
    assert empty.nodes["a"].requested == {}
    assert full.nodes["a"].requested == {"cpu": 1000}
    assert full.without_pod("a", "default/p").nodes["a"].requested == {}
    early = Snapshot().with_pod("late", pod("p", "1")).with_node(node("late"))
    assert early.nodes["late"].requested == {"cpu": 1000}
    assert early.without_node("late").with_node(node("late")).nodes["late"].pods.keys() == {"default/p"}
    assert isinstance(early.nodes["late"], NodeFacts)
