"""Keeps the status of each ResourceQuota: the limits that are in force, and what is used of them.

Admission charges what is created; here is found what went away, ended or changed, and what limits are new. A use that
turns out lower than charged is only written when the quota has been left alone for a moment: the object that was
charged last may not have shown up yet.
"""

from __future__ import annotations

from collections.abc import Iterable

from k3s.api import object as objects
from k3s.api import quota as quotas
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.api.podamounts import parsed
from k3s.api.quantity import ZERO
from k3s.controllers.actions import NOTHING, Decision, Update
from k3s.controllers.known import QUOTA
from k3s.controllers.spec import ControllerSpec, Keys
from k3s.controllers.world import World

# How long a quota has to be left alone before less is written into it than was charged: much longer than a charged
# object takes from there to the caches.
QUIET_S = 0.5
# Pods that end have their time over without any change of theirs: looked for this often while there are such.
_ENDING_S = 5.0


def decide(key: str, world: World, now: float) -> Decision:
    """Decides a quota."""
    quota = world.get(QUOTA, key)
    if quota is None or objects.is_deleting(quota):
        return NOTHING
    space = objects.namespace(quota)
    found = [(kind, world.list(kind, space)) for kind in world.kinds() if kind.namespaced and kind.stored]
    hard = (quota.get("spec") or {}).get("hard") or {}
    total = quotas.total(quota, found, now)
    status = quota.get("status") or {}
    recorded = parsed(status.get("used"))
    later = _ENDING_S if _is_ending(found, now) else None
    if status.get("hard") == hard and recorded == total:
        return Decision(requeue_after_s=later) if later else NOTHING
    if any(total.get(name, ZERO) < amount for name, amount in recorded.items() if name in total):
        seen = (quota["metadata"]["resourceVersion"], now)
        if not world.memory or world.memory[0] != seen[0]:
            return Decision(requeue_after_s=QUIET_S, memory=seen)
        if now - world.memory[1] < QUIET_S:
            return Decision(requeue_after_s=QUIET_S, memory=world.memory)
    used = {name: str(amount) for name, amount in total.items()}
    return Decision([Update(QUOTA, {**quota, "status": {"hard": hard, "used": used}}, "status")], later)


def _is_ending(found: Iterable[tuple[Kind, list[Object]]], now: float) -> bool:
    return any(
        objects.is_deleting(pod) and not quotas.has_ended(pod, now)
        for kind, listed in found
        if kind.qualified == "pods"
        for pod in listed
    )


def everywhere(kind: Kind) -> Keys:
    """Which quotas a change of an object of a kind concerns: those of its namespace that count the kind."""

    def keys(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
        obj = new or old
        space = objects.namespace(obj) if obj is not None else ""
        if not space or not (found := world.list(QUOTA, space)):
            return ()
        if old is not None and new is not None and not _uses_otherwise(kind, old, new):
            return ()
        return [objects.key(quota) for quota in found if quotas.counts(kind, _hard(quota))]

    return keys


def _hard(quota: Object) -> Iterable[str]:
    hard: Iterable[str] = (quota.get("spec") or {}).get("hard") or {}
    return hard


def _uses_otherwise(kind: Kind, old: Object, new: Object) -> bool:
    """Whether a change may change what an object uses."""
    if kind.qualified == "pods":
        same = _ended(old) == _ended(new) and objects.is_deleting(old) == objects.is_deleting(new)
        return not same or old["spec"] != new["spec"]
    if kind.qualified == "persistentvolumeclaims":
        return bool(old["spec"] != new["spec"] or old.get("status") != new.get("status"))
    return kind.qualified == "services" and old["spec"] != new["spec"]


def _ended(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


SPECS = (
    ControllerSpec(
        name="resourcequota-controller",
        decide=decide,
        kind=QUOTA,
        everywhere=everywhere,
        account="resourcequota-controller",
    ),
)
