"""Node health: conditions become taints, silent nodes become Unknown, and their pods stop being ready.

Source: the documentation of node conditions and taints, KEP-382 (taint-based eviction), KEP-589 (node leases).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from k3s.api import object as objects
from k3s.api import taints, times
from k3s.api.object import Object, evolve
from k3s.controllers import pods
from k3s.controllers.actions import NOTHING, Action, Decision, Emit, Parallel, Patch, Update, delete, earliest
from k3s.controllers.eviction_time import evicted_at
from k3s.controllers.known import LEASE, NODE, POD
from k3s.controllers.spec import ControllerSpec, Watch
from k3s.controllers.world import World

# Without a sign of life for so long a node is Unknown; one that never gave one has longer.
GRACE_S = 50.0
STARTUP_GRACE_S = 60.0
LEASES = "kube-node-lease"

_PRESSURES = {
    "MemoryPressure": taints.MEMORY_PRESSURE,
    "DiskPressure": taints.DISK_PRESSURE,
    "PIDPressure": taints.PID_PRESSURE,
    "NetworkUnavailable": taints.NETWORK_UNAVAILABLE,
}
_NO_SCHEDULE = frozenset((*_PRESSURES.values(), taints.NOT_READY, taints.UNREACHABLE, taints.UNSCHEDULABLE))
_NO_EXECUTE = frozenset((taints.NOT_READY, taints.UNREACHABLE))
_OBSERVED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


class SignOfLife(NamedTuple):
    """What a node last said of itself, and when we noticed: our own clock, not the node's, measures its silence."""

    text: str
    at: float


def decide(key: str, world: World, now: float) -> Decision:
    """Decides a node."""
    node = world.get(NODE, key)
    if node is None:
        return NOTHING
    sign = _sign(node, world, now)
    grace_s = GRACE_S if pods.condition(node, "Ready") is not None else STARTUP_GRACE_S
    silent = now - sign.at > grace_s
    wait = None if silent else sign.at + grace_s - now + 0.001
    actions: list[Action] = []
    if silent and _is_known(node):
        conditions = _unknown(node, now)
        return Decision([Update(NODE, evolve(node, ("status", "conditions"), conditions), "status")], memory=sign)
    wanted = _taints(node, world, now)
    if wanted != taints.taints_of(node):
        meta = {"uid": objects.uid(node), "resourceVersion": node["metadata"]["resourceVersion"]}
        patch = {"metadata": meta, "spec": {"taints": wanted or None}}
        actions.append(Patch(NODE, "", key, patch))
    if _ready(node) == "Unknown":
        marks = [_not_ready(pod, now) for pod in world.pods_on(key) if pods.is_ready(pod)]
        if marks:
            actions.append(Emit(node, "Normal", "NodeNotReady", f"Node {key} status is now: NodeNotReady"))
            actions.append(Parallel(marks))
    return Decision(actions, wait, sign)


def _sign(node: Object, world: World, now: float) -> SignOfLife:
    lease = world.get(LEASE, f"{LEASES}/{objects.name(node)}")
    beats = [found.get("lastHeartbeatTime", "") for found in node.get("status", {}).get("conditions") or ()]
    # A Lease may have no spec.
    renewed = objects.get(lease, "spec", "renewTime", default="")
    # What we wrote ourselves about a silent node is no sign of life.
    own = _ready(node) == "Unknown"
    text = f"{renewed} {'' if own else max(beats, default='')}"
    before: Any = world.memory
    if isinstance(before, SignOfLife) and (before.text == text or (own and before.text.split(" ")[0] == renewed)):
        return before
    return SignOfLife(text, now)


def _ready(node: Object) -> str:
    found = pods.condition(node, "Ready")
    return str(found["status"]) if found is not None else ""


def _is_known(node: Object) -> bool:
    found = {c["type"]: c["status"] for c in node.get("status", {}).get("conditions") or ()}
    return any(found.get(type) != "Unknown" for type in _OBSERVED)


def _unknown(node: Object, now: float) -> list[Object]:
    before = {found["type"]: found for found in node.get("status", {}).get("conditions") or ()}
    result = [found for type, found in before.items() if type not in _OBSERVED]
    for type in _OBSERVED:
        old = before.get(type)
        if old is not None and old["status"] == "Unknown":
            result.append(old)
            continue
        new = {
            "type": type,
            "status": "Unknown",
            "reason": "NodeStatusUnknown" if old else "NodeStatusNeverUpdated",
            "message": "Kubelet stopped posting node status." if old else "Kubelet never posted node status.",
            "lastHeartbeatTime": (old or {}).get("lastHeartbeatTime") or node["metadata"].get("creationTimestamp"),
            "lastTransitionTime": times.format(now),
        }
        result.append(new)
    return result


