"""ReplicaSets and ReplicationControllers: as many pods of a template as the spec says.

Source: the API documentation of apps/v1 ReplicaSet, and for the order in which pods go, upstream's ranking
(KEP-2185 random victim, KEP-2255 pod deletion cost).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from k3s.api import object as objects
from k3s.api import times
from k3s.api.kinds import Kind
from k3s.api.object import Object, evolve
from k3s.controllers import pods
from k3s.controllers.actions import NOTHING, Action, Create, Decision, Parallel, Update, delete, earliest
from k3s.controllers.claims import claim, dependents_of, selector_of
from k3s.controllers.known import POD, REPLICA_SET, REPLICATION_CONTROLLER
from k3s.controllers.spec import ControllerSpec
from k3s.controllers.world import World

# Pods made or deleted in one decision at the most.
_BURST = 500
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def decide(key: str, world: World, now: float) -> Decision:
    """Decides a ReplicaSet."""
    return _decide(REPLICA_SET, key, world, now)


def decide_replication_controller(key: str, world: World, now: float) -> Decision:
    """Decides a ReplicationController."""
    return _decide(REPLICATION_CONTROLLER, key, world, now)


def _decide(kind: Kind, key: str, world: World, now: float) -> Decision:
    rs = world.get(kind, key)
    if rs is None:
        return NOTHING
    space = objects.namespace(rs)
    owned = world.owned(POD, objects.uid(rs))
    orphans = [pod for pod in world.orphans(POD, space) if pods.is_active(pod)]
    claims = claim(POD, rs, selector_of(rs), (pod for pod in owned if pods.is_active(pod)), orphans)
    if claims:
        return Decision(claims)
    active = [pod for pod in owned if pods.is_active(pod)]
    terminating = sum(1 for pod in owned if objects.is_deleting(pod) and not pods.is_finished(pod))
    status, wait = _status(kind, rs, active, terminating, world.failure, now)
    actions: list[Action] = []
    if status != rs.get("status", {}):
        actions.append(Update(kind, evolve(rs, ("status",), status), "status"))
    if not objects.is_deleting(rs):
        actions += _manage(rs, active, world, now)
    return Decision(actions, wait)


def _manage(rs: Object, active: Sequence[Object], world: World, now: float) -> list[Action]:
    missing = rs["spec"].get("replicas", 1) - len(active)
    if missing > 0:
        pod = pods.from_template(rs["spec"]["template"], rs)
        return [Parallel([Create(POD, pod, about=rs)] * min(missing, _BURST), slow_start=True)]
    if missing < 0:
        ranked = rank(active, _neighbours(rs, active, world), now)
        return [Parallel([delete(POD, pod, about=rs) for pod in ranked[: min(-missing, _BURST)]])]
    return []


def _neighbours(rs: Object, active: Sequence[Object], world: World) -> Counter[str]:
    """Active pods by node, of this set and of all others with the same controller (a Deployment's revisions)."""
    related = list(active)
    ref = objects.controller_of(rs)
    if ref is not None:
        for other in world.owned(REPLICA_SET, ref["uid"]):
            if objects.uid(other) != objects.uid(rs):
                related += filter(pods.is_active, world.owned(POD, objects.uid(other)))
    return Counter(pod["spec"].get("nodeName", "") for pod in related)


def rank(active: Sequence[Object], by_node: Counter[str], now: float) -> list[Object]:
    """The pods in the order in which they are to go.

    First those without a node, then by phase, not ready ones, lower deletion cost, fuller nodes, ready for a shorter
    time, more restarts, younger ones. Times count in powers of two, so that ties are broken by the (random) uid.
    """

    def order(pod: Object) -> tuple[object, ...]:
        node = pod["spec"].get("nodeName", "")
        since = pods.ready_since(pod)
        return (
            bool(node),
            _PHASES.get(pods.phase(pod), 2),
            pods.is_ready(pod),
            deletion_cost(pod),
            -by_node[node],
            _bucket(now - since) if since is not None else 0,
            -pods.restarts(pod),
            _bucket(now - pods.created_at(pod)),
            objects.uid(pod),
        )

    return sorted(active, key=order)


def _bucket(age_s: float) -> int:
    return int(math.log2(age_s)) if age_s >= 1 else 0


def deletion_cost(pod: Object) -> int:
    """The annotation controller.kubernetes.io/pod-deletion-cost, 0 when there is none or it is no number."""
    text = objects.annotations(pod).get("controller.kubernetes.io/pod-deletion-cost", "0")
    return int(text) if text.removeprefix("-").isdecimal() else 0


def _status(
    kind: Kind, rs: Object, active: Sequence[Object], terminating: int, failure: str, now: float
) -> tuple[Object, float | None]:
    """The status, and seconds until it changes by time alone (minReadySeconds)."""
    min_ready_s = rs["spec"].get("minReadySeconds", 0)
    wanted = (rs["spec"]["template"].get("metadata", {}).get("labels") or {}).items()
    waits = [pods.available_in(pod, min_ready_s, now) for pod in active]
    ready = [wait for wait in waits if wait is not None]
    counts = {
        "fullyLabeledReplicas": sum(1 for pod in active if wanted <= objects.labels(pod).items()),
        "readyReplicas": len(ready),
        "availableReplicas": sum(1 for wait in ready if wait == 0),
    }
    old = rs.get("status", {})
    status: Object = {"replicas": len(active), **{name: count for name, count in counts.items() if count}}
    if kind is REPLICA_SET:
        status["terminatingReplicas"] = terminating
    status["observedGeneration"] = max(rs["metadata"].get("generation", 0), old.get("observedGeneration", 0))
    conditions = _conditions(old.get("conditions") or [], rs, len(active), failure, now)
    if conditions:
        status["conditions"] = conditions
    return status, earliest(*(wait for wait in ready if wait > 0))


def _conditions(old: list[Object], rs: Object, count: int, failure: str, now: float) -> list[Object]:
    """The ReplicaFailure condition is there exactly while pods cannot be made or deleted."""
    others = [found for found in old if found["type"] != "ReplicaFailure"]
    missing = rs["spec"].get("replicas", 1) - count
    if not failure or not missing:
        return others
    reason = "FailedCreate" if missing > 0 else "FailedDelete"
    for found in old:
        if found["type"] == "ReplicaFailure" and found.get("reason") == reason:
            return old
    new = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": reason,
        "message": failure,
        "lastTransitionTime": times.format(now),
    }
    return [*others, new]


SPECS = (
    ControllerSpec(
        name="replicaset-controller",
        decide=decide,
        kind=REPLICA_SET,
        watches=(dependents_of(REPLICA_SET),),
        account="replicaset-controller",
    ),
    ControllerSpec(
        name="replication-controller",
        decide=decide_replication_controller,
        kind=REPLICATION_CONTROLLER,
        watches=(dependents_of(REPLICATION_CONTROLLER),),
        reads=(REPLICA_SET,),
        account="replication-controller",
    ),
)
