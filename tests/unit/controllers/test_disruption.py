"""PodDisruptionBudgets: what a budget's status says of its pods, and what that lets evictions do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.controllers.test_runtime import web
from tests.unit.controllers.test_with_api_server import Plane, available
from tests.unit.controllers.test_with_api_server import quiet as quiet  # a fixture
from tests.unit.controllers.worlds import SELECTOR, TEMPLATE, flat, meta, pod, world_of

from k3s.api.errors import TooManyRequests
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.controllers import disruption
from k3s.controllers.actions import Emit, Patch, Update
from k3s.controllers.known import BUDGET, DEPLOYMENT, POD, SERVICE_ACCOUNT
from k3s.sim import loop

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z
KEY = "budget/default/b"


def budget(status: Object | None = None, **spec: Any) -> Object:
    body = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta("b")}
    return {**body, "spec": {"selector": SELECTOR, **spec}, "status": status or {}}


def workload(kind: str, replicas: int, owner: Object | None = None, name: str = "w") -> Object:
    spec = {"replicas": replicas, "selector": SELECTOR, "template": TEMPLATE}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": meta(name, owner=owner), "spec": spec}


def numbers(*found: Object, observed: Any = None) -> tuple[int, int, int, int]:
    """expectedPods, desiredHealthy, currentHealthy, disruptionsAllowed."""
    status = decided(*found, observed=observed)
    return tuple(status[f] for f in ("expectedPods", "desiredHealthy", "currentHealthy", "disruptionsAllowed"))  # type: ignore[return-value]


def decided(*found: Object, now: float = NOW, observed: Any = None) -> Object:
    (update,) = [a for a in flat(disruption.decide(KEY, world_of(*found, observed=observed), now)) if type(a) is Update]
    assert update.subresource == "status"
    status: Object = update.obj["status"]
    return status


DEPLOYED = workload("Deployment", 4, name="d")
SETS = [workload("ReplicaSet", 3, DEPLOYED, "new"), workload("ReplicaSet", 1, DEPLOYED, "old")]
STATEFUL = workload("StatefulSet", 5)


@pytest.mark.parametrize(
    ("spec", "found", "expected"),
    [
        pytest.param({"minAvailable": 2}, [pod("a"), pod("b"), pod("c")], (3, 2, 3, 1), id="count of bare pods"),
        pytest.param({"minAvailable": 2}, [pod("a"), pod("b", ready=False)], (2, 2, 1, 0), id="one not ready"),
        pytest.param({"minAvailable": 0}, [], (0, 0, 0, 0), id="no pods"),
        pytest.param({}, [pod("a")], (0, 0, 1, 0), id="a budget of nothing"),
        pytest.param(
            {"minAvailable": "50%"}, [DEPLOYED, *SETS, pod("a", SETS[0]), pod("b", SETS[1])], (4, 2, 2, 0), id="share"
        ),
        pytest.param(
            {"maxUnavailable": 1}, [STATEFUL, *(pod(n, STATEFUL) for n in "abcde")], (5, 4, 5, 1), id="of a set"
        ),
        pytest.param(
            {"maxUnavailable": "30%"}, [STATEFUL, *(pod(n, STATEFUL) for n in "abcde")], (5, 3, 5, 2), id="rounded up"
        ),
        pytest.param({"maxUnavailable": 1}, [pod("a")], (0, 0, 1, 0), id="pods of nobody count for nothing"),
        pytest.param(
            {"minAvailable": 1}, [pod("a", deletionTimestamp="2026-01-01T00:00:00Z"), pod("b")], (2, 1, 1, 0), id="ends"
        ),
        pytest.param({"minAvailable": 1}, [pod("a", labels={"app": "x"}), pod("b")], (1, 1, 1, 0), id="selector"),
    ],
)
def test_what_a_budget_allows(spec: Object, found: list[Object], expected: tuple[int, ...]) -> None:
    """How many pods there should be, have to stay healthy, are healthy, and may go."""
    assert numbers(budget(**spec), *found) == expected


def test_workloads_of_other_kinds_are_asked_for_their_scale() -> None:
    """A number that the server told counts; where it told why there is none, nothing may be evicted."""
    custom = {"apiVersion": "x.io/v1", "kind": "Herd", "metadata": meta("h")}
    found = [budget(maxUnavailable=1), *(pod(n, custom) for n in "abc")]
    assert numbers(*found, observed={"uid-h": 3}) == (3, 2, 3, 1)
    why = "x.io/v1/Herd does not implement the scale subresource"
    status = decided(*found, observed={"uid-h": why})
    assert status["disruptionsAllowed"] == 0
    (condition,) = status["conditions"]
    assert (condition["status"], condition["reason"], condition["message"]) == ("False", "SyncFailed", why)


def test_the_condition_says_whether_pods_may_go_and_since_when() -> None:
    """Its time moves only with its status; a budget whose status is right is not written."""
    pods = [pod("a"), pod("b")]
    first = decided(budget(minAvailable=1), *pods)
    assert [(c["type"], c["status"], c["reason"]) for c in first["conditions"]] == [
        ("DisruptionAllowed", "True", "SufficientPods")
    ]
    assert not disruption.decide(KEY, world_of(budget(first, minAvailable=1), *pods), NOW + 60).actions
    pods.append(pod("c"))
    again = decided(budget(first, minAvailable=1), *pods, now=NOW + 60)
    assert again["conditions"] == first["conditions"] and again["disruptionsAllowed"] == 2
    less = decided(budget(first, minAvailable=1), pods[0], now=NOW + 60)
    assert less["conditions"][0]["lastTransitionTime"] == "2026-01-01T00:01:00Z"
    assert less["conditions"][0]["reason"] == "InsufficientPods"


def test_an_evicted_pod_is_counted_as_gone_until_its_time_is_over() -> None:
    """Pods that are gone or going are forgotten; one that stays is told of after two minutes, and counts again."""
    noted = {"a": "2026-01-01T00:00:00Z", "gone": "2026-01-01T00:00:00Z"}
    marked, pods = budget({"disruptedPods": noted}, minAvailable=1), [pod("a"), pod("b"), pod("c")]
    status = decided(marked, *pods, now=NOW + 30)
    assert status["disruptedPods"] == {"a": noted["a"]} and status["disruptionsAllowed"] == 1
    assert disruption.decide(KEY, world_of(marked, *pods), NOW + 30).requeue_after_s == 90
    decision = disruption.decide(KEY, world_of(marked, *pods), NOW + 121)
    assert [(a.reason, a.about["metadata"]["name"]) for a in flat(decision) if isinstance(a, Emit)] == [
        ("NotDeleted", "a")
    ]
    late = decided(marked, *pods, now=NOW + 121)
    assert "disruptedPods" not in late and late["disruptionsAllowed"] == 2


def test_a_pod_that_was_to_be_disrupted_and_stays_is_so_no_more() -> None:
    """Its condition DisruptionTarget becomes False after two minutes; that of a pod which ends stays."""
    target = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}

    def of(**more: Any) -> tuple[Any, float | None]:
        found = pod("a", **more)
        found["status"]["conditions"].append(target)
        decision = disruption.decide("pod/default/a", world_of(found), NOW + 119 + more.get("ready", 0) * 2)
        return decision.actions, decision.requeue_after_s

    assert of(ready=False) == ((), 1)
    ((action,), _) = of(ready=True)
    assert isinstance(action, Patch) and action.patch["status"]["conditions"][0]["status"] == "False"
    assert of(ready=True, deletionTimestamp="2026-01-01T00:00:00Z") == ((), None)


def test_evictions_go_on_as_new_pods_become_ready(quiet: Callable[[], None]) -> None:
    """What `kubectl drain` does: an eviction is refused until the pod in place of the last one is ready."""

    async def main() -> None:
        async with Plane(7) as plane:
            await plane.until(lambda: bool(plane.all(SERVICE_ACCOUNT, "default")))
            await plane.root.create(DEPLOYMENT, {"apiVersion": "apps/v1", "kind": "Deployment", **web(3)})
            await plane.until(lambda: available(plane) == 3)
            selector = {"matchLabels": plane.all(POD)[0]["metadata"]["labels"]}
            spec = {"selector": selector, "maxUnavailable": 1}
            body = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": spec}
            await plane.root.create(BUDGET, {**body, "metadata": {"name": "b", "namespace": "default"}})

            def allowed() -> int:
                found = plane.cache.get(BUDGET, "default", "b") or {}
                return int(found.get("status", {}).get("disruptionsAllowed", -1))

            old = [p["metadata"]["name"] for p in plane.all(POD)]
            refused = 0
            for name in old:
                while True:
                    try:
                        await evict(plane, name)
                        break
                    except TooManyRequests:
                        refused += 1
                        await plane.until(lambda: allowed() == 1)
            assert refused >= 2
            await plane.until(lambda: available(plane) == 3 and allowed() == 1)
            quiet()
            assert not set(old) & {p["metadata"]["name"] for p in plane.all(POD)}

    loop.run(7, main())


async def evict(plane: Plane, name: str) -> None:
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}}
    await plane.root.create(builtin("v1", "Pod"), eviction, subresource="eviction")
    await asyncio.sleep(0)