def _taints(node: Object, world: World, now: float) -> list[Object]:
    """The taints that follow from the conditions, after those that are somebody else's business."""
    conditions = {found["type"]: found["status"] for found in node.get("status", {}).get("conditions") or ()}
    state = {"False": taints.NOT_READY, "Unknown": taints.UNREACHABLE}.get(conditions.get("Ready", ""))
    wanted = [(key, "NoSchedule") for type, key in _PRESSURES.items() if conditions.get(type) == "True"]
    if node.get("spec", {}).get("unschedulable"):
        wanted.append((taints.UNSCHEDULABLE, "NoSchedule"))
    if state is not None:
        wanted.append((state, "NoSchedule"))
        if any(_ready(other) == "True" for other in world.list(NODE)):
            # When no node at all is ready, it is the control plane that is cut off: nobody is evicted.
            wanted.append((state, "NoExecute"))
    present = {(taint["key"], taint["effect"]): taint for taint in taints.taints_of(node)}
    kept = [taint for name, taint in present.items() if not _is_ours(*name) or name in wanted]
    new = [name for name in wanted if name not in present]
    return kept + [{"key": key, "effect": effect, "timeAdded": times.format(now)} for key, effect in new]


def _is_ours(key: str, effect: str) -> bool:
    return (effect == "NoSchedule" and key in _NO_SCHEDULE) or (effect == "NoExecute" and key in _NO_EXECUTE)


def _not_ready(pod: Object, now: float) -> Patch:
    condition = {"type": "Ready", "status": "False", "lastTransitionTime": times.format(now)}
    patch = {"metadata": {"uid": objects.uid(pod)}, "status": {"conditions": [condition]}}
    return Patch(POD, objects.namespace(pod), objects.name(pod), patch, "strategic", "status")


def evict(key: str, world: World, now: float) -> Decision:
    """Decides which pods leave a node because of its NoExecute taints (the taint eviction controller)."""
    node = world.get(NODE, key)
    found = [taint for taint in taints.taints_of(node) if taint["effect"] == "NoExecute"] if node is not None else []
    if not found:
        return NOTHING
    leaving: list[Object] = []
    waits: list[float | None] = []
    for pod in world.pods_on(key):
        if objects.is_deleting(pod):
            continue
        at = evicted_at(pod, found, now)
        if at is not None and at > now:
            waits.append(at - now)
        elif at is not None:
            leaving.append(pod)
    actions: list[Action] = []
    if leaving:
        actions += [
            Parallel([_disrupted(pod, now) for pod in leaving]),
            Parallel([delete(POD, pod) for pod in leaving]),
        ]
        reason = "TaintManagerEviction"
        actions += [Emit(pod, "Normal", reason, f"Marking for deletion Pod {objects.key(pod)}") for pod in leaving]
    return Decision(actions, earliest(*waits))


def _disrupted(pod: Object, now: float) -> Patch:
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
        "lastTransitionTime": times.format(now),
    }
    patch = {"metadata": {"uid": objects.uid(pod)}, "status": {"conditions": [condition]}}
    return Patch(POD, objects.namespace(pod), objects.name(pod), patch, "strategic", "status")


def _of_node(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
    """The node, and all others when it became ready or stopped to be: eviction depends on that."""
    obj = new if new is not None else old
    if obj is None:
        return ()
    if (_ready(old) if old is not None else "") != (_ready(new) if new is not None else ""):
        return [objects.name(obj), *(objects.name(node) for node in world.list(NODE))]
    return (objects.name(obj),)


def _of_lease(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
    lease = new if new is not None else old
    return (objects.name(lease),) if lease is not None and objects.namespace(lease) == LEASES else ()


def _of_pod(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
    """A pod that came to a node, or whose tolerations changed."""
    if new is None or not new["spec"].get("nodeName"):
        return ()
    parts = ("nodeName", "tolerations")
    if old is not None and all(old["spec"].get(part) == new["spec"].get(part) for part in parts):
        return ()
    node = world.get(NODE, new["spec"]["nodeName"])
    return (new["spec"]["nodeName"],) if node is not None and taints.taints_of(node) else ()


def _tainted(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
    if new is None or (old is not None and taints.taints_of(old) == taints.taints_of(new)):
        return ()
    return (objects.name(new),) if taints.taints_of(new) else ()


SPECS = (
    ControllerSpec(
        name="node-lifecycle-controller",
        decide=decide,
        watches=(Watch(NODE, _of_node), Watch(LEASE, _of_lease)),
        reads=(POD,),
        account="node-controller",
        workers=8,
    ),
    ControllerSpec(
        name="taint-eviction-controller",
        decide=evict,
        watches=(Watch(NODE, _tainted), Watch(POD, _of_pod)),
        account="node-controller",
        workers=8,
    ),
)
