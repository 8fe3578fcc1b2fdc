"""What controllers ask of a pod, and how one is made from a template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from k3s.api import object as objects
from k3s.api import times
from k3s.api.object import Object

# Upstream keeps room for the five characters and the dash that generateName adds to 63.
_PREFIX_LENGTH = 57


def condition(obj: Object, type: str) -> Object | None:
    """The status condition of this type."""
    for found in obj.get("status", {}).get("conditions") or ():
        if found["type"] == type:
            return found  # type: ignore[no-any-return]
    return None


def is_true(obj: Object, type: str) -> bool:
    """Whether the status condition of this type is True."""
    found = condition(obj, type)
    return found is not None and found.get("status") == "True"


def phase(pod: Object) -> str:
    """status.phase, Pending when nobody has set it yet."""
    return pod.get("status", {}).get("phase") or "Pending"


def is_ready(pod: Object) -> bool:
    """Whether the pod's Ready condition is True."""
    return is_true(pod, "Ready")


def ready_since(pod: Object) -> float | None:
    """When the pod became ready (seconds since 1970), None when it is not ready or nobody said when."""
    found = condition(pod, "Ready")
    if found is None or found.get("status") != "True" or not found.get("lastTransitionTime"):
        return None
    return times.parse(found["lastTransitionTime"])


def available_in(pod: Object, min_ready_s: int, now: float) -> float | None:
    """Seconds until the pod counts as available: 0 when it does, None while it is not ready."""
    if not is_ready(pod):
        return None
    if not min_ready_s:
        return 0.0
    since = ready_since(pod)
    return None if since is None else max(since + min_ready_s - now, 0.0)


def is_finished(pod: Object) -> bool:
    """Whether the pod has ended for good (Succeeded or Failed)."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def is_active(pod: Object) -> bool:
    """Whether the pod neither ended nor is being deleted."""
    return not is_finished(pod) and not objects.is_deleting(pod)


def created_at(obj: Object) -> float:
    """metadata.creationTimestamp in seconds since 1970, 0 when there is none."""
    text = obj["metadata"].get("creationTimestamp")
    return times.parse(text) if text else 0.0


def restarts(pod: Object) -> int:
    """How often containers of the pod were restarted, at the most."""
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return max((status.get("restartCount", 0) for status in statuses), default=0)


def owner_key(obj: Object, kind: str) -> tuple[str, ...]:
    """The key of the object's controller when that is of this kind, as a tuple of none or one."""
    ref = objects.controller_of(obj)
    if ref is None or ref["kind"] != kind:
        return ()
    return (f"{objects.namespace(obj)}/{ref['name']}",)


_COUNTED_META = ("labels", "ownerReferences", "deletionTimestamp", "finalizers")


def same_for_owner(old: Object | None, new: Object | None) -> bool:
    """True when nothing changed that an owner counts: phase, conditions, labels, owners, deletion, node."""
    if old is None or new is None:
        return False
    # Asked by each controller of each change of each pod: plain loops take half the time of generators.
    was, is_ = old.get("status", {}), new.get("status", {})
    if was.get("conditions") != is_.get("conditions") or was.get("phase") != is_.get("phase"):
        return False
    before, after = old["metadata"], new["metadata"]
    for part in _COUNTED_META:
        if before.get(part) != after.get(part):
            return False
    return bool(old["spec"].get("nodeName") == new["spec"].get("nodeName"))


def sides(old: Object | None, new: Object | None) -> list[Object]:
    """The versions of a changed object by which others are found: one, when labels and owners are as before."""
    if old is None or new is None:
        return [obj for obj in (new, old) if obj is not None]
    before, after = old["metadata"], new["metadata"]
    same = before.get("labels") == after.get("labels") and before.get("ownerReferences") == after.get("ownerReferences")
    return [new] if same else [new, old]


def from_template(
    template: Object,
    owner: Object,
    *,
    name: str = "",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    finalizers: Iterable[str] = (),
    spec: Object | None = None,
) -> Object:
    """A pod of this template that belongs to `owner`; without `name` the server makes one from the owner's."""
    source = template.get("metadata") or {}
    meta: dict[str, Any] = {"namespace": objects.namespace(owner)}
    if name:
        meta["name"] = name
    else:
        meta["generateName"] = objects.name(owner)[:_PREFIX_LENGTH] + "-"
    merged = {**(source.get("labels") or {}), **(labels or {})}
    if merged:
        meta["labels"] = merged
    notes = {**(source.get("annotations") or {}), **(annotations or {})}
    if notes:
        meta["annotations"] = notes
    ends = [*(source.get("finalizers") or ()), *finalizers]
    if ends:
        meta["finalizers"] = ends
    meta["ownerReferences"] = [objects.owner_ref(owner)]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"] if spec is None else spec}
