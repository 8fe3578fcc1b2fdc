"""Replica sets, one state at a time."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.unit.controllers.worlds import SELECTOR, TEMPLATE, flat, meta, pod, world_of

from k3s.api import times
from k3s.api.object import Object
from k3s.controllers.actions import Create, Delete, Parallel, Patch, Update
from k3s.controllers.known import POD, REPLICATION_CONTROLLER
from k3s.controllers.replicaset import decide, decide_replication_controller, rank

NOW = times.parse("2026-01-01T01:00:00Z")


def replica_set(replicas: int, **spec: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": meta("web"),
        "spec": {"replicas": replicas, "selector": SELECTOR, "template": TEMPLATE, **spec},
    }


def run(*found: Object, **more: Any) -> list[Any]:
    return flat(decide("default/web", world_of(*found, **more), NOW))


def test_missing_pods_are_made_with_slow_start() -> None:
    """Three of four are missing: three creations that belong to the set and carry the template's labels."""
    rs = replica_set(4)
    decision = decide("default/web", world_of(rs, pod("a", rs)), NOW)
    batch = [action for action in decision.actions if isinstance(action, Parallel)]
    assert [len(found.actions) for found in batch] == [3]
    assert batch[0].slow_start
    made = flat(decision)[-1]
    assert isinstance(made, Create)
    assert made.obj["metadata"]["generateName"] == "web-"
    assert made.obj["metadata"]["labels"] == {"app": "web"}
    assert made.obj["metadata"]["ownerReferences"][0]["uid"] == "uid-web"


def test_status_counts() -> None:
    """Ready, available (minReadySeconds) and labelled pods are counted, and the next change by time is asked for."""
    rs = replica_set(3, minReadySeconds=60)
    young = pod("young", rs, since=times.format(NOW - 20))
    decision = decide("default/web", world_of(rs, pod("old", rs), young, pod("sick", rs, ready=False)), NOW)
    (update,) = flat(decision)
    assert isinstance(update, Update) and update.subresource == "status"
    assert update.obj["status"] == {
        "replicas": 3,
        "fullyLabeledReplicas": 3,
        "readyReplicas": 2,
        "availableReplicas": 1,
        "terminatingReplicas": 0,
        "observedGeneration": 1,
    }
    assert decision.requeue_after_s == 40


def test_settled_means_nothing_to_do() -> None:
    """With the status written there is no action."""
    rs = replica_set(1)
    status = flat(decide("default/web", world_of(rs, pod("a", rs)), NOW))[0].obj["status"]  # type: ignore[union-attr]
    assert run({**rs, "status": status}, pod("a", rs)) == []


def test_ended_and_deleted_pods_do_not_count() -> None:
    """A failed pod and one that is being deleted are replaced."""
    rs = replica_set(2)
    gone = pod("gone", rs, deletionTimestamp="2026-01-01T00:30:00Z")
    actions = run(rs, pod("bad", rs, phase="Failed"), gone)
    assert sum(isinstance(action, Create) for action in actions) == 2


def test_orphans_are_adopted_and_strangers_released() -> None:
    """A matching pod without a controller is taken, an owned one whose label was changed is let go."""
    rs = replica_set(2)
    actions = run(rs, pod("orphan"), pod("stranger", rs, labels={"app": "other"}))
    assert all(isinstance(action, Patch) for action in actions)
    refs = {action.name: action.patch["metadata"]["ownerReferences"] for action in actions}
    assert refs["stranger"] is None
    assert refs["orphan"][0]["uid"] == "uid-web" and refs["orphan"][0]["controller"]


def test_a_set_that_is_deleted_neither_makes_nor_adopts() -> None:
    """The garbage collector does the rest."""
    rs = replica_set(2)
    rs["metadata"]["deletionTimestamp"] = "2026-01-01T00:30:00Z"
    assert not [action for action in run(rs, pod("orphan")) if not isinstance(action, Update)]


def test_ranking() -> None:
    """Without a node, not running, not ready, cheap, doubled up, younger: in this order pods go."""
    waiting = pod("waiting", node="")
    pending = pod("pending", phase="Pending", ready=False)
    sick = pod("sick", ready=False)
    cheap = pod("cheap", annotations={"controller.kubernetes.io/pod-deletion-cost": "-5"})
    double = pod("double", node="full")
    young = pod("young", since=times.format(NOW - 3), creationTimestamp=times.format(NOW - 5))
    old = pod("old")
    by_node = Counter({"full": 2, "n1": 1})
    names = [p["metadata"]["name"] for p in rank([old, young, double, cheap, sick, pending, waiting], by_node, NOW)]
    assert names == ["waiting", "pending", "sick", "cheap", "double", "young", "old"]


def test_surplus_pods_go() -> None:
    """The lowest in rank is deleted, by uid."""
    rs = replica_set(1)
    actions = run(rs, pod("good", rs), pod("bad", rs, ready=False))
    assert [action.uid for action in actions if isinstance(action, Delete)] == ["uid-bad"]


def test_failure_is_shown_while_pods_are_missing() -> None:
    """What the server refused stands in the condition ReplicaFailure, and goes when pods are there."""
    rs = replica_set(1)
    status = run(rs, failure="pods is forbidden: quota")[0].obj["status"]
    (shown,) = status["conditions"]
    assert (shown["type"], shown["reason"], shown["message"]) == (
        "ReplicaFailure",
        "FailedCreate",
        "pods is forbidden: quota",
    )
    assert "conditions" not in run({**rs, "status": status}, pod("a", rs))[0].obj["status"]


def test_replication_controllers_share_the_core() -> None:
    """Their selector is a plain map."""
    rc = {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": meta("web"),
        "spec": {"replicas": 1, "selector": {"app": "web"}, "template": TEMPLATE},
    }
    actions = flat(decide_replication_controller("default/web", world_of(rc), NOW))
    assert [action.kind for action in actions] == [REPLICATION_CONTROLLER, POD]  # type: ignore[union-attr]
    adopted = flat(decide_replication_controller("default/web", world_of(rc, pod("orphan")), NOW))
    assert isinstance(adopted[0], Patch)
