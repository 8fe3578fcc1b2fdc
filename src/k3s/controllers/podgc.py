"""Removes pods that nobody else will: of nodes that are gone or out of service, ended ones beyond a limit, deleted ones
without a node.

Keys: `node/<name>`, `pod/<namespace>/<name>`, `ended`.
"""

from __future__ import annotations

from collections.abc import Iterable

from k3s.api import object as objects
from k3s.api import taints, times
from k3s.api.object import Object
from k3s.controllers import pods
from k3s.controllers.actions import NOTHING, Action, Decision, Parallel, Patch, delete
from k3s.controllers.known import NODE, POD
from k3s.controllers.spec import ControllerSpec, Decide, Watch
from k3s.controllers.world import World

#: How many ended pods are kept for people to look at, unless they say otherwise (terminated-pod-gc-threshold).
MOST_ENDED = 12500
# A node that is missing may only be late to register again.
_QUARANTINE_S = 40.0
# Counting ended pods looks at all of them: not more often than this.
_COUNT_EVERY_S = 20.0
_BURST = 500


def decider(most_ended: int) -> Decide:
    """The decider that keeps so many ended pods; 0 keeps them all."""

    def decide(key: str, world: World, now: float) -> Decision:
        """Decides a node's pods, one pod, or the ended ones."""
        what, _, rest = key.partition("/")
        if what == "node":
            return _of_node_out_of_service(rest, world, now) or _lost(rest, world, now)
        if what == "pod":
            pod = world.get(POD, rest)
            if pod is None or not objects.is_deleting(pod) or pod["spec"].get("nodeName"):
                return NOTHING
            return Decision(_removed([pod], now))
        return _ended(world, now, most_ended) if most_ended > 0 else NOTHING

    return decide


def _removed(found: list[Object], now: float, why: str | None = None) -> list[Action]:
    """Fails pods that have not ended, then deletes them without grace."""
    marks = [_mark_failed(pod, why, now) for pod in found if not pods.is_finished(pod)]
    return [Parallel(marks), Parallel([delete(POD, pod, grace_s=0) for pod in found])]


def _is_out_of_service(node: Object | None) -> bool:
    """Whether somebody vouches that a node which is not ready is off: its pods may start elsewhere (KEP-2268)."""
    if node is None or not any(taint["key"] == taints.OUT_OF_SERVICE for taint in taints.taints_of(node)):
        return False
    return not pods.is_true(node, "Ready")


def _of_node_out_of_service(name: str, world: World, now: float) -> Decision | None:
    if not _is_out_of_service(world.get(NODE, name)):
        return None
    ending = [pod for pod in world.pods_on(name) if objects.is_deleting(pod)]
    return Decision(_removed(sorted(ending, key=pods.created_at)[:_BURST], now)) if ending else NOTHING


def _lost(node: str, world: World, now: float) -> Decision:
    if not node or world.get(NODE, node) is not None:
        return NOTHING
    lost = world.pods_on(node)[:_BURST]
    if not lost:
        return NOTHING
    since = world.memory if isinstance(world.memory, float) else now
    if now - since < _QUARANTINE_S:
        return Decision(requeue_after_s=since + _QUARANTINE_S - now, memory=since)
    return Decision(_removed(lost, now, "PodGC: node no longer exists"), memory=since)


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


def _ended(world: World, now: float, most: int) -> Decision:
    everything = world.list(POD)
    if len(everything) <= most:
        return NOTHING
    counted = world.memory if isinstance(world.memory, float) else None
    if counted is not None and now - counted < _COUNT_EVERY_S:
        return Decision(requeue_after_s=counted + _COUNT_EVERY_S - now, memory=counted)
    ended = [pod for pod in everything if pods.is_finished(pod) and not objects.is_deleting(pod)]
    excess = len(ended) - most
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
    if node and objects.is_deleting(new) and _is_out_of_service(world.get(NODE, node)):
        yield f"node/{node}"
    if pods.is_finished(new) and (old is None or not pods.is_finished(old)):
        yield "ended"


def _of_node(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
    about = new or old
    if about is not None and (new is None or (_is_out_of_service(new) and not _is_out_of_service(old))):
        yield f"node/{objects.name(about)}"


def specs(most_ended: int = MOST_ENDED) -> tuple[ControllerSpec, ...]:
    """The controller; `most_ended` pods that have ended are kept."""
    return (
        ControllerSpec(
            name="pod-garbage-collector-controller",
            decide=decider(most_ended),
            watches=(Watch(POD, _of_pod), Watch(NODE, _of_node)),
            account="pod-garbage-collector",
        ),
    )
