"""PodDisruptionBudgets: how many of the pods that a budget covers may be evicted now.

Evictions count the budget down by themselves and note whom they evict (see the eviction subresource); here the count
is made again from the pods. Keys: `budget/<namespace>/<name>`, and `pod/<namespace>/<name>` for a pod that was to end
and did not. Source: the API documentation of policy/v1, "Specifying a Disruption Budget", and KEP-3329 on the pods'
condition DisruptionTarget.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from k3s.api import object as objects
from k3s.api import times
from k3s.api.errors import ApiError, NotFound
from k3s.api.kinds import Kind, Registry
from k3s.api.object import Object
from k3s.api.selectors import from_object
from k3s.client.client import Client
from k3s.controllers import pods
from k3s.controllers.actions import NOTHING, Action, Decision, Emit, Patch, Update, earliest
from k3s.controllers.deployment_bounds import share
from k3s.controllers.gc import owner_kind
from k3s.controllers.known import BUDGET, DEPLOYMENT, POD, REPLICA_SET, REPLICATION_CONTROLLER, STATEFUL_SET
from k3s.controllers.spec import ControllerSpec, Observe, Watch
from k3s.controllers.world import World

# A pod whose eviction was allowed has so long to begin its end; then it counts again.
_DELETION_S = 120.0
_SCALED = (DEPLOYMENT, REPLICA_SET, REPLICATION_CONTROLLER, STATEFUL_SET)


class _Unknown(Exception):
    """How many pods are wanted cannot be told; nothing may be evicted."""


@dataclass(frozen=True, slots=True)
class Evicted:
    """Pods whose eviction is under way, those whose time is over, and seconds until the next one's is."""

    pending: Mapping[str, str]
    late: tuple[Object, ...] = ()
    next_s: float | None = None


def decide(key: str, world: World, now: float) -> Decision:
    """Decides a budget, or a pod that was to be disrupted."""
    what, _, plain = key.partition("/")
    if what == "pod":
        return _spared(world.get(POD, plain), now)
    budget = world.get(BUDGET, plain)
    if budget is None:
        return NOTHING
    covered = _covered(budget, world)
    told: list[Action] = [] if covered else [Emit(budget, "Normal", "NoPods", "No matching pods found")]
    evicted = _evicted(budget, covered, now)
    told += [Emit(pod, "Warning", "NotDeleted", _not_deleted(budget)) for pod in evicted.late]
    try:
        expected, desired = _wanted(budget, covered, world)
    except _Unknown as error:
        told.append(Emit(budget, "Warning", "CalculateExpectedPodCountFailed", str(error)))
        return _told(budget, told, _failed(budget, str(error), now), evicted.next_s)
    healthy = sum(_is_healthy(pod, evicted) for pod in covered)
    status = {
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "disruptionsAllowed": max(healthy - desired, 0) if expected > 0 else 0,
        "expectedPods": expected,
        "observedGeneration": budget["metadata"].get("generation", 0),
    }
    if evicted.pending:
        status["disruptedPods"] = dict(evicted.pending)
    return _told(budget, told, _with_condition(budget, status, now), evicted.next_s)


def _covered(budget: Object, world: World) -> list[Object]:
    selector = from_object(budget["spec"].get("selector"))
    return [pod for pod in world.list(POD, objects.namespace(budget)) if selector.matches(objects.labels(pod))]


def _is_healthy(pod: Object, evicted: Evicted) -> bool:
    return pods.is_ready(pod) and not objects.is_deleting(pod) and objects.name(pod) not in evicted.pending


def _not_deleted(budget: Object) -> str:
    return f"Pod was expected by PDB {objects.key(budget)} to be deleted but it wasn't"


