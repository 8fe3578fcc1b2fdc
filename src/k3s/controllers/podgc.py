"""Removes pods that nobody else will: of nodes that are gone, ended ones beyond a limit, deleted ones without a node.

Keys: `node/<name>`, `pod/<namespace>/<name>`, `ended`.
"""

from __future__ import annotations

from collections.abc import Iterable

from k3s.api import object as objects
from k3s.api import times
from k3s.api.object import Object
from k3s.controllers import pods
from k3s.controllers.actions import NOTHING, Decision, Parallel, Patch, delete
from k3s.controllers.known import NODE, POD
from k3s.controllers.spec import ControllerSpec, Watch
from k3s.controllers.world import World

# How many ended pods are kept for people to look at (terminated-pod-gc-threshold).
MOST_ENDED = 12500
# A node that is missing may only be late to register again.
_QUARANTINE_S = 40.0
# Counting ended pods looks at all of them: not more often than this.
_COUNT_EVERY_S = 20.0
_BURST = 500


def decide(key: str, world: World, now: float) -> Decision:
    """Decides a node's pods, one pod, or the ended ones."""
    what, _, rest = key.partition("/")
    if what == "node":
        return _lost(rest, world, now)
    if what == "pod":
        pod = world.get(POD, rest)
        if pod is None or not objects.is_deleting(pod) or pod["spec"].get("nodeName"):
            return NOTHING
        marks = [] if pods.is_finished(pod) else [_mark_failed(pod, None, now)]
        return Decision([*marks, delete(POD, pod, grace_s=0)])
    return _ended(world, now)


def _lost(node: str, world: World, now: float) -> Decision:
    if not node or world.get(NODE, node) is not None:
        return NOTHING
    lost = world.pods_on(node)[:_BURST]
    if not lost:
        return NOTHING
    since = world.memory if isinstance(world.memory, float) else now
    if now - since < _QUARANTINE_S:
        return Decision(requeue_after_s=since + _QUARANTINE_S - now, memory=since)
    marks = [_mark_failed(pod, "PodGC: node no longer exists", now) for pod in lost if not pods.is_finished(pod)]
    return Decision([Parallel(marks), Parallel([delete(POD, pod, grace_s=0) for pod in lost])], memory=since)


def _mark_failed(pod: Object, why: str | None, now: float) -> Patch:
    """Makes the phase final, for owners that wait for that; `why` is told as a disruption."""
    status: Object = {"phase": "Failed"}
    if why is not None:
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByPodGC",
            "message": why,
            "lastTransitionTime": times.format(now),
        }
        status["conditions"] = [condition]
    patch = {"metadata": {"uid": objects.uid(pod)}, "status": status}
    return Patch(POD, objects.namespace(pod), objects.name(pod), patch, "strategic", "status")


def _ended(world: World, now: float) -> Decision:
    everything = world.list(POD)
    if len(everything) <= MOST_ENDED:
        return NOTHING
    counted = world.memory if isinstance(world.memory, float) else None
    if counted is not None and now - counted < _COUNT_EVERY_S:
        return Decision(requeue_after_s=counted + _COUNT_EVERY_S - now, memory=counted)
    ended = [pod for pod in everything if pods.is_finished(pod) and not objects.is_deleting(pod)]
    excess = len(ended) - MOST_ENDED
    if excess <= 0:
        return Decision(memory=now)
    oldest = sorted(ended, key=lambda pod: (pods.created_at(pod), objects.key(pod)))[: min(excess, _BURST)]
    return Decision([Parallel([delete(POD, pod, grace_s=0) for pod in oldest])], memory=now)


def _of_pod(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
    if new is None:
        return
    node = new["spec"].get("nodeName")
    if objects.is_deleting(new) and not node:
        yield f"pod/{objects.key(new)}"
    if node and (old is None or not old["spec"].get("nodeName")) and world.get(NODE, node) is None:
        yield f"node/{node}"
    if pods.is_finished(new) and (old is None or not pods.is_finished(old)):
        yield "ended"


def _of_node(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
    if new is None and old is not None:
        yield f"node/{objects.name(old)}"


SPECS = (
    ControllerSpec(
        name="pod-garbage-collector-controller",
        decide=decide,
        watches=(Watch(POD, _of_pod), Watch(NODE, _of_node)),
        account="pod-garbage-collector",
    ),
)
