"""Node health, eviction, pod networks and lost pods, one state at a time."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from tests.unit.controllers.worlds import SELECTOR, flat, meta, node, pod, world_of

from k3s.api import nodeselectors, taints, times
from k3s.api.object import Object
from k3s.controllers import daemonset, node_ipam, node_lifecycle, nodes, podgc
from k3s.controllers.actions import Delete, Emit, Patch, Update

NOW = times.parse("2026-01-01T01:00:00Z")


def keys(actions: list[Any]) -> list[tuple[str, str]]:
    """The taints that a patch sets."""
    found = next(action.patch["spec"]["taints"] for action in actions if isinstance(action, Patch))
    return [(taint["key"].partition("/")[2], taint["effect"]) for taint in found or ()]


@pytest.mark.parametrize(
    ("ready", "others", "expected"),
    [
        ("False", "True", [("not-ready", "NoSchedule"), ("not-ready", "NoExecute")]),
        ("Unknown", "True", [("unreachable", "NoSchedule"), ("unreachable", "NoExecute")]),
        ("Unknown", "Unknown", [("unreachable", "NoSchedule")]),
    ],
)
def test_conditions_become_taints(ready: str, others: str, expected: list[tuple[str, str]]) -> None:
    """Not ready and unreachable nodes are tainted; when no node is ready nobody is evicted."""
    actions = flat(node_lifecycle.decide("a", world_of(node("a", ready), node("b", others)), NOW))
    assert keys(actions) == expected


def test_taints_go_with_their_condition_and_others_stay() -> None:
    """A taint of ours without its condition is removed, one of the user's is kept; cordoning is a taint too."""
    own = {"key": "team", "value": "a", "effect": "NoSchedule"}
    stale = {"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}
    found = node("a", taints=[own, stale], unschedulable=True)
    actions = flat(node_lifecycle.decide("a", world_of(found), NOW))
    assert keys(actions) == [("", "NoSchedule"), ("unschedulable", "NoSchedule")]


def lease(renewed: str) -> Object:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": meta("a", "kube-node-lease"),
        "spec": {"renewTime": renewed},
    }


def test_a_lease_without_a_spec_is_no_sign_of_life() -> None:
    """The API takes such a Lease; its node is judged all the same."""
    bare = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta("a", "kube-node-lease")}
    assert node_lifecycle.decide("a", world_of(node("a"), bare), NOW).requeue_after_s is not None


def test_silence_makes_a_node_unknown() -> None:
    """Without a new lease for 50 s (on our clock) all conditions are Unknown; a renewal starts the time again."""
    world = world_of(node("a"), lease("1"))
    first = node_lifecycle.decide("a", world, NOW)
    assert first.actions == [] and first.requeue_after_s == pytest.approx(50, abs=0.1)
    renewed = node_lifecycle.decide("a", world_of(node("a"), lease("2"), memory=first.memory), NOW + 40)
    assert renewed.requeue_after_s == pytest.approx(50, abs=0.1)
    late = node_lifecycle.decide("a", world_of(node("a"), lease("2"), memory=renewed.memory), NOW + 91)
    (update,) = flat(late)
    assert isinstance(update, Update)
    assert {c["type"]: c["status"] for c in update.obj["status"]["conditions"]} == dict.fromkeys(
        ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure"), "Unknown"
    )
    # What was written is no sign of life: the next decision only taints.
    after = flat(node_lifecycle.decide("a", world_of(update.obj, lease("2"), memory=late.memory), NOW + 92))
    assert keys(after) == [("unreachable", "NoSchedule")]


def test_pods_of_an_unreachable_node_are_not_ready() -> None:
    """So that no Service sends anything there."""
    actions = flat(node_lifecycle.decide("a", world_of(node("a", "Unknown"), pod("p", node="a")), NOW))
    patch = next(action for action in actions if isinstance(action, Patch) and action.name == "p")
    assert patch.patch["status"]["conditions"][0]["status"] == "False"


def test_eviction_by_toleration() -> None:
    """No toleration: now. One with seconds: later, by a timer. One without an end: never."""
    taint = {"key": taints.NOT_READY, "effect": "NoExecute", "timeAdded": times.format(NOW - 100)}
    covers = {"key": taints.NOT_READY, "operator": "Exists", "effect": "NoExecute"}
    bare = pod("bare", node="a")
    soon = pod("soon", node="a", spec={"tolerations": [{**covers, "tolerationSeconds": 300}]})
    never = pod("never", node="a", spec={"tolerations": [covers]})
    decision = node_lifecycle.evict("a", world_of(node("a", taints=[taint]), bare, soon, never), NOW)
    assert [action.name for action in flat(decision) if isinstance(action, Delete)] == ["bare"]
    assert decision.requeue_after_s == 200
    due = node_lifecycle.evict("a", world_of(node("a", taints=[taint]), soon), NOW + 200)
    assert [action.name for action in flat(due) if isinstance(action, Delete)] == ["soon"]


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "value": "x"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({}, False),
    ],
)
def test_tolerations(toleration: Object, expected: bool) -> None:
    """The rules of the Toleration type."""
    assert taints.tolerates(toleration, {"key": "k", "value": "v", "effect": "NoSchedule"}) is expected


