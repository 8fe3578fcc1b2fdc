"""`/resize`: what a running pod's resources may become. Source: KEP-1287 (in-place update of pod resources)."""

from __future__ import annotations

from collections.abc import Iterator

from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.api.qos import qos_class
from k3s.api.validation import meta, podchanges
from k3s.api.validation.causes import Cause, forbidden, invalid

POD = builtin("v1", "Pod")
_MIRROR = "kubernetes.io/config.mirror"
_RESIZABLE = ("cpu", "memory")
_PARTS = ("requests", "limits")
_LISTS = ("containers", "initContainers")
_ONLY = "only cpu and memory resources are mutable"
_ONLY_INIT = "only cpu and memory resources for init or sidecar containers are mutable"
_RESTARTED = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized"


def causes(old: Object, new: Object) -> list[Cause]:
    """Why a pod cannot be resized so: only cpu and memory change, none is taken away, the class of service stays."""
    if _MIRROR in (old["metadata"].get("annotations") or {}):
        return [forbidden("[]", "static pods cannot be resized")]
    before, after = old["spec"], new["spec"]
    if (before.get("os") or {}).get("name") == "windows":
        return [forbidden("[]", "windows pods cannot be resized")]
    found = [*meta.changed(POD, new), *podchanges.whole(old, new)]
    was = (old.get("status") or {}).get("qosClass") or qos_class(old)
    if was != qos_class(new):
        found.append(invalid("spec", was, "Pod QOS Class may not change as a result of resizing"))
    if not _supported(old):
        found.append(forbidden("spec", "Pod running on node without support for resize"))
    found += _whole(before.get("resources"), after.get("resources"))
    moved = list(_order(before, after))
    found += moved
    if not moved:
        found += [*_removed(before, after), *_others(before, after)]
    return found


def _supported(pod: Object) -> bool:
    """Whether the node says what its first running container has: one that does not, cannot resize."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if (status.get("state") or {}).get("running") is not None:
            return status.get("resources") is not None
    return True


def _order(before: Object, after: Object) -> Iterator[Cause]:
    """The same containers in the same places."""
    for part in _LISTS:
        was, now = [[c.get("name") for c in spec.get(part) or ()] for spec in (before, after)]
        if len(was) != len(now):
            yield forbidden(f"spec.{part}", f"{part} may not be added or removed on resize")
            continue
        for i, (one, other) in enumerate(zip(was, now, strict=True)):
            if one != other:
                yield forbidden(f"spec.{part}[{i}].name", f"{part} may not be renamed or reordered on resize")


def _whole(was: Object | None, now: Object | None) -> Iterator[Cause]:
    """What the pod as a whole asks for stays asked for; only amounts of cpu and memory change."""
    if not any((resources or {}).get(part) for resources in (was, now) for part in _PARTS):
        if (was or {}) != (now or {}):
            yield forbidden("spec", _ONLY)
        return
    if was is not None and now is None:
        yield forbidden("spec.resources", "pod-level resources cannot be removed")
        return
    if was is not None:
        yield from _gone(was, now or {}, "spec.resources", "pod-level resource")
    if _unresizable(was or {}) != _unresizable(now or {}):
        yield forbidden("spec", "only cpu and memory resources are mutable at pod-level")


def _removed(before: Object, after: Object) -> Iterator[Cause]:
    for part in reversed(_LISTS):
        for i, (one, other) in enumerate(zip(before.get(part) or (), after.get(part) or (), strict=True)):
            at = f"spec.{part}[{i}].resources"
            yield from _gone(one.get("resources") or {}, other.get("resources") or {}, at, "resource")


def _gone(was: Object, now: Object, at: str, what: str) -> Iterator[Cause]:
    for part in _PARTS:
        if set(was.get(part) or ()) - set(now.get(part) or ()):
            yield forbidden(f"{at}.{part}", f"{what} {part} cannot be removed")


def _others(before: Object, after: Object) -> Iterator[Cause]:
    """Of each container nothing but cpu and memory changes."""
    for one, other in zip(before.get("containers") or (), after.get("containers") or (), strict=True):
        if _fixed(one) != _fixed(other):
            yield forbidden("spec", _ONLY)
    pairs = zip(before.get("initContainers") or (), after.get("initContainers") or (), strict=True)
    for i, (one, other) in enumerate(pairs):
        if _fixed(one) != _fixed(other):
            yield forbidden(f"spec.initContainers[{i}]", _ONLY_INIT)
        elif one != other and one.get("restartPolicy") != "Always" and _restarts(one):
            yield forbidden(f"spec.initContainers[{i}]", _RESTARTED)


def _restarts(container: Object) -> bool:
    return any(rule.get("restartPolicy") == "RestartContainer" for rule in container.get("resizePolicy") or ())


def _fixed(container: Object) -> Object:
    """A container without what can be resized."""
    return {**container, "resources": _unresizable(container.get("resources") or {})}


def _unresizable(resources: Object) -> Object:
    """Resources besides cpu and memory."""
    rest = {part: {k: v for k, v in (resources.get(part) or {}).items() if k not in _RESIZABLE} for part in _PARTS}
    return {**rest, "claims": resources.get("claims") or []}