def _evicted(budget: Object, covered: Iterable[Object], now: float) -> Evicted:
    noted: Mapping[str, str] = (budget.get("status") or {}).get("disruptedPods") or {}
    if not noted:
        return Evicted({})
    pending: dict[str, str] = {}
    late: list[Object] = []
    next_s: float | None = None
    for pod in covered:
        at = noted.get(objects.name(pod))
        if at is None or objects.is_deleting(pod):
            continue
        left = times.parse(at) + _DELETION_S - now
        if left <= 0:
            late.append(pod)
        else:
            pending[objects.name(pod)] = at
            next_s = earliest(next_s, left)
    return Evicted(pending, tuple(late), next_s)


def _wanted(budget: Object, covered: list[Object], world: World) -> tuple[int, int]:
    """How many pods there should be, and how many of them have to stay healthy. Raises _Unknown."""
    spec = budget["spec"]
    if "maxUnavailable" in spec:
        expected = _expected(covered, world)
        return expected, max(expected - share(spec["maxUnavailable"], expected, up=True), 0)
    least = spec.get("minAvailable")
    if isinstance(least, str):
        expected = _expected(covered, world)
        return expected, share(least, expected, up=True)
    return (0, 0) if least is None else (len(covered), int(least))


def _expected(covered: Iterable[Object], world: World) -> int:
    """The sum of what the workloads of these pods want; a pod without a controller counts for nothing."""
    scales: dict[str, int] = {}
    for pod in covered:
        ref = objects.controller_of(pod)
        if ref is not None and ref["uid"] not in scales:
            uid, count = _scale(pod, ref, world)
            scales[uid] = count
            scales.setdefault(ref["uid"], 0)
    return sum(scales.values())


def _scale(pod: Object, ref: Object, world: World) -> tuple[str, int]:
    """The uid of the workload above a pod, and how many pods it wants. Raises _Unknown."""
    found = _owner(pod, ref, world)
    if found is None:
        observed: Mapping[str, int | str] = world.observed or {}
        count = observed.get(ref["uid"], f"found no controllers for pod {objects.name(pod)!r}")
        if isinstance(count, str):
            raise _Unknown(count)
        return ref["uid"], count
    above = objects.controller_of(found)
    deployment = _owner(found, above, world) if above is not None and above["kind"] == "Deployment" else None
    owner = deployment or found
    return objects.uid(owner), int(owner["spec"].get("replicas", 1))


def _owner(obj: Object, ref: Object, world: World) -> Object | None:
    """The workload of a well-known kind that a reference names."""
    for kind in _SCALED:
        if kind.kind == ref["kind"] and kind.group == ref["apiVersion"].rpartition("/")[0]:
            found = world.get(kind, f"{objects.namespace(obj)}/{ref['name']}")
            return found if found is not None and objects.uid(found) == ref["uid"] else None
    return None


def observe(registry: Registry) -> Observe:
    """Asks for the scale of workloads of other kinds: a number, or why there is none, by the workload's uid."""

    async def look(key: str, world: World, client: Client) -> dict[str, int | str]:
        what, _, plain = key.partition("/")
        budget = world.get(BUDGET, plain) if what == "budget" else None
        if budget is None or isinstance(budget["spec"].get("minAvailable"), int):
            return {}
        found: dict[str, int | str] = {}
        for pod in _covered(budget, world):
            ref = objects.controller_of(pod)
            if ref is not None and ref["uid"] not in found and _owner(pod, ref, world) is None:
                found[ref["uid"]] = await _ask(registry, client, pod, ref)
        return found

    return look


async def _ask(registry: Registry, client: Client, pod: Object, ref: Object) -> int | str:
    kind = owner_kind(registry, ref)
    if kind is None or "scale" not in kind.subresources:
        return f"{ref['apiVersion']}/{ref['kind']} does not implement the scale subresource"
    try:
        scale = await client.get(kind, objects.namespace(pod), ref["name"], subresource="scale")
    except NotFound:
        return f"found no controllers for pod {objects.name(pod)!r}"
    except ApiError as error:
        return str(error)
    return int(scale.get("spec", {}).get("replicas", 0)) if objects.uid(scale) == ref["uid"] else 0