def test_pod_networks() -> None:
    """Each new node gets the first free part; all together, so none is given twice; a full cluster is told."""
    (spec,) = node_ipam.specs(["10.42.0.0/22"], 24, 64)
    taken = node("a", podCIDR="10.42.1.0/24", podCIDRs=["10.42.1.0/24"])
    actions = flat(spec.decide("all", world_of(taken, *map(node, "bcde")), 0.0))
    given = [action.patch["spec"]["podCIDR"] for action in actions if isinstance(action, Patch)]
    assert given == ["10.42.0.0/24", "10.42.2.0/24", "10.42.3.0/24"]
    assert [action.reason for action in actions if isinstance(action, Emit)] == ["CIDRNotAvailable"]
    network = node_ipam.allocate(ipaddress.ip_network("fd00::/56"), 64, [ipaddress.ip_network("fd00::/64")])
    assert str(network) == "fd00:0:0:1::/64"


def test_pods_of_a_node_that_is_gone() -> None:
    """After a quarantine they are failed and deleted at once; when the node comes back they stay."""
    lost = pod("p", node="gone")
    first = podgc.decider(12500)("node/gone", world_of(lost), NOW)
    assert first.actions == () and first.requeue_after_s == 40
    actions = flat(podgc.decider(12500)("node/gone", world_of(lost, memory=first.memory), NOW + 40))
    assert [type(action) for action in actions] == [Patch, Delete]
    assert isinstance(actions[1], Delete) and actions[1].grace_s == 0
    assert podgc.decider(12500)("node/gone", world_of(lost, node("gone"), memory=first.memory), NOW + 40).actions == ()


@pytest.mark.parametrize(
    ("ready", "tainted", "goes"), [("False", True, True), ("True", True, False), ("Unknown", False, False)]
)
def test_pods_of_a_node_that_is_out_of_service(ready: str, tainted: bool, goes: bool) -> None:
    """Somebody says that the node is off: pods that were to end there are failed and deleted, no others."""
    spec = {"taints": [{"key": taints.OUT_OF_SERVICE, "effect": "NoExecute"}]} if tainted else {}
    ending = pod("ending", node="a", deletionTimestamp="2026-01-01T00:00:00Z")
    world = world_of(node("a", ready, **spec), ending, pod("stays", node="a"), pod("other", node="b"))
    actions = flat(podgc.decider(12500)("node/a", world, NOW))
    done = [(type(action), action.name) for action in actions if isinstance(action, Patch | Delete)]
    assert done == ([(Patch, "ending"), (Delete, "ending")] if goes else [])
    (watch,) = [watch for watch in podgc.specs()[0].watches if watch.kind.kind == "Node"]
    assert list(watch.keys(node("a", ready), node("a", ready, **spec), world)) == (["node/a"] if goes else [])


@pytest.mark.parametrize(("most", "gone"), [(2, ["old"]), (3, []), (0, [])])
def test_ended_pods_beyond_the_limit(most: int, gone: list[str]) -> None:
    """The oldest of the ended pods go when there are more than may be kept; 0 keeps all."""
    times_of_creation = {"old": "2026-01-01T00:00:00Z", "mid": "2026-01-01T00:00:01Z", "new": "2026-01-01T00:00:02Z"}
    ended = [pod(name, phase="Succeeded", creationTimestamp=at) for name, at in times_of_creation.items()]
    actions = flat(podgc.decider(most)("ended", world_of(*ended, pod("runs")), NOW))
    assert [action.name for action in actions if isinstance(action, Delete)] == gone


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, True),
        ({"nodeName": "b"}, False),
        ({"nodeSelector": {"disk": "ssd"}}, True),
        ({"nodeSelector": {"disk": "hdd"}}, False),
    ],
)
def test_where_a_pod_wants_to_be(spec: Object, expected: bool) -> None:
    """Node name and node selector."""
    found = node("a")
    found["metadata"]["labels"]["disk"] = "ssd"
    assert nodeselectors.fits(spec, found) is expected


def test_daemon_pods_are_narrowed_to_their_node() -> None:
    """The affinity names the node; own terms are kept beside it; and a waiting pod's node can be read back."""
    own = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [own]}}
    spec = nodes.bound_to({"affinity": {"nodeAffinity": required}}, "a")
    assert nodes.meant_for({"spec": spec}) == "a"
    found = node("a")
    assert not nodeselectors.fits(spec, found)
    found["metadata"]["labels"]["disk"] = "ssd"
    assert nodeselectors.fits(spec, found) and not nodeselectors.fits(spec, node("b"))


@pytest.mark.parametrize(
    ("effect", "key", "expected"),
    [
        ("NoSchedule", "own", (False, True)),
        ("NoExecute", "own", (False, False)),
        ("NoSchedule", taints.UNSCHEDULABLE, (True, True)),
        ("NoExecute", taints.NOT_READY, (True, True)),
    ],
)
def test_daemon_pods_and_taints(effect: str, key: str, expected: tuple[bool, bool]) -> None:
    """NoSchedule keeps new pods away, NoExecute also those that are there; what tells of health keeps none."""
    daemon = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": meta("d"),
        "spec": {"selector": SELECTOR, "template": {"metadata": {}, "spec": {"containers": []}}},
    }
    found = node("a", taints=[{"key": key, "effect": effect}])
    assert daemonset.suits(daemon, found, daemonset.tolerations(daemon)) == expected
