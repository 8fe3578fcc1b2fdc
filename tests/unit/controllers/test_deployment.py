"""Deployments, one state at a time."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.controllers.worlds import SELECTOR, TEMPLATE, flat, meta, pod, world_of

from k3s.api import times
from k3s.api.object import Object, evolve
from k3s.controllers.actions import Create, Delete, Patch, Update
from k3s.controllers.deployment import decide
from k3s.controllers.deployment_bounds import bounds
from k3s.controllers.deployment_revisions import DESIRED, HISTORY, MOST, REVISION
from k3s.controllers.known import DEPLOYMENT, REPLICA_SET

NOW = times.parse("2026-01-01T01:00:00Z")


def deployment(replicas: int, image: str = "a", annotations: Object | None = None, **spec: Any) -> Object:
    template = evolve(TEMPLATE, ("spec", "containers"), [{"name": "c", "image": image}])
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta("web", annotations=annotations or {}),
        "spec": {
            "replicas": replicas,
            "selector": SELECTOR,
            "template": template,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": 600,
            **spec,
        },
    }


def replica_set(
    owner: Object, image: str, size: int, revision: int = 1, available: int | None = None, wanted: int | None = None
) -> Object:
    name, replicas = f"web-{image}", owner["spec"]["replicas"] if wanted is None else wanted
    surge = bounds(evolve(owner, ("spec", "replicas"), replicas))[0]
    notes = {DESIRED: str(replicas), MOST: str(replicas + surge), REVISION: str(revision)}
    template = evolve(TEMPLATE, ("spec", "containers"), [{"name": "c", "image": image}])
    count = size if available is None else available
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": meta(
            name,
            owner=owner,
            labels={"app": "web"},
            annotations=notes,
            creationTimestamp=f"2026-01-01T00:0{revision}:00Z",
        ),
        "spec": {
            "replicas": size,
            "selector": {"matchLabels": {"app": "web", "pod-template-hash": image}},
            "template": evolve(template, ("metadata", "labels"), {"app": "web", "pod-template-hash": image}),
        },
        "status": {"replicas": size, "readyReplicas": count, "availableReplicas": count, "observedGeneration": 1},
    }


def run(*found: Object, now: float = NOW) -> list[Any]:
    return flat(decide("default/web", world_of(*found), now))


def sizes(actions: list[Any]) -> dict[str, int]:
    return {
        a.obj["metadata"]["name"]: a.obj["spec"]["replicas"]
        for a in actions
        if isinstance(a, Update) and a.kind is REPLICA_SET
    }


def status_of(actions: list[Any]) -> Object:
    return next(a.obj["status"] for a in actions if isinstance(a, Update) and a.subresource == "status")


def test_first_replica_set() -> None:
    """A new Deployment gets a set with hash, revision 1 and its size, and is marked with the revision."""
    actions = run(deployment(3))
    made = next(action for action in actions if isinstance(action, Create))
    digest = made.obj["metadata"]["labels"]["pod-template-hash"]
    assert made.obj["metadata"]["name"] == f"web-{digest}"
    assert made.obj["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": digest}
    assert made.obj["spec"]["replicas"] == 3
    assert made.obj["metadata"]["annotations"] == {DESIRED: "3", MOST: "4", REVISION: "1"}
    marked = next(action for action in actions if isinstance(action, Update))
    assert marked.obj["metadata"]["annotations"] == {REVISION: "1"}


def test_name_taken_by_something_else() -> None:
    """The collision count grows, and with it the hash changes."""
    made = next(a for a in run(deployment(1)) if isinstance(a, Create)).obj
    foreign = {**made, "metadata": meta(made["metadata"]["name"], labels={"app": "other"})}
    (update,) = run(deployment(1), foreign)
    assert update.obj["status"]["collisionCount"] == 1
    again = next(a for a in run(update.obj, foreign) if isinstance(a, Create)).obj
    assert again["metadata"]["name"] != made["metadata"]["name"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # (old size, available), (new size, available) of 4 with 25 % each: at most 5 pods, at least 3 available
        ((4, 4), (0, 0), {"web-b": 1}),
        ((4, 4), (1, 0), {"web-a": 3}),
        ((3, 3), (1, 0), {"web-b": 2}),
        ((3, 3), (2, 2), {"web-a": 1}),
        ((3, 2), (2, 2), {"web-a": 1}),
        ((1, 1), (4, 4), {"web-a": 0}),
        ((4, 0), (1, 0), {"web-a": 3}),
    ],
)
def test_rolling_steps(old: tuple[int, int], new: tuple[int, int], expected: dict[str, int]) -> None:
    """Each state of a rolling update has one next step."""
    owner = deployment(4, "b", {REVISION: "2"})
    actions = run(
        owner,
        replica_set(owner, "a", old[0], 1, old[1]),
        replica_set(owner, "b", new[0], 2, new[1]),
    )
    assert sizes(actions) == expected


def test_rollback_reuses_the_old_set() -> None:
    """Going back to an older template makes no new set: the old one becomes the newest revision."""
    owner = deployment(2, "a", {REVISION: "2"})
    actions = run(owner, replica_set(owner, "a", 0, 1), replica_set(owner, "b", 2, 2))
    (update,) = actions
    assert update.kind is REPLICA_SET
    assert update.obj["metadata"]["annotations"][REVISION] == "3"
    assert update.obj["metadata"]["annotations"][HISTORY] == "1"


def test_history_is_limited() -> None:
    """Beyond revisionHistoryLimit the oldest empty sets go when the rollout is complete."""
    owner = deployment(2, "d", {REVISION: "4"})
    sets = [replica_set(owner, image, 0, n) for n, image in enumerate("abc", 1)] + [replica_set(owner, "d", 2, 4)]
    complete = {
        "observedGeneration": 1,
        "replicas": 2,
        "updatedReplicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 2,
    }
    actions = run({**owner, "status": complete}, *sets)
    assert [action.name for action in actions if isinstance(action, Delete)] == ["web-a"]


def test_scaling_in_the_middle_keeps_proportions() -> None:
    """10 → 20 with 8 old and 5 new (KEP example): the difference is spread by size."""
    owner = deployment(20, "b", {REVISION: "2"})
    old = replica_set(owner, "a", 8, 1, wanted=10)
    new = replica_set(owner, "b", 5, 2, wanted=10)
    assert sizes(run(owner, old, new)) == {"web-a": 15, "web-b": 10}


def test_paused_scales_but_does_not_roll() -> None:
    """A paused Deployment first says so, then only follows its size."""
    owner = deployment(5, "b", {REVISION: "1"}, paused=True)
    old = replica_set(owner, "a", 3, 1, wanted=3)
    (update,) = run(owner, old)
    (paused,) = update.obj["status"]["conditions"]
    assert (paused["type"], paused["reason"]) == ("Progressing", "DeploymentPaused")
    actions = run(update.obj, old)
    assert sizes(actions) == {"web-a": 5}
    assert not [action for action in actions if isinstance(action, Create)]


def test_recreate_waits_for_the_last_old_pod() -> None:
    """Old sets go to zero, then their pods are waited for, then the new set comes with all."""
    owner = deployment(2, "b", strategy={"type": "Recreate"})
    old = replica_set(owner, "a", 2, 1)
    assert sizes(run(owner, old)) == {"web-a": 0}
    empty = replica_set(owner, "a", 0, 1)
    going = pod("a-1", empty, deletionTimestamp="2026-01-01T00:59:00Z")
    assert not [action for action in run(owner, empty, going) if isinstance(action, Create)]
    made = next(action for action in run(owner, empty) if isinstance(action, Create))
    assert made.obj["spec"]["replicas"] == 2


def test_progress_and_deadline() -> None:
    """A rollout is timed from its last step; when nothing moves for the deadline it is said to have failed."""
    owner = deployment(2, "a", {REVISION: "1"})
    rs = replica_set(owner, "a", 2, 1, available=0)
    status = status_of(run(owner, rs))
    reasons = {found["type"]: found["reason"] for found in status["conditions"]}
    assert reasons == {"Available": "MinimumReplicasUnavailable", "Progressing": "ReplicaSetUpdated"}
    decision = decide("default/web", world_of({**owner, "status": status}, rs), NOW)
    assert decision.actions == [] and decision.requeue_after_s == 601
    late = status_of(run({**owner, "status": status}, rs, now=NOW + 601))
    assert [c["reason"] for c in late["conditions"] if c["type"] == "Progressing"] == ["ProgressDeadlineExceeded"]
    well = status_of(run({**owner, "status": late}, replica_set(owner, "a", 2, 1)))
    reasons = {found["type"]: found["reason"] for found in well["conditions"]}
    assert reasons == {"Available": "MinimumReplicasAvailable", "Progressing": "NewReplicaSetAvailable"}


def test_complete_means_silent() -> None:
    """A complete rollout has no action and no timer."""
    owner = deployment(2, "a", {REVISION: "1"})
    rs = replica_set(owner, "a", 2, 1)
    status = status_of(run(owner, rs))
    decision = decide("default/web", world_of({**owner, "status": status}, rs), NOW)
    assert decision.actions == [] and decision.requeue_after_s is None


def test_adoption() -> None:
    """A matching set without a controller is adopted before anything else."""
    owner = deployment(2, "a")
    orphan = replica_set(owner, "a", 2)
    orphan["metadata"].pop("ownerReferences")
    (patch,) = run(owner, orphan)
    assert isinstance(patch, Patch) and patch.kind is REPLICA_SET


def test_missing_deployment() -> None:
    """Nothing is decided about what is not there."""
    assert run() == []
    assert DEPLOYMENT.kind == "Deployment"