def _with_condition(budget: Object, status: Object, now: float) -> Object:
    allowed = status["disruptionsAllowed"] > 0
    reason = "SufficientPods" if allowed else "InsufficientPods"
    return _concluded(budget, status, "True" if allowed else "False", reason, "", now)


def _failed(budget: Object, why: str, now: float) -> Object:
    """The former status, with which nothing may be evicted."""
    status = {**(budget.get("status") or {}), "disruptionsAllowed": 0}
    return _concluded(budget, status, "False", "SyncFailed", why, now)


def _concluded(budget: Object, status: Object, value: str, reason: str, message: str, now: float) -> Object:
    before = pods.condition(budget, "DisruptionAllowed")
    same = before is not None and before.get("status") == value
    condition = {
        "type": "DisruptionAllowed",
        "status": value,
        "observedGeneration": budget["metadata"].get("generation", 0),
        "lastTransitionTime": before["lastTransitionTime"] if before is not None and same else times.format(now),
        "reason": reason,
        "message": message,
    }
    others = [c for c in (budget.get("status") or {}).get("conditions") or () if c is not before]
    return {**status, "conditions": [*others, condition]}


def _told(budget: Object, told: list[Action], status: Object, next_s: float | None) -> Decision:
    if status == (budget.get("status") or {}):
        # What is told was told when the status came to be as it is.
        return Decision(requeue_after_s=next_s)
    return Decision([*told, Update(BUDGET, {**budget, "status": status}, "status")], next_s)


def _spared(pod: Object | None, now: float) -> Decision:
    """A pod that was to be disrupted and is still there after a while is not disrupted any more."""
    target = pods.condition(pod, "DisruptionTarget") if pod is not None else None
    if pod is None or target is None or not _is_marked(pod):
        return NOTHING
    left = times.parse(target["lastTransitionTime"]) + _DELETION_S - now
    if left > 0:
        return Decision(requeue_after_s=left)
    condition = {"type": "DisruptionTarget", "status": "False", "lastTransitionTime": times.format(now)}
    patch = {"metadata": {"uid": objects.uid(pod)}, "status": {"conditions": [condition]}}
    return Decision([Patch(POD, objects.namespace(pod), objects.name(pod), patch, "strategic", "status")])


def _is_marked(pod: Object) -> bool:
    return pods.is_true(pod, "DisruptionTarget") and pods.is_active(pod)


def _of_pod(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
    if new is not None and _is_marked(new) and (old is None or not _is_marked(old)):
        yield f"pod/{objects.key(new)}"
    if pods.same_for_owner(old, new):
        return
    found = pods.sides(old, new)
    for budget in world.list(BUDGET, objects.namespace(found[0])):
        selector = from_object(budget["spec"].get("selector"))
        if any(selector.matches(objects.labels(pod)) for pod in found):
            yield f"budget/{objects.key(budget)}"


def _of_budget(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
    return () if new is None else (f"budget/{objects.key(new)}",)


def _of_workload(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
    obj = new or old
    assert obj is not None
    if old is not None and new is not None and old["spec"].get("replicas") == new["spec"].get("replicas"):
        return ()
    return [f"budget/{objects.key(budget)}" for budget in world.list(BUDGET, objects.namespace(obj))]


def _watches() -> tuple[Watch, ...]:
    workloads: tuple[Kind, ...] = _SCALED
    return (Watch(BUDGET, _of_budget), Watch(POD, _of_pod), *(Watch(kind, _of_workload) for kind in workloads))


def specs(registry: Registry) -> tuple[ControllerSpec, ...]:
    """The controller; `registry` has the kinds that may be above a pod."""
    return (
        ControllerSpec(
            name="disruption-controller",
            decide=decide,
            watches=_watches(),
            account="disruption-controller",
            observe=observe(registry),
        ),
    )
